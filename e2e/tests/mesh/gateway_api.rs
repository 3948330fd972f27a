//! Routes of the Gateway API with Services as parents, as the API server stores them and callers
//! notice them: whose calls a route decides, beside which splits, by every protocol.

mod audiences;
mod changes;
mod status;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, eventually, gateway_api};
use serde_json::{Value, json};

use super::split;

/// Of the mesh's entries in `status.parents`.
const CONTROLLER: &str = "weft.dev/mesh";
/// A method of the test application, as the path of its calls.
const UNARY: &str = "/weft.echo.Echo/Unary";
/// Where the definitions have just been applied, controllers first find that they are served.
const REPORTED: Duration = Duration::from_secs(60);

/// The shop of `split`, in a cluster with the Gateway API.
fn shop(claim: &str) -> anyhow::Result<Namespace> {
    gateway_api::installed()?;
    split::shop(claim)
}

/// A route of the kind, with the Service `shop` of its own namespace as parent.
fn route(kind: &str, rules: &Value) -> Value {
    with_parent(kind, &json!({}), rules)
}

/// The same with further fields of the reference to its parent.
fn with_parent(kind: &str, fields: &Value, rules: &Value) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": "shop"});
    for (key, value) in fields.as_object().into_iter().flatten() {
        parent[key] = value.clone();
    }
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "shop"}, "spec": {"parentRefs": [parent], "rules": rules}})
}

/// Backends on this port, with their weights.
fn backends(port: u16, weights: &[(&str, u32)]) -> Value {
    let backend =
        |(name, weight): &(&str, u32)| json!({"name": name, "port": port, "weight": weight});
    weights.iter().map(backend).collect()
}

/// A match of the paths below this one.
fn prefix(path: &str) -> Value {
    json!([{"path": {"type": "PathPrefix", "value": path}}])
}

/// `kubectl get` knows two kinds called TCPRoute; so the whole name of each.
fn object(plural: &str) -> String {
    format!("{plural}.gateway.networking.k8s.io/shop")
}

/// The one entry of the mesh in an object's `status.parents`.
fn entry(object: &Value) -> anyhow::Result<&Value> {
    let parents = object["status"]["parents"].as_array();
    let ours: Vec<&Value> = parents
        .into_iter()
        .flatten()
        .filter(|parent| parent["controllerName"] == CONTROLLER)
        .collect();
    ensure!(
        ours.len() == 1,
        "not one entry of the mesh: {}",
        object["status"]
    );
    Ok(ours[0])
}

/// Waits until a condition of the route has this status for its parent, for the route as it is
/// written now, and returns it.
fn await_condition(
    ns: &Namespace,
    plural: &str,
    kind: &str,
    status: &str,
) -> anyhow::Result<Value> {
    let what = format!("{kind} of {plural} is {status}");
    eventually(REPORTED, &what, || {
        let route = ns.json(&["get", &object(plural)])?;
        let conditions = entry(&route)?["conditions"].as_array();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == kind)
            .with_context(|| format!("it has no {kind}: {}", route["status"]))?;
        ensure!(
            found["status"] == status
                && found["observedGeneration"] == route["metadata"]["generation"],
            "it is {found}, of generation {}",
            route["metadata"]["generation"]
        );
        Ok(found.clone())
    })
}

/// Fails unless the condition says this reason and its message holds these words.
fn says(condition: &Value, reason: &str, words: &str) -> anyhow::Result<()> {
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(
        condition["reason"] == reason && message.contains(words),
        "not {reason} with {words:?}: {condition}"
    );
    Ok(())
}
