//! Validates an object of any kind, for the webhook and for `weft validate`.
//!
//! Claims: observe-116, observe-62

#[cfg(test)]
mod rules;
mod structural;

use std::sync::LazyLock;

use kube::Resource;
use serde_json::{Value, json};

use crate::{
    label_syntax::is_dns_subdomain,
    smi::{
        self, HttpRouteGroupSpec, IdentityBindingSpec, SmiKind, TcpRouteSpec, TrafficSplitSpec,
        TrafficTargetSpec, UdpRouteSpec,
        validation::{Mistake, Mistakes, ValidationContext, spec, unknown_fields},
    },
    weft::{
        self, CanaryRelease, CanaryReleaseSpec, ExternalService, ExternalServiceSpec,
        FaultExperiment, FaultExperimentSpec, Revocation, RevocationSpec, TrafficPolicy,
        TrafficPolicySpec,
    },
};

/// Fields of objects of every kind, that the schema of none holds or that no author writes.
const EVERY_KIND: [&str; 3] = ["apiVersion", "kind", "status"];

/// The schema of each kind in each version.
static SERVED: LazyLock<Vec<Written>> = LazyLock::new(served);

/// The same for names of fields: those in the specs of our own kinds are looked at where they
/// are judged.
static NAMES: LazyLock<Vec<Written>> = LazyLock::new(names);

/// What may stand in an object of one `apiVersion` and `kind`.
struct Written {
    api_version: String,
    kind: String,
    schema: Value,
}

/// What is wrong with the spec of an object in the version that is stored; `None` if its
/// kind is none of ours.
pub fn object(
    group: &str,
    kind: &str,
    written: Option<&Value>,
    at: &ValidationContext<'_>,
) -> Option<Vec<Mistake>> {
    if group == weft::GROUP {
        return own(kind, written, at);
    }
    Some(match SmiKind::named(group, kind)? {
        SmiKind::TrafficSplit => spec::<TrafficSplitSpec>(written, at).1,
        SmiKind::TrafficTarget => spec::<TrafficTargetSpec>(written, at).1,
        SmiKind::HttpRouteGroup => spec::<HttpRouteGroupSpec>(written, at).1,
        SmiKind::TcpRoute => spec::<TcpRouteSpec>(written, at).1,
        SmiKind::UdpRoute => spec::<UdpRouteSpec>(written, at).1,
        SmiKind::IdentityBinding => spec::<IdentityBindingSpec>(written, at).1,
    })
}

/// The same for a kind of our own group.
fn own(kind: &str, written: Option<&Value>, at: &ValidationContext<'_>) -> Option<Vec<Mistake>> {
    if kind == TrafficPolicy::kind(&()) {
        Some(spec::<TrafficPolicySpec>(written, at).1)
    } else if kind == CanaryRelease::kind(&()) {
        Some(spec::<CanaryReleaseSpec>(written, at).1)
    } else if kind == FaultExperiment::kind(&()) {
        Some(spec::<FaultExperimentSpec>(written, at).1)
    } else if kind == ExternalService::kind(&()) {
        Some(spec::<ExternalServiceSpec>(written, at).1)
    } else if kind == Revocation::kind(&()) {
        Some(spec::<RevocationSpec>(written, at).1)
    } else {
        None
    }
}

/// What is wrong with an object in the words and the version of its author, besides its spec:
/// its name, and fields that its kind does not have in that version.
///
/// For tools that have the author's text. The API server validates the name itself, and drops
/// such fields before it calls a webhook.
pub fn as_written(object: &Value) -> Vec<Mistake> {
    let mut mistakes = Mistakes::default();
    name(&object["metadata"], &mut mistakes);
    if let Some(known) = written_as(object, &NAMES) {
        let kind = format!("{} in {}", known.kind, known.api_version);
        unknown_fields(&kind, "", object, &known.schema, &mut mistakes);
    }
    mistakes.into_vec()
}

/// What the API server would refuse in an object by the schema of its kind, in the words and
/// the version of its author, before it calls a webhook: what is missing, of another type, out
/// of its bounds, or no field of that version. Nothing if the kind or the version is none of
/// ours.
///
/// Rules between fields and keys of lists, which a schema has besides, are those of [`object`].
pub fn by_schema(object: &Value) -> Vec<Mistake> {
    let mut mistakes = Mistakes::default();
    if let Some(known) = written_as(object, &SERVED) {
        structural::walk("", object, &known.schema, &mut mistakes);
    }
    mistakes.into_vec()
}

