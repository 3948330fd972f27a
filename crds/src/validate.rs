//! An object of any kind, as a webhook and a command line meet it.

use std::sync::LazyLock;

use policy::name::Kind;
use serde_json::{Value, json};

use crate::{
    label_syntax::is_dns_subdomain,
    smi::{
        self, HttpRouteGroupSpec, IdentityBindingSpec, SmiKind, TcpRouteSpec, TrafficSplitSpec,
        TrafficTargetSpec, UdpRouteSpec,
        judge::{Mistake, Mistakes, Surroundings, spec, unknown_fields},
    },
    weft::{self, TrafficPolicySpec},
};

/// Fields of objects of every kind, that the schema of none holds or that no author writes.
const EVERY_KIND: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// The schema of each kind in each version.
static SCHEMAS: LazyLock<Vec<Written>> = LazyLock::new(schemas);

/// What may stand in an object of one `apiVersion` and `kind`.
struct Written {
    api_version: String,
    kind: &'static str,
    schema: Value,
}

/// What is wrong with the spec of an object in the version that is stored; `None` if its
/// kind is none of ours.
pub fn object(
    group: &str,
    kind: &str,
    written: Option<&Value>,
    at: &Surroundings<'_>,
) -> Option<Vec<Mistake>> {
    if (group, kind) == (weft::GROUP, Kind::TrafficPolicy.as_str()) {
        return Some(spec::<TrafficPolicySpec>(written, at).1);
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

/// What is wrong with an object in the words and the version of its author, besides its spec:
/// its name, and fields that its kind does not have in that version.
///
/// For those who have the author's text. The API server judges the name itself, and takes
/// such fields away before it asks a webhook.
pub fn as_written(object: &Value) -> Vec<Mistake> {
    let mut mistakes = Mistakes::default();
    name(&object["metadata"], &mut mistakes);
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let mut known = SCHEMAS.iter();
    if let Some(known) = known.find(|one| one.api_version == api_version && one.kind == kind) {
        let kind = format!("{kind} in {api_version}");
        unknown_fields(&kind, "", object, &known.schema, &mut mistakes);
    }
    mistakes.into_vec()
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

fn schemas() -> Vec<Written> {
    // The spec of a TrafficPolicy is looked at where it is judged.
    let mut schemas = vec![Written {
        api_version: format!("{}/{}", weft::GROUP, weft::VERSION),
        kind: Kind::TrafficPolicy.as_str(),
        schema: whole(json!({ "properties": { "spec": {} } })),
    }];
    for (plural, definition) in smi::definitions("") {
        let mut kinds = SmiKind::ALL.into_iter();
        let Some(kind) = kinds.find(|kind| kind.plural() == plural) else {
            continue;
        };
        let versions = definition["spec"]["versions"].as_array();
        for version in versions.into_iter().flatten() {
            let name = version["name"].as_str().unwrap_or_default();
            schemas.push(Written {
                api_version: format!("{}/{name}", kind.group()),
                kind: kind.name(),
                schema: whole(version["schema"]["openAPIV3Schema"].clone()),
            });
        }
    }
    schemas
}

/// The schema of an object together with what stands in all of them.
fn whole(mut schema: Value) -> Value {
    for field in EVERY_KIND {
        schema["properties"][field] = json!({});
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smi::judge::Severity;

    /// Field, and the field that was meant; empty where none is told.
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
    fn a_misspelt_field_of_smi_is_told_with_the_one_that_was_meant_where_it_was_written() {
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
    fn fields_that_every_object_has_or_whose_names_are_free_are_not_told() {
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
    fn a_name_that_the_api_server_takes_for_no_object_is_refused() {
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
}
