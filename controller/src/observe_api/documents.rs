//! The discovery and OpenAPI documents of the read API.

use crds::observe::{API_VERSION, GROUP, Resource, VERSION, list_schema, schema};
use serde_json::{Value, json};

/// The group, as `/apis` shows it.
pub(super) fn group() -> Value {
    let version = json!({"groupVersion": API_VERSION, "version": VERSION});
    json!({
        "kind": "APIGroup", "apiVersion": "v1",
        "name": GROUP, "versions": [version], "preferredVersion": version,
    })
}

/// The response to `/apis/observe.weft.dev/v1alpha1`.
pub(super) fn resources() -> Value {
    let resources = Resource::ALL.map(|resource| {
        json!({
            "name": resource.plural(), "singularName": resource.kind().to_lowercase(),
            "namespaced": resource.namespaced(), "kind": resource.kind(),
            "verbs": resource.verbs(),
        })
    });
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": API_VERSION, "resources": resources,
    })
}

/// Part of `/openapi/v3`.
pub(super) fn openapi_index() -> Value {
    let name = format!("apis/{API_VERSION}");
    let link = format!("/openapi/v3/{name}?hash={}", env!("CARGO_PKG_VERSION"));
    json!({"paths": {name: {"serverRelativeURL": link}}})
}

fn schema_name(kind: &str) -> String {
    format!("dev.weft.observe.{VERSION}.{kind}")
}

fn gvk(kind: &str) -> Value {
    json!({"group": GROUP, "version": VERSION, "kind": kind})
}

fn list_kind(resource: Resource) -> String {
    format!("{}List", resource.kind())
}

/// Every kind of response with its schema.
fn answers() -> impl Iterator<Item = (String, Value)> {
    let all = Resource::ALL.into_iter();
    all.flat_map(|resource| {
        let one = (resource.kind().to_owned(), schema(resource));
        let list = list_schema(resource).map(|schema| (list_kind(resource), schema));
        std::iter::once(one).chain(list)
    })
}

/// The response to `/openapi/v3/apis/observe.weft.dev/v1alpha1`.
pub(super) fn openapi_v3() -> Value {
    let mut schemas = json!({});
    for (kind, mut schema) in answers() {
        schema["x-kubernetes-group-version-kind"] = json!([gvk(&kind)]);
        schemas[schema_name(&kind)] = schema;
    }
    let content = |reference: Value| json!({"application/json": {"schema": reference}});
    let paths = paths("#/components/schemas/", |reference, resource| {
        let answer = json!({"description": "OK", "content": content(reference.clone())});
        let mut operation = json!({ "responses": responses(resource, answer) });
        if creates(resource) {
            operation["requestBody"] = json!({"required": true, "content": content(reference)});
        }
        operation
    });
    json!({
        "openapi": "3.0.0", "info": {"title": "Weft", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "components": {"schemas": schemas},
    })
}

/// Part of `/openapi/v2`. Older clients check nothing but kinds.
pub(super) fn openapi_v2() -> Value {
    let mut definitions = json!({});
    for (kind, _) in answers() {
        definitions[schema_name(&kind)] = json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-group-version-kind": [gvk(&kind)],
        });
    }
    let paths = paths("#/definitions/", |reference, resource| {
        let answer = json!({"description": "OK", "schema": reference});
        let mut operation = json!({
            "produces": ["application/json"], "consumes": ["application/json"], "schemes": ["https"],
            "responses": responses(resource, answer),
        });
        if creates(resource) {
            operation["parameters"] =
                json!([{"name": "body", "in": "body", "required": true, "schema": reference}]);
        }
        operation
    });
    json!({
        "swagger": "2.0", "info": {"title": "Weft", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths, "definitions": definitions,
    })
}

fn creates(resource: Resource) -> bool {
    resource.verbs() == ["create"]
}

/// By status, where this is the complete response.
fn responses(resource: Resource, answer: Value) -> Value {
    let mut responses = json!({});
    responses[if creates(resource) { "201" } else { "200" }] = answer;
    if resource == Resource::DryRuns {
        responses["200"] = json!({"description": "With spec.watchSeconds: a stream, each line of \
            which is an object that reports what live calls came to"});
    }
    responses
}

/// Every path, with operations that `make` describes by their response.
fn paths(schemas: &str, make: impl Fn(Value, Resource) -> Value) -> Value {
    let mut paths = json!({});
    for resource in Resource::ALL {
        let scopes: &[Option<&str>] = match resource.namespaced() {
            true => &[None, Some("{namespace}")],
            false => &[None],
        };
        for (namespace, verb) in scopes
            .iter()
            .flat_map(|scope| resource.verbs().iter().map(move |verb| (*scope, *verb)))
        {
            let name = match (resource, verb) {
                // These stand in a namespace only.
                (Resource::Taps | Resource::RouteTables, _) if namespace.is_none() => continue,
                (Resource::RouteTables, _) => Some("{name}"),
                (Resource::Graphs | Resource::Scopes | Resource::Taps, _) => {
                    Some(crds::observe::LIVE)
                }
                (Resource::Proxies, "get") if namespace.is_some() => Some("{name}"),
                // One of them stands in its namespace only.
                (Resource::Proxies, "get") => continue,
                _ => None,
            };
            let answer = match verb {
                "list" => list_kind(resource),
                _ => resource.kind().to_owned(),
            };
            let reference = json!({"$ref": format!("{schemas}{}", schema_name(&answer))});
            let mut operation = make(reference, resource);
            let scope = if namespace.is_some() {
                "Namespaced"
            } else {
                ""
            };
            operation["operationId"] =
                json!(format!("{verb}ObserveWeftDev{scope}{}", resource.kind()));
            let creates = creates(resource);
            operation["x-kubernetes-action"] = json!(if creates { "post" } else { verb });
            operation["x-kubernetes-group-version-kind"] = gvk(resource.kind());
            let method = if creates { "post" } else { "get" };
            paths[resource.path(namespace, name)][method] = operation;
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn read_api_operations_have_unique_names_and_schemas() {
        for (document, schemas) in [
            (openapi_v3(), "components/schemas"),
            (openapi_v2(), "definitions"),
        ] {
            let mut ids = BTreeSet::new();
            for (path, item) in document["paths"].as_object().unwrap() {
                for operation in item.as_object().unwrap().values() {
                    let id = operation["operationId"].as_str().unwrap().to_owned();
                    assert!(ids.insert(id), "{path}");
                    let text = operation["responses"].to_string();
                    let at = text.split("$ref\":\"#/").nth(1).unwrap();
                    let at = at.split('"').next().unwrap();
                    assert!(at.starts_with(schemas));
                    assert!(document.pointer(&format!("/{at}")).is_some(), "{at}");
                }
            }
            assert_eq!(ids.len(), 12, "{ids:?}");
        }
    }

    #[test]
    fn schemas_refer_to_nothing_that_is_not_there() {
        for resource in Resource::ALL {
            let text = schema(resource).to_string();
            assert!(!text.contains("$ref"), "{text}");
            let list = list_schema(resource).unwrap_or_default().to_string();
            assert!(!list.contains("$ref"), "{list}");
            assert_eq!(list != "null", resource.verbs().contains(&"list"));
        }
        let spec = &schema(Resource::Explanations)["properties"]["spec"];
        assert!(
            spec["properties"]["from"]["properties"]["outside"].is_object(),
            "{spec}"
        );
    }
}
