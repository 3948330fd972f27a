//! TrafficPolicies at a real API server: what it refuses by itself, what it shows, and that
//! proxies do as they say.
//!
//! Claims: calls-39, calls-74

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Namespace, Outcome, eventually};
use serde_json::{Value, json};

use super::{SOON, url};

/// A policy about Service `catalog`, with these fields.
fn policy(name: &str, fields: &Value) -> Value {
    let mut spec = json!({"targetRef": {"kind": "Service", "name": "catalog"}});
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": name}, "spec": spec,
    })
}

/// The rules of the schema are judged before any webhook is asked, with these words.
#[test]
fn api_server_itself_refuses_what_no_policy_may_say() -> Outcome {
    let ns = Namespace::unmeshed("policy-rules")?;
    let caller = json!([{"kind": "ServiceAccount", "name": "a"}]);
    let twice = json!([{"name": "a", "requests": 1}, {"name": "a", "requests": 2}]);
    let own_mirror = json!([{"service": "catalog", "percent": 1}]);
    let header = json!([{"name": "a", "requests": 1, "key": {"type": "Header"}}]);
    let both = json!({"service": "x", "response": {"status": 200}});
    let longer = json!({"request": "1s", "backendRequest": "2s"});
    for (fields, word) in [
        (
            json!({"enforce": true}),
            "enforce is for policies about the Mesh only",
        ),
        (json!({"targetRef": {"kind": "Service"}}), "which Service"),
        (
            json!({"targetRef": {"kind": "Mesh", "port": 1}}),
            "for a Service only",
        ),
        (
            json!({"sources": caller, "breaker": {}}),
            "a policy of their own",
        ),
        (json!({"mirror": own_mirror}), "cannot be its own mirror"),
        (
            json!({"fallback": {"service": "catalog"}}),
            "cannot be its own fallback",
        ),
        (json!({"fallback": {}}), "service or response"),
        (json!({"fallback": both}), "service or response"),
        (
            json!({"timeouts": longer}),
            "must not be longer than request",
        ),
        (
            json!({"timeouts": {"request": "25h"}}),
            "must be from 0s to 24h",
        ),
        (
            json!({"ejection": {"baseTime": "500ms"}}),
            "must be from 1s to 5m",
        ),
        (json!({"rateLimits": twice}), "Duplicate value"),
        (json!({"rateLimits": header}), "must name the header"),
        (
            json!({"sticky": {"type": "Caller", "name": "x"}}),
            "left out for Caller",
        ),
        (json!({"priority": "critical"}), "Unsupported value"),
        (json!({"retry": {"attempts": 6}}), "less than or equal to 5"),
    ] {
        let mut object = policy("bad", &json!({"retry": {}}));
        for (field, value) in fields.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        match ns.apply(&object.to_string()) {
            Ok(said) => panic!("{object} was taken: {said}"),
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.contains(word), "{object}: {text}");
            }
        }
    }
    Ok(())
}

/// kubectl reads YAML 1.1, in which some words are booleans; our own reader takes them for
/// words.
#[test]
fn everything_is_taken_as_kubectl_reads_it() -> Outcome {
    const EVERYTHING: &str = include_str!("../../../crds/src/weft/everything.yaml");
    let ns = Namespace::unmeshed("policy-yaml")?;
    let spec: String = EVERYTHING
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    ns.apply(&format!(
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: all}}\nspec:\n{spec}"
    ))?;
    let stored: Value = serde_json::from_str(&ns.kubectl(&["get", "tp", "all", "-o", "json"])?)?;
    let written: Value = serde_yaml_ng::from_str(EVERYTHING)?;
    assert_eq!(stored["spec"], written);
    let switched = "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: calm}\n\
                    spec: {targetRef: {kind: Namespace}, overload: {mode: Disabled}}";
    ns.apply(switched)?;
    let mode = ns.kubectl(&["get", "tp", "calm", "-o", "jsonpath={.spec.overload.mode}"])?;
    assert_eq!(mode, "Disabled");
    Ok(())
}

#[test]
fn kubectl_shows_policy_target_sections_and_conditions() -> Outcome {
    let ns = Namespace::unmeshed("policy-status")?;
    ns.apply_all(&[
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "catalog"},
            "spec": {"ports": [{"port": 80}]}}),
        policy(
            "calls",
            &json!({"timeouts": {"request": "5s"}, "retry": {}}),
        ),
    ])?;
    ns.await_condition("tp/calls", "Accepted", "True")?;
    ns.await_condition("tp/calls", "ResolvedRefs", "True")?;
    let shown = ns.kubectl(&["get", "tp", "calls"])?;
    let row = shown.lines().nth(1).context("no row")?;
    for word in ["Service/catalog", "timeouts, retry"] {
        assert!(row.contains(word), "{shown}");
    }
    // A younger policy for the same target has no effect, and its status names the older one.
    ns.apply_all(&[policy("later", &json!({"retry": {"attempts": 3}}))])?;
    let later = ns.await_condition("tp/later", "Accepted", "False")?;
    assert!(later["reason"] == "Conflicted", "{later}");
    let text = later["message"].as_str().unwrap_or_default();
    assert!(
        text.contains(&format!("TrafficPolicy {}/calls", ns.name)),
        "{later}"
    );
    Ok(())
}

#[test]
fn policy_is_applied_by_proxies_and_shown_programmed() -> Outcome {
    let ns = Namespace::meshed("policy-in-force")?;
    ns.apply_all(&App::new("client").objects())?;
    ns.apply_all(&App::new("catalog").replicas(2).objects())?;
    ns.ready(&["client", "catalog"])?;
    let client = ns.pod("client")?;
    // Endpoints that all fail alike are never ejected, so that each call may be retried.
    let request_count = || {
        client.get(&url("catalog", 8080, "/?status=503"), &["-n", "5"])?;
        let metrics = client.proxy_metrics()?;
        anyhow::Ok(metrics.sum("weft_retries_total", &[]))
    };
    let without = request_count()?;
    assert!(without > 0.0, "without a policy there are retries");

    ns.apply_all(&[policy("calls", &json!({"retry": {"attempts": 0}}))])?;
    ns.await_condition("tp/calls", "Programmed", "True")?;
    let before = client.proxy_metrics()?.sum("weft_retries_total", &[]);
    assert_eq!(request_count()?, before, "the policy ends them");

    // Whatever it says is in force, also beside the retries.
    ns.apply_all(&[policy(
        "calls",
        &json!({"retry": {"attempts": 2}, "overrides": [{"to": ["catalog"]}]}),
    )])?;
    eventually(SOON, "retries are back", || {
        ensure!(request_count()? > before, "there are none");
        Ok(())
    })?;
    ns.await_condition("tp/calls", "Programmed", "True")?;
    Ok(())
}
