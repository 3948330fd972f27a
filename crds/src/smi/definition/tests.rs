//! The definitions of the kinds, and what their schemas let in.

use regex::Regex;
use serde_json::{Value, json};

use super::definitions;

/// Everything that is wrong with `value` by a structural schema, and every field
/// that the API server would remove because the schema does not name it. Of rules it
/// knows the kind that refuses a field.
pub(crate) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let preserve = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let either = schema["x-kubernetes-int-or-string"] == true;
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        Some(other) => panic!("type {other} at {at}"),
        None => (either && (value.is_i64() || value.is_string())) || preserve,
    };
    if !fits {
        found.push(format!("{at}: not of its type"));
        return;
    }
    match value {
        Value::Object(map) => {
            for key in schema["required"].as_array().into_iter().flatten() {
                if !map.contains_key(key.as_str().unwrap()) {
                    found.push(format!("{at}: lacks {key}"));
                }
            }
            for rule in schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let refused = rule["rule"].as_str().unwrap().strip_prefix("!has(self.");
                if refused.is_some_and(|field| map.contains_key(field.trim_end_matches(')'))) {
                    found.push(format!("{at}: {}", rule["message"].as_str().unwrap()));
                }
            }
            for (key, value) in map {
                if let Some(field) = schema["properties"].get(key) {
                    check(field, value, &format!("{at}.{key}"), found);
                } else if schema["additionalProperties"].is_object() {
                    check(
                        &schema["additionalProperties"],
                        value,
                        &format!("{at}.{key}"),
                        found,
                    );
                } else if !preserve {
                    found.push(format!("{at}: would lose {key}"));
                }
            }
        }
        Value::Array(list) => {
            if schema["maxItems"]
                .as_u64()
                .is_some_and(|most| list.len() as u64 > most)
            {
                found.push(format!("{at}: too many"));
            }
            if !preserve {
                for (i, entry) in list.iter().enumerate() {
                    check(&schema["items"], entry, &format!("{at}[{i}]"), found);
                }
            }
        }
        Value::String(text) => {
            let known = schema["enum"].as_array();
            if known.is_some_and(|known| !known.contains(value)) {
                found.push(format!("{at}: {text:?} is not one of those that may be"));
            }
            let pattern = schema["pattern"].as_str();
            if pattern.is_some_and(|p| !Regex::new(p).unwrap().is_match(text)) {
                found.push(format!("{at}: {text:?} does not fit the pattern"));
            }
            if schema["maxLength"]
                .as_u64()
                .is_some_and(|most| text.len() as u64 > most)
            {
                found.push(format!("{at}: too long"));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            let least = schema["minimum"].as_f64();
            let most = schema["maximum"].as_f64();
            if least.is_some_and(|l| number < l) || most.is_some_and(|m| number > m) {
                found.push(format!("{at}: {number} is out of range"));
            }
        }
        _ => {}
    }
}

fn schema_of(object: &Value) -> Value {
    let (group, version) = object["apiVersion"]
        .as_str()
        .unwrap()
        .split_once('/')
        .unwrap();
    definitions("weft-system")
        .into_iter()
        .map(|(_, definition)| definition["spec"].clone())
        .find(|spec| spec["group"] == group && spec["names"]["kind"] == object["kind"])
        .and_then(|spec| {
            let versions = spec["versions"].as_array().unwrap().clone();
            versions.into_iter().find(|v| v["name"] == version)
        })
        .map(|version| version["schema"]["openAPIV3Schema"].clone())
        .unwrap()
}

/// What the API server would find in a whole manifest.
fn verdict(manifest: &str) -> Vec<String> {
    let mut object: Value = serde_yaml_ng::from_str(manifest).unwrap();
    let schema = schema_of(&object);
    for key in ["apiVersion", "kind", "metadata"] {
        object.as_object_mut().unwrap().remove(key);
    }
    violations(&schema, &object)
}

