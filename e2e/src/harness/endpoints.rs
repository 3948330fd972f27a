//! Whether the cluster has published ready pods as endpoints of their Services.

use anyhow::ensure;
use serde_json::Value;

/// An error that names the first of these Deployments whose Service of the same name has
/// fewer ready endpoints than the Deployment has replicas. `objects` is a list of Deployments,
/// Services and EndpointSlices of one namespace. A Service that is missing, or that selects
/// other pods, has no part in it.
pub(super) fn published(objects: &Value, deployments: &[&str]) -> anyhow::Result<()> {
    for name in deployments {
        let Some(deployment) = named(objects, "Deployment", name) else {
            continue;
        };
        let Some(service) = named(objects, "Service", name) else {
            continue;
        };
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        if !selects(&service["spec"]["selector"], labels) {
            continue;
        }
        let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        let ready = ready_endpoints(objects, name);
        ensure!(
            ready >= replicas,
            "Service {name} has {ready} ready endpoints, and its Deployment {replicas} replicas"
        );
    }
    Ok(())
}

fn items(objects: &Value) -> impl Iterator<Item = &Value> {
    objects["items"].as_array().into_iter().flatten()
}

fn named<'a>(objects: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    items(objects).find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object();
    selector.is_some_and(|selector| selector.iter().all(|(key, value)| labels[key] == *value))
}

fn ready_endpoints(objects: &Value, service: &str) -> u64 {
    let slices = items(objects).filter(|object| {
        object["kind"] == "EndpointSlice"
            && object["metadata"]["labels"]["kubernetes.io/service-name"] == service
    });
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.fold(0, |count, _| count + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One Deployment of two replicas, its Service, and a slice with these states of readiness.
    fn objects(selector: &Value, ready: &[bool]) -> Value {
        let endpoints: Vec<Value> = ready
            .iter()
            .map(|ready| json!({"conditions": {"ready": ready}}))
            .collect();
        json!({"items": [
            {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2,
                "template": {"metadata": {"labels": {"app": "web"}}}}},
            {"kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": selector}},
            {"kind": "EndpointSlice", "metadata": {"name": "web-x",
                "labels": {"kubernetes.io/service-name": "web"}}, "endpoints": endpoints},
        ]})
    }

    #[test]
    fn service_without_all_replicas_of_its_deployment_is_named() {
        let own = json!({"app": "web"});
        let short = published(&objects(&own, &[true, false]), &["web"]);
        let message = short.expect_err("one is not ready").to_string();
        assert!(message.contains("Service web has 1 ready"), "{message}");
        assert!(published(&objects(&own, &[true, true]), &["web"]).is_ok());
    }

    #[test]
    fn service_that_selects_other_pods_is_not_waited_for() {
        let other = json!({"app": "api"});
        assert!(published(&objects(&other, &[]), &["web"]).is_ok());
        assert!(published(&objects(&json!({"app": "web"}), &[]), &["api"]).is_ok());
    }
}
