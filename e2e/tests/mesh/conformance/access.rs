//! Traffic access: rows TA-01 to TA-07.

use anyhow::ensure;
use e2e::{
    conformance::Record,
    harness::{Outcome, eventually},
};

use super::{
    super::SOON,
    application::{Suite, in_words, known},
};

const POLICY: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: service-tcp-route}
spec: {matches: {ports: []}}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: service-targets}
spec:
  destination: {kind: ServiceAccount, name: service-b, namespace: $NS}
  rules: [{kind: TCPRoute, name: service-tcp-route}]
  sources: [{kind: ServiceAccount, name: service-a, namespace: $NS}]
";

#[test]
fn traffic_access_suite_passes_step_by_step() -> Outcome {
    let name = "traffictargets.access.smi-spec.io";
    known("TA-01", name, "TrafficTarget", "tt")?;
    let suite = Suite::of_accounts("suite-access", "TA-02")?;
    refused(&suite, "TA-03")?;
    stored(&suite)?;
    allowed(&suite)?;
    deleted(&suite)?;
    refused(&suite, "TA-07")?;
    Ok(())
}

/// TA-03 and TA-07: one call, refused, and recorded as that by the caller alone.
fn refused(suite: &Suite, id: &str) -> anyhow::Result<()> {
    let target = suite.url("app-b", "/echo");
    suite.step(id, &[("GET", target.clone())], |suite| {
        let (a, b) = (suite.seen("app-a")?, suite.seen("app-b")?);
        ensure!(a.resp_failed.len() == 1, "app-a saw {a:?}");
        ensure!(a.resp_failed[0].url == target, "app-a saw {a:?}");
        ensure!(a.resp_succeeded.is_empty(), "app-a saw {a:?}");
        ensure!(b.req_received.is_empty(), "it arrived: {b:?}");
        Ok(format!("app-a {}; app-b received 0", in_words(&a)))
    })
}

fn stored(suite: &Suite) -> anyhow::Result<()> {
    let mut row = Record::begin("TA-04")?;
    suite.ns.apply(POLICY)?;
    let route = suite.ns.json(&[
        "get",
        "tcproutes.v1alpha4.specs.smi-spec.io",
        "service-tcp-route",
    ])?;
    ensure!(
        route["spec"]["matches"]["ports"] == serde_json::json!([]),
        "{route}"
    );
    row.saw(
        "TCPRoute v1alpha4 with ports []",
        format!("spec {}", route["spec"]),
    );
    let kind = "traffictargets.v1alpha3.access.smi-spec.io";
    let target = suite.ns.json(&["get", kind, "service-targets"])?;
    let spec = &target["spec"];
    ensure!(
        target["apiVersion"] == "access.smi-spec.io/v1alpha3",
        "{target}"
    );
    ensure!(spec["destination"]["name"] == "service-b", "{spec}");
    ensure!(spec["sources"][0]["name"] == "service-a", "{spec}");
    let rule = serde_json::json!([{"kind": "TCPRoute", "name": "service-tcp-route"}]);
    ensure!(spec["rules"] == rule, "{spec}");
    row.saw(
        "TrafficTarget v1alpha3, service-a to service-b by that TCPRoute",
        format!("spec {spec}").replace(&suite.ns.name, "NS"),
    );
    row.passed()
}

fn allowed(suite: &Suite) -> anyhow::Result<()> {
    let target = suite.url("app-b", "/echo");
    suite.step("TA-05", &[("GET", target.clone())], |suite| {
        let (a, b) = (suite.seen("app-a")?, suite.seen("app-b")?);
        ensure!(a.resp_failed.is_empty(), "app-a saw {a:?}");
        ensure!(a.resp_succeeded.len() == 1, "app-a saw {a:?}");
        ensure!(a.resp_succeeded[0].url == target, "app-a saw {a:?}");
        ensure!(b.req_received == ["app-a"], "app-b saw {b:?}");
        Ok(format!(
            "app-a {}; app-b received 1 from app-a",
            in_words(&a)
        ))
    })
}

fn deleted(suite: &Suite) -> anyhow::Result<()> {
    let mut row = Record::begin("TA-06")?;
    let objects = [
        "traffictarget/service-targets",
        "tcproute.specs.smi-spec.io/service-tcp-route",
    ];
    for object in objects {
        suite.ns.kubectl(&["delete", object])?;
        let gone = eventually(SOON, "the object is gone", || {
            match suite.ns.kubectl(&["get", object]) {
                Err(error) if format!("{error:#}").contains("NotFound") => Ok("NotFound"),
                other => anyhow::bail!("it is {other:?}"),
            }
        })?;
        row.saw(format!("delete {object}, get it"), gone);
    }
    row.passed()
}