/// Every version of every definition, with a name.
fn versions() -> Vec<(String, Value)> {
    let named = |(plural, definition): (String, Value)| {
        let versions = definition["spec"]["versions"].as_array().unwrap().clone();
        versions
            .into_iter()
            .map(move |version| (format!("{plural} {}", version["name"]), version))
    };
    definitions("weft-system")
        .into_iter()
        .flat_map(named)
        .collect()
}

pub(crate) fn each_node(schema: &Value, at: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(schema, at);
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        each_node(field, &format!("{at}.{key}"), visit);
    }
    for key in ["items", "additionalProperties"] {
        if schema.get(key).is_some() {
            each_node(&schema[key], &format!("{at}[]"), visit);
        }
    }
}

#[test]
fn every_kind_serves_published_versions_and_stores_newest() {
    let served: Vec<(String, Vec<String>)> = definitions("weft-system")
        .into_iter()
        .map(|(plural, definition)| {
            let versions = definition["spec"]["versions"].as_array().unwrap().clone();
            for version in &versions {
                assert_eq!(version["served"], true);
                assert_eq!(version["storage"], version["name"] == "v1alpha4");
                assert_eq!(version["subresources"]["status"], json!({}));
            }
            let names = versions
                .iter()
                .map(|v| v["name"].as_str().unwrap().to_owned());
            (plural, names.collect())
        })
        .collect();
    let all = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"]
        .map(String::from)
        .to_vec();
    let last = vec!["v1alpha4".to_owned()];
    let wanted = [
        ("httproutegroups", &all),
        ("identitybindings", &last),
        ("tcproutes", &all),
        ("trafficsplits", &all),
        ("traffictargets", &all),
        ("udproutes", &last),
    ];
    assert_eq!(
        served,
        wanted.map(|(plural, v)| (plural.to_owned(), v.clone()))
    );
}

#[test]
fn every_schema_is_structural_described_and_without_defaults() {
    for (name, version) in versions() {
        assert_structural(&name, &version["schema"]["openAPIV3Schema"]);
    }
}

/// What the API server wants of a schema, and a reader.
pub(crate) fn assert_structural(name: &str, root: &Value) {
    assert_eq!(root["type"], "object");
    each_node(root, name, &mut |node, at| {
        let either = node["x-kubernetes-int-or-string"] == true;
        let preserve = node["x-kubernetes-preserve-unknown-fields"] == true;
        assert!(
            node["type"].is_string() || either || preserve,
            "{at} has no type"
        );
        assert!(!either || node.get("type").is_none(), "{at}: both types");
        assert!(node.get("default").is_none(), "{at} has a default");
        assert!(
            at.ends_with("[]") || node["description"].is_string(),
            "{at}: what is it"
        );
        assert!(node.get("$ref").is_none(), "{at}");
        for key in node["required"].as_array().into_iter().flatten() {
            assert!(
                node["properties"].get(key.as_str().unwrap()).is_some(),
                "{at} requires {key}, which it does not have"
            );
        }
    });
}

#[test]
fn optional_fields_document_defaults_and_numbers_have_ranges() {
    for (name, version) in versions() {
        assert_explained(&name, &version["schema"]["openAPIV3Schema"]);
    }
}

/// What a reader of `kubectl explain` wants.
pub(crate) fn assert_explained(name: &str, root: &Value) {
    let says = Regex::new("[Ll]eft out|[Ee]mpty|[Ww]ithout").unwrap();
    each_node(root, name, &mut |node, at| {
        for (key, field) in node["properties"].as_object().into_iter().flatten() {
            let required = node["required"].as_array();
            if required.is_some_and(|required| required.contains(&json!(key))) {
                continue;
            }
            let text = field["description"].as_str().unwrap_or_default();
            assert!(says.is_match(text), "{at}.{key} is optional: {text:?}");
        }
        if node["type"] == "integer" {
            assert!(node["minimum"].is_number(), "{at} has no minimum");
        }
    });
}

#[test]
fn kubectl_shows_every_condition_and_at_most_six_columns() {
    for (plural, version) in versions() {
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let shown = columns.iter().filter(|column| column["priority"] == 0);
        let names: Vec<&str> = shown.filter_map(|c| c["name"].as_str()).collect();
        for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
            assert!(names.contains(&condition), "{plural}: {names:?}");
        }
        assert!(names.len() <= 6, "{plural}: {names:?}");
        assert!(!names.contains(&"Message"), "{plural}: {names:?}");
    }
}