/// Takes out of an object each null that the API server takes away before it judges, by the
/// schema of its kind and version; nothing if those are none of ours.
pub fn drop_nulls(object: &mut Value) {
    if let Some(known) = written_as(object, &SERVED) {
        structural::drop_nulls(object, &known.schema);
    }
}

/// What may stand in this object; `None` if its kind or version is none of ours.
fn written_as<'a>(object: &Value, known: &'a [Written]) -> Option<&'a Written> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let mut known = known.iter();
    known.find(|one| one.api_version == api_version && one.kind == kind)
}

fn name(metadata: &Value, mistakes: &mut Mistakes) {
    const FIELD: &str = "metadata.name";
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        // The API server makes a name of it.
        if metadata["generateName"].as_str().is_none_or(str::is_empty) {
            mistakes.invalid(FIELD, "is missing: an object needs a name");
        }
    } else if !is_dns_subdomain(name) {
        let text = format!(
            "is {name:?}, but must be a DNS subdomain: at most 253 characters, of lower case \
             letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
        );
        mistakes.invalid(FIELD, text);
    }
}

fn served() -> Vec<Written> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut served = Vec::new();
    let own = weft::definitions().into_iter();
    let own = own.chain([weft::revocation_definition()]);
    for (_, definition) in smi::definitions("").into_iter().chain(own) {
        let definition = &definition["spec"];
        let group = text(&definition["group"]);
        let versions = definition["versions"].as_array();
        for version in versions.into_iter().flatten() {
            served.push(Written {
                api_version: format!("{group}/{}", text(&version["name"])),
                kind: text(&definition["names"]["kind"]),
                schema: whole(version["schema"]["openAPIV3Schema"].clone()),
            });
        }
    }
    served
}

fn names() -> Vec<Written> {
    let mut names = served();
    for one in &mut names {
        let group = one.api_version.split('/').next();
        if group == Some(weft::GROUP) {
            one.schema["properties"]["spec"] = json!({});
        }
    }
    names
}

/// The schema of an object together with what stands in all of them.
fn whole(mut schema: Value) -> Value {
    for field in EVERY_KIND {
        schema["properties"][field] = json!({});
    }
    schema["properties"]["metadata"] = metadata();
    schema
}

