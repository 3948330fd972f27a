//! The OpenAPI documents of the metrics API, for `kubectl explain` and clients that read the
//! schema first.

use serde_json::{Value, json};

use super::query::{GROUP, VERSIONS};
use crate::inventory::kind::{KINDS, MetricsKind};

/// Name of a schema of ours in one version.
fn schema_name(version: &str, name: &str) -> String {
    format!("io.smi-spec.metrics.{version}.{name}")
}

fn gvk(version: &str, kind: &str) -> Value {
    json!([{"group": GROUP, "version": version, "kind": kind}])
}

fn schemas(version: &str, prefix: &str) -> Vec<(String, Value)> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let object = |description: &str| {
        json!({"type": "object", "description": description, "properties": {
            "kind": text("Kind of the object, such as Deployment."),
            "apiVersion": text("Group and version of the object; only on lists."),
            "namespace": text("Namespace; absent for namespaces and nodes."),
            "name": text("Name."),
        }})
    };
    let of = |name: &str| json!({"$ref": format!("{prefix}{}", schema_name(version, name))});
    let metrics = json!({
        "type": "object",
        "description": "How much traffic an object had in a window of time, from what its proxies reported. It is computed when it is read and never stored.",
        "x-kubernetes-group-version-kind": gvk(version, "TrafficMetrics"),
        "properties": {
            "apiVersion": text("Group and version."),
            "kind": text("TrafficMetrics."),
            "metadata": {"type": "object", "description": "Name and namespace of the object that was measured; creationTimestamp is the end of the window."},
            "timestamp": text("End of the window, a multiple of 5 seconds and at least 5 seconds ago."),
            "window": text("Length of the window, such as 30s. Ask for another one with the parameter t: 5s to 5m."),
            "resource": object("The object that was measured."),
            "edge": {"type": "object", "description": "Which of its traffic.", "properties": {
                "direction": text("from: calls that the object receives; to: calls that it makes."),
                "side": text("client or server: whose proxy measured it."),
                "resource": object("The other end. Empty for all of them; kind External for what is outside the mesh."),
            }},
            "backend": {"type": "object", "description": "For TrafficSplits: the backend that was chosen.", "properties": {
                "apex": text("Root Service of the split."),
                "name": text("Service that was chosen."),
                "weight": {"type": "integer", "format": "int64", "description": "Its weight now."},
            }},
            "metrics": {"type": "array", "description": "p99_response_latency, p90_response_latency, p50_response_latency, success_count, failure_count, in this order.", "items": {
                "type": "object", "properties": {
                    "name": text("Name of the metric."),
                    "unit": text("ms for latencies; absent for counts."),
                    "value": text("A quantity: 12 is twelve, 12500m is twelve and a half."),
                },
            }},
        },
    });
    let list = json!({
        "type": "object",
        "description": "Metrics of several objects, or the edges of one.",
        "x-kubernetes-group-version-kind": gvk(version, "TrafficMetricsList"),
        "required": ["items"],
        "properties": {
            "apiVersion": text("Group and version."),
            "kind": text("TrafficMetricsList."),
            "metadata": {"type": "object", "description": "Token for the next page, if there is one."},
            "resource": object("What the list is of; with a name for the edges of one object."),
            "selector": {"type": "object", "description": "The label selector that chose the items."},
            "items": {"type": "array", "items": of("TrafficMetrics"), "description": "One item per object, per edge, or per backend of a TrafficSplit."},
        },
    });
    vec![
        (schema_name(version, "TrafficMetrics"), metrics),
        (schema_name(version, "TrafficMetricsList"), list),
    ]
}

struct Operation {
    path: String,
    verb: &'static str,
    list: bool,
}

fn operations(version: &str) -> Vec<Operation> {
    let root = format!("/apis/{GROUP}/{version}");
    let mut all = Vec::new();
    let mut add = |path: String, verb, list| all.push(Operation { path, verb, list });
    for kind in KINDS {
        let plural = kind.plural();
        let home = if kind.namespaced() {
            add(format!("{root}/{plural}"), "list", true);
            format!("{root}/namespaces/{{namespace}}/{plural}")
        } else {
            format!("{root}/{plural}")
        };
        add(home.clone(), "list", true);
        add(
            format!("{home}/{{name}}"),
            "get",
            kind == MetricsKind::TrafficSplit,
        );
        add(format!("{home}/{{name}}/edges"), "get", true);
    }
    all
}

