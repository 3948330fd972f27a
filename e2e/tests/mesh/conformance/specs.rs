//! Traffic specs: rows SP-01 to SP-06.

use anyhow::ensure;
use e2e::{conformance::Record, harness::Outcome};
use serde_json::{Value, json};

use super::application::{Suite, in_words, known};

#[test]
fn traffic_spec_suite_passes_step_by_step() -> Outcome {
    let name = "httproutegroups.specs.smi-spec.io";
    known("SP-01", name, "HTTPRouteGroup", "htr")?;
    let suite = Suite::of_accounts("suite-specs", "SP-02")?;
    let path = json!([{"name": "testMatch", "pathRegex": "/metrics", "methods": ["*"]}]);
    stored(&suite, "SP-03", &path)?;
    let url = |path| suite.url("app-b", path);
    let calls = [("GET", url("/metrics")), ("GET", url("/echo"))];
    first_passes_second_is_refused(&suite, "SP-04", &calls)?;
    let method = json!([{"name": "testMatch", "pathRegex": ".*", "methods": ["GET"]}]);
    stored(&suite, "SP-05", &method)?;
    let calls = [("GET", url("/echo")), ("POST", url("/echo"))];
    first_passes_second_is_refused(&suite, "SP-06", &calls)?;
    Ok(())
}

fn stored(suite: &Suite, id: &str, matches: &Value) -> anyhow::Result<()> {
    let mut row = Record::begin(id)?;
    let account =
        |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": suite.ns.name});
    let group = json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
        "metadata": {"name": "http-rg"}, "spec": {"matches": matches}});
    let target = json!({"apiVersion": "access.smi-spec.io/v1alpha3", "kind": "TrafficTarget",
        "metadata": {"name": "service-targets"}, "spec": {
            "destination": account("service-b"), "sources": [account("service-a")],
            "rules": [{"kind": "HTTPRouteGroup", "name": "http-rg", "matches": ["testMatch"]}]}});
    suite.ns.apply_all(&[group.clone(), target.clone()])?;
    for (kind, written) in [
        ("httproutegroups.v1alpha4.specs.smi-spec.io", &group),
        ("traffictargets.v1alpha3.access.smi-spec.io", &target),
    ] {
        let name = written["metadata"]["name"].as_str().unwrap_or_default();
        let read = suite.ns.json(&["get", kind, name])?;
        ensure!(read["spec"] == written["spec"], "{read}");
        row.saw(
            format!("{} {}", written["apiVersion"], written["kind"]),
            format!("spec {}", read["spec"]).replace(&suite.ns.name, "NS"),
        );
    }
    row.passed()
}

fn first_passes_second_is_refused(
    suite: &Suite,
    id: &str,
    calls: &[(&str, String); 2],
) -> anyhow::Result<()> {
    let [(first, first_url), (second, second_url)] = calls;
    suite.step(id, calls, |suite| {
        let a = suite.seen("app-a")?;
        ensure!(
            a.resp_succeeded.len() == 1 && a.resp_failed.len() == 1,
            "app-a saw {a:?}"
        );
        let (passed, refused) = (&a.resp_succeeded[0], &a.resp_failed[0]);
        ensure!(
            (&passed.url, passed.method.as_str()) == (first_url, first),
            "app-a saw {a:?}"
        );
        ensure!(
            (&refused.url, refused.method.as_str()) == (second_url, second),
            "app-a saw {a:?}"
        );
        Ok(format!("app-a {}", in_words(&a)))
    })
}
