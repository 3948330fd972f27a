//! The mesh's verdicts on objects: rejected at the webhook or shown in a condition,
//! never silently half used.

use std::time::Duration;

use anyhow::{bail, ensure};
use e2e::harness::{App, Namespace, Outcome, app, eventually};
use serde_json::{Value, json};

use super::{SOON, url};

// Claims: mesh-9
#[test]
fn programmed_counts_the_proxies_that_hold_the_object() -> Outcome {
    let ns = Namespace::meshed("programmed")?;
    ns.run(&["client", "a", "b"])?;
    ns.apply_all(&[split(
        &json!([{"service": "a", "weight": 50}, {"service": "b", "weight": 50}]),
    )])?;
    ns.await_condition("trafficsplit/split", "Accepted", "True")?;
    ns.await_condition("trafficsplit/split", "ResolvedRefs", "True")?;
    ns.pod("client")?.report(&url("a", 8080, "/"), &[])?;
    let condition = ns.await_condition("trafficsplit/split", "Programmed", "True")?;
    eventually(
        Duration::from_secs(30),
        "the message counts acknowledgements",
        || {
            let condition = ns.condition("trafficsplit/split", "Programmed")?;
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(message.contains("1 of 1"), "it says {message:?}");
            Ok(())
        },
    )?;
    let generation = ns.json(&["get", "trafficsplit/split"])?["metadata"]["generation"].clone();
    assert_eq!(condition["observedGeneration"], generation, "{condition}");
    Ok(())
}

// Claims: mesh-9
#[test]
fn kubectl_get_shows_the_state_of_every_kind() -> Outcome {
    let ns = Namespace::meshed("columns")?;
    ns.apply_all(&App::new("a").objects())?;
    ns.apply_all(&[split(&json!([{"service": "a", "weight": 1}]))])?;
    ns.await_condition("trafficsplit/split", "Accepted", "True")?;
    for kind in [
        "trafficsplit",
        "traffictarget",
        "httproutegroup",
        // The Gateway API has a kind of this name, which a cluster may have too.
        "tcproute.specs.smi-spec.io",
    ] {
        ns.kubectl(&["get", kind])?;
    }
    eventually(
        SOON,
        "the row says what is split how, and that it holds",
        || {
            let table = ns.kubectl(&["get", "trafficsplit"])?;
            let lines: Vec<Vec<&str>> = table
                .lines()
                .map(|line| line.split_whitespace().collect())
                .collect();
            let [head, row] = &lines[..] else {
                bail!("it was {table}")
            };
            let columns = "NAME SERVICE BACKENDS ACCEPTED RESOLVEDREFS PROGRAMMED AGE";
            ensure!(head.join(" ") == columns, "the columns were {head:?}");
            ensure!(
                row.join(" ").starts_with("split a a 1 True True True "),
                "the row was {row:?}"
            );
            Ok(())
        },
    )?;
    ns.kubectl(&["get", "weft"])?;
    Ok(())
}

// Claims: mesh-8
#[test]
fn split_that_names_nothing_says_which_service_is_missing() -> Outcome {
    let ns = Namespace::meshed("nothing")?;
    ns.apply_all(&[split(&json!([{"service": "ghost", "weight": 1}]))])?;
    let named = |service: &str, field: &str| {
        eventually(SOON, "the condition names field and service", || {
            let condition = ns.condition("trafficsplit/split", "ResolvedRefs")?;
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(condition["status"] == "False", "{condition}");
            ensure!(
                message.contains(service) && message.contains(field),
                "{condition}"
            );
            Ok(())
        })
    };
    named("Service a", "spec.service")?;
    ns.apply_all(&[app::service("a", &json!({"app": "a"}))])?;
    named("ghost", "spec.backends")?;
    Ok(())
}

// Claims: mesh-2c, mesh-8
#[test]
fn objects_that_cannot_work_are_rejected_with_their_field() -> Outcome {
    let ns = Namespace::meshed("rejected")?;
    let long = "a".repeat(10 * 1024);
    let group = |regex: &str| {
        json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup", "metadata": {"name": "bad"},
            "spec": {"matches": [{"name": "m", "pathRegex": regex, "methods": ["GET"]}]}})
    };
    let cases = [
        (
            "negative weight",
            "weight",
            split(&json!([{"service": "a", "weight": -1}])),
        ),
        ("regex that does not compile", "pathRegex", group("/api/(")),
        ("regex of 10 kB", "pathRegex", group(&long)),
        (
            "target without sources",
            "sources",
            target("server", "$NS", &json!([])),
        ),
        (
            "target for another namespace",
            "namespace",
            target("server", "default", &json!([source(&ns.name)])),
        ),
    ];
    for (what, field, object) in cases {
        let object = serde_json::from_str(&object.to_string().replace("$NS", &ns.name))?;
        rejected_or_shown(&ns, what, field, &object)?;
    }
    Ok(())
}