/// Manifests of every kind and version, as their specifications have them.
pub(crate) const MANIFESTS: &[&str] = &[
    r#"
apiVersion: access.smi-spec.io/v1alpha1
kind: TrafficTarget
metadata: {name: path-specific, namespace: default}
destination: {kind: ServiceAccount, name: service-a, namespace: default, port: 8080}
specs:
- {kind: HTTPRouteGroup, name: the-routes, matches: [metrics]}
sources:
- {kind: ServiceAccount, name: prometheus, namespace: default}
"#,
    r#"
apiVersion: access.smi-spec.io/v1alpha1
kind: TrafficTarget
metadata: {name: port-as-text}
destination: {kind: ServiceAccount, name: service-a, port: "8080"}
"#,
    r#"
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: path-specific, namespace: default}
spec:
  destination: {kind: ServiceAccount, name: service-a, namespace: default, port: 8080}
  rules:
  - {kind: HTTPRouteGroup, name: the-routes, matches: [metrics]}
  sources:
  - {kind: ServiceAccount, name: prometheus, namespace: default}
"#,
    r#"
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: path-specific, namespace: default}
spec:
  destination: {kind: ServiceAccount, name: service-a, namespace: default}
  rules:
  - {kind: TCPRoute, name: the-routes}
  - {kind: HTTPRouteGroup, name: the-routes, matches: [metrics]}
  - {kind: UDPRoute, name: the-routes}
  sources:
  - {kind: ServiceAccount, name: prometheus, namespace: default}
"#,
    r#"
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: path-specific, namespace: default}
spec:
  destination: {kind: IdentityBinding, group: access.smi-spec.io, name: service-a, namespace: default}
  rules:
  - {kind: TCPRoute, name: the-routes}
  sources:
  - {kind: IdentityBinding, group: access.smi-spec.io, name: prometheus, namespace: default}
"#,
    r#"
apiVersion: access.smi-spec.io/v1alpha4
kind: IdentityBinding
metadata: {name: service-a, namespace: default}
spec:
  schemes:
    podLabelSelector: {matchLabels: {app: service-a}}
    spiffeIdentities:
    - cluster.local/ns/default/sa/service-a
    - spiffe://federated.trustdomain/boundary/boundaryName
"#,
    r#"
apiVersion: specs.smi-spec.io/v1alpha1
kind: HTTPRouteGroup
metadata: {name: the-routes}
matches:
- {name: metrics, pathRegex: /metrics, methods: [GET]}
- {name: everything, pathRegex: ".*", methods: ["*"]}
"#,
    r#"
apiVersion: specs.smi-spec.io/v1alpha2
kind: HTTPRouteGroup
metadata: {name: the-routes}
matches:
- {name: android, headers: [{user-agent: ".*Android.*"}]}
- {name: cookie, headers: {cookie: "^(.*?;)?(type=insider)(;.*)?$"}}
"#,
    r#"
apiVersion: specs.smi-spec.io/v1alpha3
kind: HTTPRouteGroup
metadata: {name: the-routes}
spec:
  matches:
  - {name: metrics, pathRegex: /metrics, methods: [GET], headers: {user-agent: ".*"}}
"#,
    r#"
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: the-routes}
spec:
  matches:
  - {name: metrics, pathRegex: /metrics, methods: [GET], headers: [{user-agent: ".*"}]}
