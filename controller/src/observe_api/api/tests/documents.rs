//! The API's documents describe its real responses.

use super::*;

const TARGET: &str = "read";

/// The place of a schema that is referred to.
fn referred<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let at = reference["$ref"]
        .as_str()
        .and_then(|at| at.strip_prefix('#'));
    document.pointer(at.unwrap()).unwrap()
}

/// What stands against a value by its schema: fields that it does not know or wants, and types.
fn wrong(at: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
    for part in schema["allOf"].as_array().into_iter().flatten() {
        wrong(at, value, part, found);
    }
    let some = ["anyOf", "oneOf"]
        .iter()
        .find_map(|of| schema[*of].as_array());
    if let Some(some) = some {
        let fits = |part: &Value| {
            let mut against = Vec::new();
            wrong(at, value, part, &mut against);
            against.is_empty()
        };
        if !some.iter().any(fits) {
            found.push(format!("{at}: {value} is none of {some:?}"));
        }
    }
    if let Some(one) = schema["enum"].as_array()
        && !one.contains(value)
    {
        found.push(format!("{at}: {value} is not in {one:?}"));
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !fits {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
    }
    for entry in value.as_array().into_iter().flatten() {
        wrong(&format!("{at}[]"), entry, &schema["items"], found);
    }
    let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) else {
        return;
    };
    for (name, field) in fields {
        match known.get(name) {
            Some(schema) => wrong(&format!("{at}.{name}"), field, schema, found),
            None => found.push(format!("{at}: there is no field {name}")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            found.push(format!("{at}: {name} is missing"));
        }
    }
}

/// The request for a path, where that needs a body or parameters.
fn question(path: &str) -> (&'static str, Value) {
    let gone = json!([{"kind": "TrafficTarget", "namespace": "shop", "name": TARGET}]);
    let end = |kind: &str, name: &str| json!({"kind": kind, "namespace": "shop", "name": name});
    match path.rsplit('/').next().unwrap() {
        "dryruns" => (
            "",
            json!({"apiVersion": API_VERSION, "kind": "DryRun", "spec": {"delete": gone}}),
        ),
        "explanations" => {
            let (from, to) = (end("Pod", "client"), end("Service", "api"));
            let spec = json!({"from": from, "to": to});
            (
                "",
                json!({"apiVersion": API_VERSION, "kind": "Explanation", "spec": spec}),
            )
        }
        "live" if path.contains("/taps/") => ("?watch=true&of=Pod/client", Value::Null),
        _ => ("", Value::Null),
    }
}

// Claims: observe-34
#[tokio::test]
async fn every_operation_answers_as_its_document_says() {
    let bench = Bench::new();
    bench.call().await;
    let v3 = format!("/openapi/v3/apis/{API_VERSION}");
    let (_, document) = bench.get("root", &v3).await;
    let mut kinds = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = if path.contains("/routetables/") {
                "api"
            } else {
                "client"
            };
            let at = path.replace("{namespace}", "shop").replace("{name}", name);
            let (query, body) = question(&at);
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            let mut answer = bench
                .send("root", method, &format!("{at}{query}"), body)
                .await;
            let status = answer.status().as_u16().to_string();
            let returned = if query.is_empty() {
                read(answer).await.1
            } else {
                line(answer.body_mut()).await.unwrap()
            };
            let declared = &operation["responses"][&status]["content"]["application/json"];
            assert!(declared.is_object(), "{path}: {status} {returned}");
            let schema = referred(&document, &declared["schema"]);
            let mut found = Vec::new();
            wrong("", &returned, schema, &mut found);
            assert_eq!(found, Vec::<String>::new(), "{path}: {returned}");
            if let Some(kind) = returned.get("kind") {
                let declared = &schema["x-kubernetes-group-version-kind"][0]["kind"];
                assert_eq!(kind, declared, "{path}");
                kinds.push(kind.as_str().unwrap().to_owned());
            }
        }
    }
    for kind in [
        "ProxyList",
        "Proxy",
        "DryRun",
        "Explanation",
        "Graph",
        "RouteTable",
    ] {
        assert!(
            kinds.iter().any(|returned| returned == kind),
            "{kind}: {kinds:?}"
        );
    }
}