/// The webhook fails open, and could not even read such an object; neither could
/// the controller, whose next list of all groups would fail.
#[test]
fn deeply_nested_headers_are_refused_without_side_effects() -> Outcome {
    let ns = Namespace::meshed("nested")?;
    ns.apply_all(&App::new("a").objects())?;
    let nested = (0..300).fold(json!("x"), |inner, _| json!({"a": inner}));
    let group = |headers: &Value| {
        json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup", "metadata": {"name": "nested"},
            "spec": {"matches": [{"name": "m", "headers": headers}]}})
    };
    for headers in [nested, json!([{"a": {"b": "c"}}]), json!({"a": 1})] {
        let taken = ns.apply_all(&[group(&headers)]);
        let refused = format!("{:#}", taken.expect_err("such headers are refused"));
        assert!(refused.contains("matches[].headers"), "{refused}");
    }
    // Control: what is allowed is taken, and understood.
    ns.apply_all(&[group(&json!([{"a": "b"}, {"c": "d"}]))])?;
    ns.await_condition("httproutegroup/nested", "Accepted", "True")?;
    Ok(())
}

// Claims: mesh-8
#[test]
fn target_whose_route_is_missing_protects_and_allows_nothing() -> Outcome {
    let ns = Namespace::meshed("fail-closed")?;
    ns.run(&["client", "server"])?;
    let client = ns.pod("client")?;
    // The route that the target names is missing, which no admission can know.
    let mut missing = target("server", &ns.name, &json!([source(&ns.name)]));
    missing["spec"]["rules"] = json!([{"kind": "HTTPRouteGroup", "name": "ghost"}]);
    ns.apply_all(&[missing])?;
    eventually(
        SOON,
        "an invalid target protects and allows nothing",
        || client.refused(&url("server", 8080, "/"), &[], 403, "not-allowed"),
    )?;
    let condition = ns.await_condition("traffictarget/bad", "ResolvedRefs", "False")?;
    assert_eq!(condition["reason"], "RefNotFound", "{condition}");
    Ok(())
}

fn split(backends: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "split"}, "spec": {"service": "a", "backends": backends}})
}

fn target(account: &str, namespace: &str, sources: &serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "access.smi-spec.io/v1alpha3", "kind": "TrafficTarget", "metadata": {"name": "bad"},
        "spec": {"destination": {"kind": "ServiceAccount", "name": account, "namespace": namespace},
            "rules": [{"kind": "TCPRoute", "name": "any"}], "sources": sources}})
}

fn source(namespace: &str) -> serde_json::Value {
    json!({"kind": "ServiceAccount", "name": "client", "namespace": namespace})
}

/// The contract allows both: an error at once, or a condition; each names the field.
fn rejected_or_shown(
    ns: &Namespace,
    what: &str,
    field: &str,
    object: &serde_json::Value,
) -> anyhow::Result<()> {
    let name = format!(
        "{}/{}",
        object["kind"].as_str().unwrap_or_default(),
        object["metadata"]["name"].as_str().unwrap_or_default()
    );
    match ns.apply_all(std::slice::from_ref(object)) {
        Err(error) => {
            // The object itself is part of the error's context; look at what was said.
            let refusal = error.root_cause().to_string();
            ensure!(
                refusal.contains(field),
                "{what}: the refusal does not name {field}: {refusal}"
            );
        }
        Ok(()) => {
            eventually(SOON, &format!("{what} is shown in a condition"), || {
                let shown = ["Accepted", "ResolvedRefs"]
                    .iter()
                    .filter_map(|kind| ns.condition(&name, kind).ok())
                    .find(|condition| condition["status"] == "False");
                let message = shown
                    .as_ref()
                    .and_then(|condition| condition["message"].as_str())
                    .unwrap_or_default();
                ensure!(
                    message.contains(field),
                    "the conditions do not name {field}: {shown:?}"
                );
                Ok(())
            })?;
            ns.kubectl(&["delete", &name])?;
        }
    }
    Ok(())
}
