//! Objects that mean nothing and are stored all the same: row E3.

use anyhow::Context as _;
use e2e::{
    conformance::Record,
    harness::{Cluster, Namespace, Outcome, eventually},
};
use serde_json::json;

use super::super::{
    SOON,
    additive::{allowed, group, refused, shop, target},
    url,
};

const VALIDATOR: &str = "validatingwebhookconfiguration/weft-validator";

/// As long as it lives, the validation webhook does not see one namespace, as if
/// the objects there had been stored before the webhook existed.
struct Unwatched {
    cluster: Cluster,
}

impl Unwatched {
    fn begin(ns: &Namespace) -> anyhow::Result<Self> {
        let cluster = ns.cluster.clone();
        let admission = Self { cluster };
        admission.select(
            &json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name",
            "operator": "NotIn", "values": [ns.name]}]}),
        )?;
        Ok(admission)
    }

    fn select(&self, selector: &serde_json::Value) -> anyhow::Result<()> {
        let patch =
            json!([{"op": "add", "path": "/webhooks/0/namespaceSelector", "value": selector}]);
        self.cluster
            .kubectl(&["patch", VALIDATOR, "--type=json", "-p", &patch.to_string()])
            .map(drop)
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let Err(error) = self.select(&json!({})) {
            eprintln!("the validation webhook still leaves a namespace out: {error:#}");
        }
    }
}

#[test]
fn empty_lists_are_refused_and_allow_nothing_if_stored() -> Outcome {
    let mut row = Record::begin("E3")?;
    let (ns, one, _two) = shop("stored")?;
    let routes = group("any", "[{name: any, pathRegex: '.*'}]");
    ns.apply(&routes)?;
    let rules = "[{kind: HTTPRouteGroup, name: any}]";
    let cases = [
        ("rules", target("empty-rules", "one", "[]")),
        (
            "sources",
            target("empty-sources", "one", rules).replace(
                "sources: [{kind: ServiceAccount, name: one, namespace: $NS}]",
                "sources: []",
            ),
        ),
    ];
    for (field, object) in &cases {
        let error = match ns.apply(object) {
            Ok(answer) => panic!("{field}: [] was stored: {answer}"),
            Err(error) => error.root_cause().to_string(),
        };
        assert!(error.contains(field), "it names no field: {error}");
        let answer = error
            .lines()
            .find(|line| line.contains(field))
            .unwrap_or_default();
        row.saw(
            format!("apply TrafficTarget with {field}: []"),
            answer.replace(&ns.name, "NS"),
        );
    }
    let unwatched = Unwatched::begin(&ns)?;
    for (field, object) in &cases {
        eventually(SOON, "it is stored without the webhook", || {
            ns.apply(object)
        })?;
        let name = format!("traffictarget/empty-{field}");
        let condition = ns.await_condition(&name, "Accepted", "False")?;
        let message = condition["message"].as_str().context("a message")?;
        assert!(message.contains(field), "it names no field: {condition}");
        row.saw(
            format!("store TrafficTarget with {field}: [] past the webhook"),
            format!("Accepted False: {message}"),
        );
    }
    drop(unwatched);
    let address = url("server", 8080, "/x");
    refused(&mut row, &one, &address, "GET")?;
    // Control: with both lists filled the same call passes.
    ns.apply(&target("whole", "one", rules))?;
    allowed(&mut row, &one, &address, "GET")?;
    row.passed()?;
    Ok(())
}
