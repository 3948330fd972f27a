//! Traffic split: rows TS-01 to TS-11.

use anyhow::ensure;
use e2e::{conformance::Record, harness::Outcome};
use serde_json::json;

use super::application::{Suite, known};

/// What the suite sends per step.
const CALLS: usize = 50;

#[test]
fn traffic_split_suite_passes_step_by_step() -> Outcome {
    let name = "trafficsplits.split.smi-spec.io";
    known("TS-01", name, "TrafficSplit", "ts")?;
    let suite = Suite::of_backends("suite-split", "TS-02")?;
    fifty(&suite, "TS-03", |b, c| b >= 1 && c >= 1)?;
    weigh(&suite, "TS-04", 1, 0)?;
    fifty(&suite, "TS-05", |b, c| b == CALLS && c == 0)?;
    weigh(&suite, "TS-06", 0, 1)?;
    fifty(&suite, "TS-07", |b, c| b == 0 && c == CALLS)?;
    weigh(&suite, "TS-08", 75, 25)?;
    fifty(&suite, "TS-09", |b, c| b > c && three_quarters(b))?;
    weigh(&suite, "TS-10", 25, 75)?;
    fifty(&suite, "TS-11", |b, c| c > b && three_quarters(c))?;
    Ok(())
}

/// 37.5 of 50 within 5 sigma of 3.06, which is more than the suite asks.
fn three_quarters(count: usize) -> bool {
    (23..=50).contains(&count)
}

fn weigh(suite: &Suite, id: &str, b: i64, c: i64) -> anyhow::Result<()> {
    let mut row = Record::begin(id)?;
    let spec = json!({"service": "app-svc", "backends": [
        {"service": "app-b", "weight": b}, {"service": "app-c", "weight": c}]});
    suite.ns.apply_all(&[
        json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "server-split"}, "spec": spec}),
    ])?;
    let kind = "trafficsplits.v1alpha4.split.smi-spec.io";
    let read = suite.ns.json(&["get", kind, "server-split"])?;
    ensure!(read["spec"] == spec, "{read}");
    row.saw(
        format!("TrafficSplit v1alpha4, app-b {b}, app-c {c}"),
        format!("spec {}", read["spec"]),
    );
    row.passed()
}

fn fifty(suite: &Suite, id: &str, judge: impl Fn(usize, usize) -> bool) -> anyhow::Result<()> {
    let calls = vec![("GET", suite.url("app-svc", "/echo")); CALLS];
    suite.step(id, &calls, |suite| {
        let a = suite.seen("app-a")?;
        ensure!(
            a.resp_succeeded.len() == CALLS,
            "not all were answered: {a:?}"
        );
        let (b, c) = (suite.seen("app-b")?, suite.seen("app-c")?);
        let (b, c) = (b.req_received.len(), c.req_received.len());
        ensure!(b + c == CALLS, "app-b received {b}, app-c {c}");
        ensure!(judge(b, c), "app-b received {b}, app-c {c}");
        Ok(format!("app-b received {b}, app-c {c}"))
    })
}
