//! Refuses SMI objects that could not mean anything, while their author looks on.
//!
//! The controller judges again, because this webhook may be away and objects may
//! be older than it. What does not exist yet is no mistake here: objects may
//! come in any order.

mod access;
mod binding;
mod mistakes;
mod specs;
mod split;

use crds::smi;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::review::{AdmissionResponse, Request};
use mistakes::{Mistake, Mistakes};

/// Most mistakes that one answer names.
const MOST_MISTAKES: usize = 10;

/// Characters of one mistake's field or reason that are told: both may quote values of
/// any length.
const LONGEST_TEXT: usize = 400;

/// The answer for one object.
pub(crate) fn validate(request: &Request) -> AdmissionResponse {
    if !concerns_us(request) {
        return AdmissionResponse::allow();
    }
    let mistakes = match find(request) {
        Ok(mistakes) => mistakes.0,
        Err(error) => {
            // A kind that is not ours reaches us only through a wrong selector.
            vec![Mistake {
                field: "the object".into(),
                reason: error.to_string(),
            }]
        }
    };
    if mistakes.is_empty() {
        return AdmissionResponse {
            warnings: doubts(request),
            ..AdmissionResponse::allow()
        };
    }
    let more = mistakes.len().saturating_sub(MOST_MISTAKES);
    let mut named: Vec<String> = mistakes
        .iter()
        .take(MOST_MISTAKES)
        .map(|mistake| format!("{}: {}", short(&mistake.field), short(&mistake.reason)))
        .collect();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    AdmissionResponse::refuse(format!(
        "{} {}/{} is invalid: {}",
        request.kind.kind,
        request.namespace,
        request.name,
        named.join("; ")
    ))
}

/// What can be meant, and hardly is.
fn doubts(request: &Request) -> Vec<String> {
    if request.kind.kind != "HTTPRouteGroup" {
        return Vec::new();
    }
    let spec = request.object.get("spec").unwrap_or(&Value::Null);
    let doubts = read(spec).map(|spec| specs::doubtful_methods(&spec));
    doubts.unwrap_or_default()
}

/// Whether this write changes what a user asked for. An object that was stored when it
/// was still valid, or while this webhook was away, must stay deletable, and its labels,
/// finalizers and status changeable.
fn concerns_us(request: &Request) -> bool {
    let asked = matches!(request.operation.as_str(), "CREATE" | "UPDATE");
    let itself = request.sub_resource.as_deref().is_none_or(str::is_empty);
    let spec_changed = request.old_object.is_null()
        || request.object.get("spec") != request.old_object.get("spec");
    let going = request
        .object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|t| !t.is_null());
    asked && itself && spec_changed && !going
}

fn find(request: &Request) -> Result<Mistakes, serde_json::Error> {
    let mut mistakes = Mistakes::default();
    let namespace = request.namespace.as_str();
    let spec = request.object.get("spec").unwrap_or(&Value::Null);
    match (request.kind.group.as_str(), request.kind.kind.as_str()) {
        (smi::SPLIT_GROUP, "TrafficSplit") => {
            split::check_weights(spec, &mut mistakes);
            if mistakes.0.is_empty() {
                split::check(&read(spec)?, namespace, &mut mistakes);
            }
        }
        (smi::ACCESS_GROUP, "TrafficTarget") => {
            access::check(&read(spec)?, namespace, &mut mistakes);
        }
        (smi::SPECS_GROUP, "HTTPRouteGroup") => specs::check_http(&read(spec)?, &mut mistakes),
        (smi::SPECS_GROUP, "TCPRoute") => specs::check_tcp(&read(spec)?, &mut mistakes),
        (smi::SPECS_GROUP, "UDPRoute") => specs::check_udp(&read(spec)?, &mut mistakes),
        (smi::ACCESS_GROUP, "IdentityBinding") => {
            binding::check(&read(spec)?, &mut mistakes);
        }
        (_, kind) => mistakes.add("kind", format!("{kind:?} is not a kind that Weft serves")),
    }
    Ok(mistakes)
}

fn read<T: DeserializeOwned + Default>(spec: &Value) -> Result<T, serde_json::Error> {
    if spec.is_null() {
        Ok(T::default())
    } else {
        T::deserialize(spec)
    }
}

/// The beginning of a long text.
fn short(text: &str) -> String {
    if text.chars().count() <= LONGEST_TEXT {
        return text.to_owned();
    }
    let begin: String = text.chars().take(LONGEST_TEXT).collect();
    format!("{begin}...")
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