"#,
    "{apiVersion: specs.smi-spec.io/v1alpha1, kind: TCPRoute, metadata: {name: tcp}}",
    "{apiVersion: specs.smi-spec.io/v1alpha2, kind: TCPRoute, metadata: {name: tcp}}",
    "{apiVersion: specs.smi-spec.io/v1alpha3, kind: TCPRoute, metadata: {name: tcp}, spec: {}}",
    "{apiVersion: specs.smi-spec.io/v1alpha3, kind: TCPRoute, metadata: {name: tcp}}",
    "{apiVersion: specs.smi-spec.io/v1alpha4, kind: TCPRoute, metadata: {name: tcp}, spec: {matches: {ports: [8300, 8301]}}}",
    "{apiVersion: specs.smi-spec.io/v1alpha4, kind: TCPRoute, metadata: {name: tcp}, spec: {}}",
    "{apiVersion: specs.smi-spec.io/v1alpha4, kind: UDPRoute, metadata: {name: udp}, spec: {matches: {name: n, ports: [8301]}}}",
    r#"
apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: {name: canary}
spec:
  service: website
  backends:
  - {service: website-v1, weight: 1}
  - {service: website-v2, weight: 500m}
  - {service: website-v3, weight: "100"}
  - {service: website-v4, weight: "1e3"}
  - {service: website-v5}
"#,
    r#"
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata: {name: canary}
spec:
  service: foobar
  backends: [{service: foobar-v1, weight: 1000}, {service: foobar-v2, weight: 500}]
"#,
    r#"
apiVersion: split.smi-spec.io/v1alpha3
kind: TrafficSplit
metadata: {name: ab-test}
spec:
  service: website
  matches: [{kind: HTTPRouteGroup, name: ab-test}]
  backends: [{service: website-v1, weight: 0}, {service: website-v2, weight: 100}]
"#,
    r#"
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: ab-test}
spec:
  service: website
  matches: [{apiGroup: specs.smi-spec.io, kind: HTTPRouteGroup, name: ab-test}]
  backends: [{service: website-v1, weight: 0}, {service: website-v2, weight: 100}]
"#,
];

#[test]
fn manifests_of_every_version_keep_all_fields() {
    for manifest in MANIFESTS {
        assert_eq!(verdict(manifest), Vec::<String>::new(), "{manifest}");
    }
}

#[test]
fn narrowing_field_is_refused_in_versions_without_it() {
    for (manifest, word) in [
        (
            "{apiVersion: access.smi-spec.io/v1alpha3, kind: TrafficTarget, spec: {rules: [], \
             sources: [], destination: {kind: ServiceAccount, name: a, port: 80}}}",
            "port is no field of v1alpha3",
        ),
        (
            "{apiVersion: specs.smi-spec.io/v1alpha1, kind: HTTPRouteGroup, \
             matches: [{name: a, headers: {x: y}}]}",
            "headers is no field of v1alpha1",
        ),
        (
            "{apiVersion: specs.smi-spec.io/v1alpha1, kind: TCPRoute, spec: {matches: {ports: [80]}}}",
            "spec is no field of v1alpha1",
        ),
        (
            "{apiVersion: specs.smi-spec.io/v1alpha2, kind: TCPRoute, spec: {}}",
            "spec is no field of v1alpha2",
        ),
        (
            "{apiVersion: specs.smi-spec.io/v1alpha3, kind: TCPRoute, spec: {matches: {ports: [80]}}}",
            "matches is no field of v1alpha3",
        ),
        (
            "{apiVersion: split.smi-spec.io/v1alpha2, kind: TrafficSplit, spec: {service: a, \
             backends: [], matches: [{kind: HTTPRouteGroup, name: a}]}}",
            "matches is no field of v1alpha2",
        ),
        (
            "{apiVersion: split.smi-spec.io/v1alpha1, kind: TrafficSplit, spec: {service: a, \
             backends: [{service: a, weight: 50%}]}}",
            "does not fit the pattern",
        ),
        (
            "{apiVersion: split.smi-spec.io/v1alpha1, kind: TrafficSplit, spec: {service: a, \
             backends: [{service: a, weight: -1}]}}",
            "out of range",
        ),
        (
            "{apiVersion: access.smi-spec.io/v1alpha1, kind: TrafficTarget, \
             destination: {kind: ServiceAccount, name: a, port: \"70000\"}}",
            "does not fit the pattern",
        ),
    ] {
        let found = verdict(manifest);
        assert!(
            found.iter().any(|text| text.contains(word)),
            "{manifest}: {found:?}"
        );
    }
}
