//! Cuts out the fields of an object that a version has no place for, and puts them back where a
//! hash proves their place.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// What identifies an entry of a list to its author.
const IDENTITY: &[&str] = &["kind", "name", "namespace"];

/// Fields that were cut out of one object inside `spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fragment {
    /// JSON pointer of that object in storage.
    at: String,
    /// Its kind, name and namespace.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    of: Map<String, Value>,
    /// Hash of the other visible fields of an HTTP match, by which it is known after a
    /// change of its name. Other entries are nothing but their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    like: Option<String>,
    /// The fields.
    keep: Map<String, Value>,
}

impl Fragment {
    /// Cuts `fields` out of `object`; none if it has none of them.
    pub(super) fn cut(at: &str, object: &mut Map<String, Value>, fields: &[&str]) -> Option<Self> {
        let keep: Map<String, Value> = fields
            .iter()
            .filter_map(|field| object.remove_entry(*field))
            .collect();
        (!keep.is_empty()).then(|| Self {
            at: at.to_owned(),
            of: identity(object),
            like: keep.contains_key("headers").then(|| likeness(object)),
            keep,
        })
    }

    /// Adds the fields to `object`, which keeps its own.
    fn add_to(&self, object: &mut Map<String, Value>) {
        for (field, value) in &self.keep {
            // An API group means nothing beside another kind.
            if field == "group" && object.get("kind") != self.of.get("kind") {
                continue;
            }
            object
                .entry(field.as_str())
                .or_insert_with(|| value.clone());
        }
    }
}

fn identity(object: &Map<String, Value>) -> Map<String, Value> {
    let fields = object
        .iter()
        .filter(|(key, _)| IDENTITY.contains(&key.as_str()));
    fields.map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn likeness(object: &Map<String, Value>) -> String {
    let rest: Map<String, Value> = object
        .iter()
        .filter(|(key, _)| *key != "name")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    hash("like", &rest)
}

/// Every fragment back at its place; none if a place is gone.
pub(super) fn in_place(content: Content, fragments: &[Fragment]) -> Option<Content> {
    let mut content = Value::Object(content);
    for fragment in fragments {
        let object = content.pointer_mut(&fragment.at)?.as_object_mut()?;
        fragment.add_to(object);
    }
    match content {
        Value::Object(content) => Some(content),
        _ => None,
    }
}

/// Every fragment at what it belongs to now; fragments of what is gone are gone.
pub(super) fn by_name(content: Content, fragments: &[Fragment]) -> Content {
    let mut content = Value::Object(content);
    let mut taken: Vec<String> = Vec::new();
    for fragment in fragments {
        let at = match fragment.at.rsplit_once('/') {
            Some((list, index)) if index.parse::<usize>().is_ok() => {
                let free = |at: &String| !taken.contains(at);
                find(&content, fragment, list, index, free)
            }
            _ => Some(fragment.at.clone()),
        };
        let Some(at) = at else { continue };
        if let Some(object) = content.pointer_mut(&at).and_then(Value::as_object_mut) {
            fragment.add_to(object);
            taken.push(at);
        }
    }
    match content {
        Value::Object(content) => content,
        _ => Map::new(),
    }
}

/// Where the entry is that a fragment belongs to: of the same name, best at the
/// same position, else of the same content under a new name.
fn find(
    content: &Value,
    fragment: &Fragment,
    list: &str,
    index: &str,
    free: impl Fn(&String) -> bool,
) -> Option<String> {
    let entries = content.pointer(list)?.as_array()?;
    let entries_at: Vec<(String, &Map<String, Value>)> = entries
        .iter()
        .enumerate()
        .filter_map(|(i, entry)| Some((format!("{list}/{i}"), entry.as_object()?)))
        .filter(|(at, _)| free(at))
        .collect();
    let same_name = |entry: &Map<String, Value>| identity(entry) == fragment.of;
    let here = format!("{list}/{index}");
    entries_at
        .iter()
        .find(|(at, entry)| *at == here && same_name(entry))
        .or_else(|| entries_at.iter().find(|(_, entry)| same_name(entry)))
        .or_else(|| {
            entries_at
                .iter()
                .find(|(_, entry)| fragment.like == Some(likeness(entry)))
        })
        .map(|(at, _)| at.clone())
}

/// The value's content. Its maps are sorted, so that equal content has one text.
pub(super) fn canonical(value: &impl Serialize) -> String {
    json(value).to_string()
}

fn json(value: &impl Serialize) -> Value {
    // Structs and maps with text as keys, whose numbers came out of JSON.
    serde_json::to_value(value).expect("plain data must have a JSON form")
}

/// The first 16 hex digits of SHA-256 over the value's content, whatever the order
/// of its keys, bound to a purpose.
pub(super) fn hash(purpose: &str, value: &impl Serialize) -> String {
    let digest = Sha256::digest(format!("{purpose} {}", json(value)));
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The top-level keys of an object other than `apiVersion`, `kind`, `metadata` and
/// `status`: what the author wrote.
pub(super) type Content = Map<String, Value>;

/// Takes what the author wrote out of the object.
pub(super) fn take_content(object: &mut Map<String, Value>) -> Content {
    let keys: Vec<String> = object
        .keys()
        .filter(|key| !["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()))
        .cloned()
        .collect();
    keys.into_iter()
        .filter_map(|key| object.remove_entry(&key))
        .collect()
}
