//! The annotation `weft.dev/smi-lossless`, which keeps the parts of an object that one version
//! cannot express.
//!
//! Its text is canonical: a text that does not parse back to the same text, or whose hashes do not
//! match, is not ours and is ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fragment::{Content, canonical};
use super::hidden::{ConversionError, Hidden};
use super::shape;
use crate::{
    labels::SMI_LOSSLESS,
    smi::{SmiKind, SmiVersion},
};

/// What the API server lets all annotations of an object hold together, keys
/// included, in bytes. A converted object beyond it fails the whole list.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// What travels beside the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lossless {
    /// Parts of the stored object that this version cannot show. Never in storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hidden: Option<Hidden>,
    /// By version, what an author wrote in words that storage cannot hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) written: BTreeMap<SmiVersion, Written>,
    /// The text that was in this place before and is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
}

impl Lossless {
    /// Only a text that is not ours.
    pub(super) fn foreign(text: Option<String>) -> Self {
        Self {
            before: text,
            ..Self::default()
        }
    }

    /// The annotation's text; none when there is nothing to say.
    pub(super) fn text(&self) -> Option<String> {
        if self.hidden.is_none() && self.written.is_empty() {
            return self.before.clone();
        }
        Some(canonical(self))
    }
}

/// An author's own words, as far as the plain conversion of the stored object would
/// say them differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Written {
    /// The weights of the backends, by position; none where storage holds the author's
    /// own, which may be null or left out. JSON could not tell those two apart here.
    Weights(Vec<Option<Value>>),
    /// Everything.
    Content(Content),
}

impl Written {
    /// The shortest note from which `visible` can be restored, given what the plain
    /// conversion shows.
    pub(super) fn of(visible: &Content, plain: &Content) -> Self {
        let weights: Vec<Option<Value>> = shape::weights(visible)
            .into_iter()
            .map(|weight| weight.filter(|weight| !weight.is_null()).cloned())
            .collect();
        if shape::with_weights(plain, &weights).as_ref() == Some(visible) {
            Self::Weights(weights)
        } else {
            Self::Content(visible.clone())
        }
    }

    /// What the author wrote, if it still means what is stored: converting it must
    /// show what the stored object shows.
    pub(super) fn fitting(
        &self,
        kind: SmiKind,
        version: SmiVersion,
        plain: &Content,
    ) -> Option<Content> {
        let words = match self {
            Self::Weights(weights) => shape::with_weights(plain, weights)?,
            Self::Content(content) => content.clone(),
        };
        let stored = shape::to_storage(kind, version, &words);
        let shown = shape::to_version(kind, version, &stored).content;
        (shown == *plain).then_some(words)
    }
}

/// Reads the annotation's text, if the webhook wrote it and no client changed it.
pub(super) fn read(kind: SmiKind, text: &str) -> Option<Lossless> {
    let note: Lossless = serde_json::from_str(text).ok()?;
    let says_something = note.hidden.is_some() || !note.written.is_empty();
    let untouched = canonical(&note) == text
        && note
            .hidden
            .as_ref()
            .is_none_or(|hidden| hidden.is_untouched(kind));
    (says_something && untouched).then_some(note)
}

/// Whether the text claims to carry hidden parts, true or not.
pub(super) fn claims_to_hide(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|note| note.get("hidden").is_some())
}

/// Takes the annotation out of the object.
pub(super) fn take(object: &mut Map<String, Value>) -> Result<Option<String>, ConversionError> {
    let metadata = match object.get_mut("metadata") {
        None => return Ok(None),
        Some(metadata) => metadata
            .as_object_mut()
            .ok_or(ConversionError::NotAnObject { field: "metadata" })?,
    };
    let Some(Value::Object(annotations)) = metadata.get_mut("annotations") else {
        return Ok(None);
    };
    let text = match annotations.get(SMI_LOSSLESS) {
        Some(Value::String(text)) => text.clone(),
        _ => return Ok(None),
    };
    annotations.remove(SMI_LOSSLESS);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    Ok(Some(text))
}

/// Puts the annotation in; false, with nothing changed, if there is no room for it.
pub(super) fn put(object: &mut Map<String, Value>, text: Option<String>) -> bool {
    let Some(text) = text else {
        return true;
    };
    let metadata = object
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(metadata) = metadata.as_object_mut() else {
        return false;
    };
    let others: usize = metadata
        .get("annotations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if others + SMI_LOSSLESS.len() + text.len() > MAX_ANNOTATIONS {
        return false;
    }
    let annotations = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    let Some(annotations) = annotations.as_object_mut() else {
        return false;
    };
    annotations.insert(SMI_LOSSLESS.to_owned(), text.into());
    true
}