/// What an object's author may say of every kind, as far as it is looked at here. The name has
/// a judgement of its own.
fn metadata() -> Value {
    let text = json!({ "type": "string" });
    let label = json!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
    });
    let namespace = json!({
        "type": "string",
        "maxLength": 63,
        "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$",
    });
    json!({
        "type": "object",
        "properties": {
            "name": text,
            "generateName": text,
            "namespace": namespace,
            "labels": { "type": "object", "additionalProperties": label },
            "annotations": { "type": "object", "additionalProperties": text },
            "finalizers": { "type": "array", "items": text },
            "ownerReferences": { "type": "array", "items": { "type": "object" } },
            // The API server writes these.
            "creationTimestamp": {},
            "deletionGracePeriodSeconds": {},
            "deletionTimestamp": {},
            "generation": {},
            "managedFields": {},
            "resourceVersion": {},
            "selfLink": {},
            "uid": {},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smi::validation::Severity;

    /// Field, and the field that was meant; empty where none is reported.
    fn listed(object: &Value) -> Vec<(String, String)> {
        let mistakes = as_written(object).into_iter();
        let listed = mistakes.map(|one| {
            assert_eq!(one.severity, Severity::Warn, "{one:?}");
            let meant = one.text.strip_suffix(" is one");
            let meant = meant.and_then(|text| text.rsplit_once("; "));
            let meant = meant.map_or("", |(_, meant)| meant).to_owned();
            (one.field, meant)
        });
        listed.collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let expected = expected.iter();
        expected
            .map(|(field, meant)| ((*field).to_owned(), (*meant).to_owned()))
            .collect()
    }

    #[test]
    fn misspelt_smi_field_suggests_correct_one_in_place() {
        let rules = json!([{"kind": "HTTPRouteGroup", "name": "cart", "match": ["read"]}]);
        let target = json!({"apiVersion": "access.smi-spec.io/v1alpha4", "kind": "TrafficTarget",
            "metadata": {"name": "cart"}, "spec": {"rules": rules}, "sources": [], "x": 1});
        let expected = [
            ("sources", ""),
            ("spec.rules[0].match", "matches"),
            ("x", ""),
        ];
        assert_eq!(listed(&target), pairs(&expected));
        // The oldest version has it in another place, and fields of its own.
        let target = json!({"apiVersion": "access.smi-spec.io/v1alpha1", "kind": "TrafficTarget",
            "metadata": {"name": "cart"}, "specs": rules,
            "destination": {"kind": "ServiceAccount", "name": "cart", "port": "80", "group": ""}});
        let expected = [("destination.group", ""), ("specs[0].match", "matches")];
        assert_eq!(listed(&target), pairs(&expected));
        let split = json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": "cart"},
            "spec": {"service": "cart", "match": [], "backends": [{"service": "a", "wieght": 1}]}});
        let expected = [
            ("spec.backends[0].wieght", "weight"),
            ("spec.match", "matches"),
        ];
        assert_eq!(listed(&split), pairs(&expected));
        let policy = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "cart"}, "spec": {"retries": {}}, "specs": {}});
        assert_eq!(listed(&policy), pairs(&[("specs", "spec")]));
    }

    #[test]
    fn standard_and_free_form_fields_are_not_reported() {
        let group = json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
            "metadata": {"name": "cart", "labels": {"a": "b"}}, "status": {"summary": "x"},
            "spec": {"matches": [{"name": "a", "headers": [{"x-team": "blue"}]}]}});
        assert_eq!(listed(&group), pairs(&[]));
        let schemes = json!({"podLabelSelector": {"matchLabels": {"app": "web"}}});
        let binding = json!({"apiVersion": "access.smi-spec.io/v1alpha4",
            "kind": "IdentityBinding", "metadata": {"generateName": "web-"},
            "spec": {"schemes": schemes}});
        assert_eq!(listed(&binding), pairs(&[]));
    }

    #[test]
    fn object_name_invalid_for_api_server_is_refused() {
        for metadata in [
            json!({"name": "Cart_1"}),
            json!({"name": "cart."}),
            json!({}),
        ] {
            let mistakes = as_written(&json!({"kind": "TrafficSplit", "metadata": metadata}));
            let [one] = &*mistakes else {
                panic!("{metadata}: {mistakes:?}")
            };
            assert_eq!(one.severity, Severity::Refuse);
            assert_eq!(one.field, "metadata.name");
        }
        let good = json!({"kind": "TrafficSplit", "metadata": {"name": "cart.v1"}});
        assert_eq!(as_written(&good), []);
    }

    /// Each refusal of the schema, as `field: text`.
    fn refused(object: &Value) -> Vec<String> {
        let mistakes = by_schema(object).into_iter();
        let refused = mistakes.map(|one| {
            assert_eq!(one.severity, Severity::Refuse, "{one:?}");
            format!("{}: {}", one.field, one.text)
        });
        refused.collect()
    }

    fn split(version: &str, spec: &Value) -> Value {
        json!({"apiVersion": format!("split.smi-spec.io/{version}"), "kind": "TrafficSplit",
            "metadata": {"name": "cart"}, "spec": spec})
    }

    // Claims: observability-18
    #[test]
    fn invalid_or_missing_field_is_reported_with_its_path() {
        let spec = json!({"service": "cart", "matches": {"kind": "HTTPRouteGroup"},
            "backends": [{"service": "a", "weight": "90"}, {"weight": -1}, "b"]});
        assert_eq!(
            refused(&split("v1alpha4", &spec)),
            [
                "spec.backends[0].weight: is the text \"90\", but must be a whole number",
                "spec.backends[1].service: is missing, but must be written",
                "spec.backends[1].weight: is -1, but must be at least 0",
                "spec.backends[2]: is the text \"b\", but must be an object",
                "spec.matches: is an object, but must be a list",
            ]
        );
        // The first version takes quantities, and no null may stand for an object.
        let spec = json!({"service": "cart", "backends": [{"service": "a", "weight": "500m"}]});
        assert_eq!(refused(&split("v1alpha1", &spec)), Vec::<String>::new());
        let nothing = split("v1alpha1", &json!(null));
        assert_eq!(refused(&nothing), ["spec: is missing, but must be written"]);
        let spec = json!({"service": "cart", "backends": [{"service": "a", "weight": "lots"}]});
        let found = refused(&split("v1alpha1", &spec));
        let [one] = &*found else { panic!("{found:?}") };
        assert!(
            one.starts_with("spec.backends[0].weight: is \"lots\", but must match "),
            "{one}"
        );
    }

    #[test]
    fn narrowing_field_is_reported_in_versions_without_it() {
        let target = |version: &str| {
            json!({"apiVersion": format!("access.smi-spec.io/{version}"), "kind": "TrafficTarget",
                "metadata": {"name": "cart"}, "spec": {
                    "destination": {"kind": "ServiceAccount", "name": "cart", "port": 80},
                    "rules": [], "sources": []}})
        };
        assert_eq!(
            refused(&target("v1alpha3")),
            [
                "spec.destination.port: port is no field of v1alpha3: name the port in a TCPRoute, \
              or use v1alpha2"
            ]
        );
        assert_eq!(refused(&target("v1alpha2")), Vec::<String>::new());
    }

    #[test]
    fn invalid_choice_lists_all_allowed_values() {
        let policy = |kind: &str, request: &str| {
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
                "metadata": {"name": "cart"}, "spec": {
                    "targetRef": {"kind": kind, "name": "cart"},
                    "timeouts": {"request": request, "idle": null}}})
        };
        let found = refused(&policy("service", "1d"));
        let [kind, request] = &*found else {
            panic!("{found:?}")
        };
        assert_eq!(
            kind,
            "spec.targetRef.kind: is \"service\", but must be one of Service, Namespace, Mesh; \
             you may mean Service"
        );
        assert!(
            request.starts_with("spec.timeouts.request: is \"1d\", but must match "),
            "{request}"
        );
        assert_eq!(refused(&policy("Service", "1s")), Vec::<String>::new());
    }

    #[test]
    fn only_author_written_metadata_is_validated() {
        let mut object = split(
            "v1alpha4",
            &json!({"service": "a", "backends": [{"service": "b", "weight": 1}]}),
        );
        object["metadata"] = json!({"name": "cart", "namespace": "Shop", "creationTimestamp": null,
            "labels": {"app": 1, "app.kubernetes.io/name": "-x", "tier": "web"},
            "annotations": null, "lables": {}});
        let fields: Vec<String> = by_schema(&object)
            .into_iter()
            .map(|one| one.field)
            .collect();
        assert_eq!(
            fields,
            [
                "metadata.labels.app",
                "metadata.labels[app.kubernetes.io/name]",
                "metadata.namespace",
            ]
        );
        assert_eq!(listed(&object), pairs(&[("metadata.lables", "labels")]));
    }

    // Claims: observability-18
    #[test]
    fn schema_refuses_no_example_and_no_foreign_kind() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
        let mut texts: Vec<String> = smi::MANIFESTS.iter().map(|&text| text.to_owned()).collect();
        for entry in std::fs::read_dir(folder).unwrap() {
            texts.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
        }
        let mut ours = 0;
        for text in texts {
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let object = <Value as serde::Deserialize>::deserialize(document);
                let object = object.unwrap_or_else(|error| panic!("{error}: {text}"));
                ours += usize::from(written_as(&object, &SERVED).is_some());
                assert_eq!(refused(&object), Vec::<String>::new(), "{text}");
            }
        }
        assert!(ours > 40, "{ours}");
        let other = json!({"apiVersion": "v1", "kind": "Service", "spec": [], "metadata": 1});
        assert_eq!(refused(&other), Vec::<String>::new());
    }

    /// Without members that are null, which the API server takes away where they may not be.
    fn without_nulls(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, value| !value.is_null());
                fields.values_mut().for_each(without_nulls);
            }
            Value::Array(entries) => entries.iter_mut().for_each(without_nulls),
            _ => {}
        }
    }

    #[test]
    fn schema_valid_object_is_readable_into_its_type() {
        use crate::smi::validation::{Cluster, Code};
        use oracle::{
            generate::{SHOP, hostile},
            random::Random,
        };

        let (cluster, mut taken) = (Cluster::default(), 0);
        for seed in 0..600 {
            let mut object = hostile(&mut Random::new(seed), &SHOP);
            without_nulls(&mut object);
            let api_version = object["apiVersion"].as_str().unwrap();
            let (group, version) = api_version.split_once('/').unwrap();
            // What the schema does not name is dropped, and validated nowhere.
            let is_known = version == smi::STORAGE_VERSION && as_written(&object).is_empty();
            if !is_known || !by_schema(&object).is_empty() {
                continue;
            }
            let kind = object["kind"].as_str().unwrap();
            let around = cluster.around("shop");
            let mistakes = super::object(group, kind, object.get("spec"), &around);
            let mistakes = mistakes.unwrap();
            let unreadable = mistakes.iter().find(|one| one.code == Code::Unreadable);
            assert_eq!(unreadable, None, "seed {seed}: {object}");
            taken += 1;
        }
        assert!(taken > 0, "{taken}");
    }
}
