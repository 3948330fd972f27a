//! Converts SMI objects between the served versions of their kinds, without loss.
//!
//! Everything is stored as v1alpha4, extended by what older versions can express and v1alpha4
//! cannot: `port` in the subjects of a TrafficTarget. So the controller reads every fact from the
//! stored spec alone, whichever client wrote it in whichever version.
//!
//! A version that cannot show a part of the stored object shows the rest, and the annotation
//! `weft.dev/smi-lossless` has the part; text that storage cannot hold (`500m`) is kept there too.
//! The annotation is never trusted: it counts only as far as its object, converted anew, agrees
//! with it. Parts that it hides can make a rule narrower and never wider than the visible text.
//!
//! Conversion is total over odd shapes, because one failing object fails the list
//! of its kind for the whole cluster. Only what is refused at writing time anyway
//! is an error; see [`ConversionError`].

mod annotation;
mod fragment;
mod hidden;
mod shape;
mod weight;

use kube::core::Status;
use kube::core::conversion::{ConversionResponse, ConversionReview};
use serde_json::{Map, Value};

use annotation::{Lossless, Written};

pub use hidden::ConversionError;

pub use crate::smi::{SmiKind, SmiVersion};

/// The object in another version of its kind, for example
/// `access.smi-spec.io/v1alpha1`. Changes nothing in `metadata` but annotations.
pub fn convert(object: &Value, to: &str) -> Result<Value, ConversionError> {
    let object = object
        .as_object()
        .ok_or(ConversionError::NotAnObject { field: "object" })?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, name) = (text("apiVersion"), text("kind"));
    let (kind, from) =
        SmiKind::read(api_version, name).ok_or_else(|| ConversionError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: name.to_owned(),
        })?;
    let wanted = kind
        .version(to)
        .ok_or_else(|| ConversionError::UnknownVersion {
            kind: name.to_owned(),
            wanted: to.to_owned(),
        })?;
    if from == wanted {
        return Ok(Value::Object(object.clone()));
    }

    let mut converted = object.clone();
    if from != SmiVersion::STORAGE {
        converted = stored(kind, from, converted)?;
    }
    if wanted != SmiVersion::STORAGE {
        converted = shown(kind, wanted, converted)?;
    }
    converted.insert("apiVersion".into(), to.into());
    Ok(Value::Object(converted))
}

/// What is stored when `object` is written in `version`.
fn stored(
    kind: SmiKind,
    version: SmiVersion,
    mut object: Map<String, Value>,
) -> Result<Map<String, Value>, ConversionError> {
    let visible = fragment::take_content(&mut object);
    let raw = annotation::take(&mut object)?;
    let note = raw.as_deref().and_then(|raw| annotation::read(kind, raw));
    if note.is_none() && raw.as_deref().is_some_and(annotation::claims_to_hide) {
        return Err(ConversionError::Tampered { version });
    }
    // Text that is not ours stays what it was, also when its place is needed.
    let foreign = if note.is_none() { raw } else { None };
    let note = note.unwrap_or_default();

    let content = match &note.hidden {
        None => shape::to_storage(kind, version, &visible),
        Some(hidden) => hidden::restore(kind, version, &visible, hidden)?,
    };
    let mut left = Lossless {
        hidden: None,
        written: note.written,
        before: foreign.or(note.before),
    };
    let plain = shape::to_version(kind, version, &content).content;
    if plain != visible {
        let written = Written::of(&visible, &plain);
        left.written.insert(version, written);
    } else if let Some(old) = left.written.get(&version)
        && old.fitting(kind, version, &plain).is_some()
    {
        // The author has just written the plain form; older words would replace it.
        left.written.remove(&version);
    }
    // Without room only the spelling is lost, never a meaning.
    let text = left.text();
    if !annotation::put(&mut object, text) {
        annotation::put(&mut object, left.before);
    }
    object.extend(content);
    Ok(object)
}

/// What a reader in `version` sees of a stored object.
fn shown(
    kind: SmiKind,
    version: SmiVersion,
    mut object: Map<String, Value>,
) -> Result<Map<String, Value>, ConversionError> {
    let content = fragment::take_content(&mut object);
    let raw = annotation::take(&mut object)?;
    let read = raw.as_deref().and_then(|raw| annotation::read(kind, raw));
    // Hidden parts in storage were put there by hand. They would count on the way
    // back, so they are wrapped like any foreign text.
    let wrap = raw.as_deref().is_some_and(annotation::claims_to_hide);
    let mut note = read
        .filter(|_| !wrap)
        .unwrap_or_else(|| Lossless::foreign(raw));

    let view = shape::to_version(kind, version, &content);
    let written = note
        .written
        .get(&version)
        .and_then(|written| written.fitting(kind, version, &view.content));
    let visible = match written {
        Some(words) => {
            note.written.remove(&version);
            words
        }
        None => view.content,
    };
    note.hidden = hidden::hide(kind, version, &visible, view.fragments, &content, wrap);
    if !annotation::put(&mut object, note.text()) {
        let marker = Lossless {
            hidden: Some(hidden::too_large(kind, version, &visible)),
            ..Lossless::default()
        };
        annotation::put(&mut object, marker.text());
    }
    object.extend(visible);
    Ok(object)
}

/// Answers the API server's ConversionReview: every object converted, in the order of the
/// request, or the first failure with the object's name and none converted.
pub fn review(mut review: ConversionReview) -> ConversionReview {
    let Some(request) = review.request.take() else {
        let status = Status::failure("the ConversionReview holds no request", "BadRequest");
        let response = ConversionResponse::invalid(status);
        return answer(review, response);
    };
    let converted: Result<Vec<Value>, String> = request
        .objects
        .iter()
        .map(|object| one(object, &request.desired_api_version))
        .collect();
    let response = ConversionResponse::for_request(request);
    let response = match converted {
        Ok(objects) => response.success(objects),
        Err(message) => response.failure(Status::failure(&message, "ConversionFailed")),
    };
    answer(review, response)
}

/// One object of a review in another version, or why not, with the object's name.
///
/// # Errors
/// As [`convert`], with the object's kind and name before it.
pub fn one(object: &Value, to: &str) -> Result<Value, String> {
    convert(object, to).map_err(|error| format!("{}: {error}", name(object)))
}

fn answer(mut review: ConversionReview, response: ConversionResponse) -> ConversionReview {
    review.response = Some(response);
    review
}

fn name(object: &Value) -> String {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or("?").to_owned()
    };
    format!(
        "{} {}/{}",
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}

#[cfg(test)]
mod tests;