fn parameters(path: &str, v3: bool) -> Vec<Value> {
    let parameter = |name: &str, location: &str, description: &str| {
        let mut parameter = json!({"name": name, "in": location, "description": description, "required": location == "path"});
        if v3 {
            parameter["schema"] = json!({"type": "string"});
        } else {
            parameter["type"] = json!("string");
        }
        parameter
    };
    let mut all = Vec::new();
    for name in ["namespace", "name"] {
        if path.contains(&format!("{{{name}}}")) {
            all.push(parameter(name, "path", "Of the object."));
        }
    }
    all.push(parameter(
        "t",
        "query",
        "Length of the window, 5s to 5m; 30s without it.",
    ));
    all.push(parameter("labelSelector", "query", "Which objects appear."));
    all
}

/// The answer to `/openapi/v2`.
pub(crate) fn v2() -> Value {
    let (mut paths, mut definitions) = (json!({}), json!({}));
    for version in VERSIONS {
        for (name, schema) in schemas(version, "#/definitions/") {
            definitions[name] = schema;
        }
        for operation in operations(version) {
            let kind = if operation.list {
                "TrafficMetricsList"
            } else {
                "TrafficMetrics"
            };
            let schema = json!({"$ref": format!("#/definitions/{}", schema_name(version, kind))});
            paths[&operation.path] = json!({
                "parameters": parameters(&operation.path, false),
                "get": {
                    "description": "Traffic in a window of time.",
                    "produces": ["application/json"], "schemes": ["https"], "consumes": ["*/*"],
                    "operationId": id(version, &operation),
                    "responses": {"200": {"description": "OK", "schema": schema}},
                    "x-kubernetes-action": operation.verb,
                    "x-kubernetes-group-version-kind": {"group": GROUP, "version": version, "kind": "TrafficMetrics"},
                },
            });
        }
    }
    json!({
        "swagger": "2.0", "info": {"title": "Weft metrics", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "definitions": definitions,
    })
}

/// The answer to `/openapi/v3`.
pub(crate) fn v3_index() -> Value {
    let mut paths = json!({});
    for version in VERSIONS {
        let name = format!("apis/{GROUP}/{version}");
        let link = format!("/openapi/v3/{name}?hash={}", env!("CARGO_PKG_VERSION"));
        paths[name] = json!({"serverRelativeURL": link});
    }
    json!({"paths": paths})
}

/// The answer to `/openapi/v3/apis/metrics.smi-spec.io/<version>`.
pub(crate) fn v3(version: &str) -> Value {
    let (mut paths, mut components) = (json!({}), json!({}));
    for (name, schema) in schemas(version, "#/components/schemas/") {
        components[name] = schema;
    }
    for operation in operations(version) {
        let kind = if operation.list {
            "TrafficMetricsList"
        } else {
            "TrafficMetrics"
        };
        let schema =
            json!({"$ref": format!("#/components/schemas/{}", schema_name(version, kind))});
        paths[&operation.path] = json!({
            "parameters": parameters(&operation.path, true),
            "get": {
                "description": "Traffic in a window of time.",
                "operationId": id(version, &operation),
                "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
                "x-kubernetes-action": operation.verb,
                "x-kubernetes-group-version-kind": {"group": GROUP, "version": version, "kind": "TrafficMetrics"},
            },
        });
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Weft metrics", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": components},
    })
}

/// Unique over all operations of the API server.
fn id(version: &str, operation: &Operation) -> String {
    let mut id = format!("{}MetricsSmiSpecIo", operation.verb);
    let after = operation
        .path
        .split_once(version)
        .map_or("", |(_, after)| after);
    for part in std::iter::once(version).chain(after.split('/')) {
        let part = part.trim_matches(['{', '}']);
        let mut letters = part.chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.push_str(letters.as_str());
    }
    id
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn openapi_references_resolve_and_operation_ids_are_unique() {
        for version in VERSIONS {
            let document = v3(version);
            let mut ids = BTreeSet::new();
            for (path, item) in document["paths"].as_object().unwrap() {
                let get = &item["get"];
                assert!(
                    ids.insert(get["operationId"].as_str().unwrap().to_owned()),
                    "{path}"
                );
                let schema = &get["responses"]["200"]["content"]["application/json"]["schema"];
                let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
                assert!(
                    document["components"]["schemas"][name].is_object(),
                    "{name}"
                );
            }
            assert!(ids.len() > 3 * KINDS.len());
        }
        let (document, mut ids) = (v2(), BTreeSet::new());
        for (path, item) in document["paths"].as_object().unwrap() {
            assert!(ids.insert(item["get"]["operationId"].to_string()), "{path}");
        }
    }
}
