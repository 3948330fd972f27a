//! Maps an SMI object between versions field by field, without any annotation.
//!
//! From an older version into storage nothing is ever dropped. From storage into an
//! older version, parts that it has no field for come back as fragments.

use serde_json::{Map, Value, json};

use super::fragment::{Content, Fragment};
use super::weight;
use crate::smi::{
    SmiKind,
    SmiVersion::{self, V1alpha1, V1alpha2, V1alpha3},
};

/// What a version shows of a stored object, and what it cannot.
pub(super) struct View {
    pub(super) content: Content,
    pub(super) fragments: Vec<Fragment>,
}

/// The fields of a TrafficTarget: as v1alpha1 has them at the top, and in `spec`.
const TARGET_FIELDS: &[(&str, &str)] = &[
    ("destination", "destination"),
    ("sources", "sources"),
    ("specs", "rules"),
];
/// The same for an HTTPRouteGroup, in v1alpha1 and v1alpha2.
const GROUP_FIELDS: &[(&str, &str)] = &[("matches", "matches")];

/// The stored form of what was written in `version`.
pub(super) fn to_storage(kind: SmiKind, version: SmiVersion, content: &Content) -> Content {
    if version == SmiVersion::STORAGE {
        return content.clone();
    }
    let mut content = match top_fields(kind, version) {
        Some(fields) => into_spec(content, fields),
        None => content.clone(),
    };
    match kind {
        SmiKind::TrafficTarget if version < V1alpha3 => ports_as_numbers(&mut content),
        SmiKind::TcpRoute => all_ports(&mut content),
        SmiKind::TrafficSplit if version == V1alpha1 => {
            let weights = weight::to_storage(&weights(&content));
            if let Some(scaled) = with_weights(&content, &weights) {
                content = scaled;
            }
        }
        _ => {}
    }
    content
}

/// What a reader in `version` sees of the stored form.
pub(super) fn to_version(kind: SmiKind, version: SmiVersion, stored: &Content) -> View {
    let mut content = stored.clone();
    let mut fragments = Vec::new();
    if version == SmiVersion::STORAGE {
        return View { content, fragments };
    }
    match kind {
        SmiKind::TrafficTarget => {
            let hidden: &[&str] = if version == V1alpha3 {
                &["group", "port"]
            } else {
                &["group"]
            };
            if let Some(destination) = at_mut(&mut content, "destination") {
                fragments.extend(Fragment::cut("/spec/destination", destination, hidden));
            }
            fragments.extend(cut_list(&mut content, "sources", hidden));
        }
        SmiKind::HttpRouteGroup if version == V1alpha1 => {
            fragments.extend(cut_list(&mut content, "matches", &["headers"]));
        }
        SmiKind::TrafficSplit if version < V1alpha3 => {
            if let Some(spec) = content.get_mut("spec").and_then(Value::as_object_mut) {
                fragments.extend(Fragment::cut("/spec", spec, &["matches"]));
            }
        }
        // v1alpha1 and v1alpha2 have no field at all, v1alpha3 an empty spec.
        SmiKind::TcpRoute => {
            content.remove("spec");
            if version == V1alpha3 {
                content.insert("spec".into(), json!({}));
            }
        }
        _ => {}
    }
    if let Some(fields) = top_fields(kind, version) {
        out_of_spec(&mut content, fields);
    }
    View { content, fragments }
}

/// Fields that stand at the top of the object instead of in `spec`.
fn top_fields(
    kind: SmiKind,
    version: SmiVersion,
) -> Option<&'static [(&'static str, &'static str)]> {
    match (kind, version) {
        (SmiKind::TrafficTarget, V1alpha1) => Some(TARGET_FIELDS),
        (SmiKind::HttpRouteGroup, V1alpha1 | V1alpha2) => Some(GROUP_FIELDS),
        _ => None,
    }
}

fn into_spec(content: &Content, fields: &[(&str, &str)]) -> Content {
    let mut content = content.clone();
    let spec: Map<String, Value> = fields
        .iter()
        .filter_map(|(top, inner)| Some(((*inner).to_owned(), content.remove(*top)?)))
        .collect();
    content.insert("spec".into(), spec.into());
    content
}

fn out_of_spec(content: &mut Content, fields: &[(&str, &str)]) {
    if let Some(Value::Object(mut spec)) = content.remove("spec") {
        for (top, inner) in fields {
            if let Some(value) = spec.remove(*inner) {
                content.insert((*top).to_owned(), value);
            }
        }
    }
}

/// The oldest clients write the port as text, which typed readers of storage do
/// not take.
fn ports_as_numbers(content: &mut Content) {
    let number = |subject: &mut Map<String, Value>| {
        let port = subject.get("port").and_then(Value::as_str);
        if let Some(port) = port.and_then(|text| text.parse::<u16>().ok()) {
            subject.insert("port".into(), port.into());
        }
    };
    if let Some(destination) = at_mut(content, "destination") {
        number(destination);
    }
    objects_mut(content, "sources").for_each(|(_, source)| number(source));
}

/// A TCPRoute without ports means all of them; readers of v1alpha4 want to see the
/// empty list.
fn all_ports(content: &mut Content) {
    let spec = content.entry("spec").or_insert(Value::Null);
    if spec.is_null() {
        *spec = json!({});
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.entry("matches")
            .or_insert_with(|| json!({"ports": []}));
    }
}

/// The weights of a split's backends, by position.
pub(super) fn weights(content: &Content) -> Vec<Option<&Value>> {
    let backends = content.get("spec").and_then(|spec| spec.get("backends"));
    let backends = backends.and_then(Value::as_array);
    backends
        .into_iter()
        .flatten()
        .map(|backend| backend.get("weight"))
        .collect()
}

/// The same split with these weights, and its own where there is none; nothing unless
/// they are as many as the backends.
pub(super) fn with_weights(content: &Content, weights: &[Option<Value>]) -> Option<Content> {
    let mut content = content.clone();
    let backends = content
        .get_mut("spec")?
        .get_mut("backends")?
        .as_array_mut()?;
    if backends.len() != weights.len() {
        return None;
    }
    for (backend, weight) in backends.iter_mut().zip(weights) {
        if let Some(weight) = weight {
            backend
                .as_object_mut()?
                .insert("weight".into(), weight.clone());
        }
    }
    Some(content)
}

fn at_mut<'a>(content: &'a mut Content, field: &str) -> Option<&'a mut Map<String, Value>> {
    content.get_mut("spec")?.get_mut(field)?.as_object_mut()
}

/// The objects of a list in `spec`, with their positions.
fn objects_mut<'a>(
    content: &'a mut Content,
    field: &str,
) -> impl Iterator<Item = (usize, &'a mut Map<String, Value>)> {
    content
        .get_mut("spec")
        .and_then(|spec| spec.get_mut(field))
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, entry)| Some((index, entry.as_object_mut()?)))
}

fn cut_list(content: &mut Content, field: &str, hidden: &[&str]) -> Vec<Fragment> {
    objects_mut(content, field)
        .filter_map(|(index, entry)| {
            Fragment::cut(&format!("/spec/{field}/{index}"), entry, hidden)
        })
        .collect()
}
