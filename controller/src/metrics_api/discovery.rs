//! The discovery documents of the metrics API: groups, versions, resources.
//!
//! Every resource can be read and nothing more. What deletes namespaces looks for resources that
//! can be listed and deleted, and must find none here.
//!
//! kubectl goes from the name of a resource to its kind and back, so where all resources are of one
//! kind it reads the last of them for every name. v1alpha1 says `TrafficMetrics` everywhere, as SMI
//! wrote it down; v1alpha2, which kubectl prefers, has a kind of its own for each. Objects are
//! `TrafficMetrics` in both.

use serde_json::{Value, json};

use super::query::{GROUP, VERSIONS};
use crate::inventory::kind::{KINDS, MetricsKind};

/// The answer to `/apis/metrics.smi-spec.io`.
pub(crate) fn group() -> Value {
    let mut group = group_body();
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    group
}

/// The group, as `/apis` shows it.
pub(crate) fn group_body() -> Value {
    let version =
        |version: &str| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version});
    json!({
        "name": GROUP,
        "versions": VERSIONS.map(version),
        "preferredVersion": version(VERSIONS[0]),
    })
}

/// The answer to `/apis/metrics.smi-spec.io/<version>`.
pub(crate) fn resources(version: &str) -> Value {
    let mut resources: Vec<Value> = Vec::new();
    for kind in KINDS {
        resources.push(resource(version, kind.plural(), kind, &["get", "list"]));
        resources.push(resource(
            version,
            &format!("{}/edges", kind.plural()),
            kind,
            &["get"],
        ));
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{version}"), "resources": resources,
    })
}

fn resource(version: &str, name: &str, kind: MetricsKind, verbs: &[&str]) -> Value {
    let edges = name.contains('/');
    let mut resource = json!({
        "name": name,
        "singularName": if edges { String::new() } else { kind.name().to_lowercase() },
        "namespaced": kind.namespaced(),
        "kind": match (edges, version) {
            (true, _) => "TrafficMetricsList".to_owned(),
            (false, "v1alpha1") => "TrafficMetrics".to_owned(),
            (false, _) => format!("{}TrafficMetrics", kind.name()),
        },
        "verbs": verbs,
    });
    if !edges {
        resource["categories"] = json!(["smi-metrics"]);
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_deletes_finds_a_resource_here() {
        for version in VERSIONS {
            let list = resources(version);
            let resources = list["resources"].as_array().unwrap();
            assert_eq!(resources.len(), 2 * KINDS.len());
            for resource in resources {
                let verbs: Vec<&str> = resource["verbs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                let reading = ["get", "list"];
                assert!(
                    verbs.iter().all(|verb| reading.contains(verb)),
                    "{resource}"
                );
                assert!(verbs.contains(&"get"), "{resource}");
            }
        }
    }

    #[test]
    fn preferred_version_lets_kubectl_distinguish_resources() {
        let list = resources(VERSIONS[0]);
        let resources = list["resources"].as_array().unwrap().iter();
        let named = resources.filter(|one| !one["name"].as_str().unwrap().contains('/'));
        let kinds: std::collections::BTreeSet<&str> =
            named.filter_map(|one| one["kind"].as_str()).collect();
        assert_eq!(kinds.len(), KINDS.len());
    }

    #[test]
    fn cluster_wide_kinds_say_so() {
        let list = resources("v1alpha1");
        let namespaced = |name: &str| {
            let resources = list["resources"].as_array().unwrap();
            resources.iter().find(|one| one["name"] == name).unwrap()["namespaced"].clone()
        };
        assert_eq!(namespaced("nodes"), json!(false));
        assert_eq!(namespaced("namespaces"), json!(false));
        assert_eq!(namespaced("deployments/edges"), json!(true));
    }
}
