//! Merges Weft's entries into the list `status.parents` of a route, beside the entries of other
//! controllers.
//!
//! Several controllers write the list `status.parents`, and the API server replaces it as a whole.
//! So the list that is there is the start: entries of others stay as they are and where they are,
//! and ours are changed, added or taken out.

use serde_json::{Value, json};

use super::{ConditionType, OUR_CONTROLLERS};
use crate::parents::ParentRef;

/// Entries that the API lets a list have.
const MOST_PARENTS: usize = 32;
/// Conditions that the API lets an entry have.
const MOST_CONDITIONS: usize = 8;
/// Characters that the API lets a message have.
const LONGEST_MESSAGE: usize = 32_768;

/// One condition as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which one.
    pub kind: ConditionType,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: String,
    /// One or more sentences.
    pub message: String,
}

/// What is reported of a route as one of its parents sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// [`super::MESH_CONTROLLER`] or [`super::GATEWAY_CONTROLLER`].
    pub controller: &'static str,
    /// The parent.
    pub parent: ParentRef,
    /// In the order in which they are to be written.
    pub conditions: Vec<Condition>,
}

/// The object whose status it is, as the API server returned it with that status.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its generation at the API server.
    pub generation: i64,
}

/// What `status.parents` should be: `now` with our entries as in `ours`. `None` if it is that
/// already. `seen` is the generation of the object that `ours` is about, `time` the current time in
/// RFC 3339.
///
/// An entry of ours about a newer generation than `seen` stays: another replica has written it.
#[must_use]
pub fn merge(
    now: &[Value],
    owner: Owner<'_>,
    ours: &[ParentStatus],
    seen: i64,
    time: &str,
) -> Option<Vec<Value>> {
    let mut left = distinct(ours);
    let mut next = Vec::with_capacity(now.len() + left.len());
    for entry in now {
        let controller = entry.get("controllerName").and_then(Value::as_str);
        if !controller.is_some_and(|name| OUR_CONTROLLERS.contains(&name)) {
            next.push(entry.clone());
            continue;
        }
        let parent = entry.get("parentRef");
        let parent = parent.and_then(|written| ParentRef::read(written, owner.namespace));
        let at = left.iter().position(|one| {
            let same = parent
                .as_ref()
                .is_some_and(|parent| parent.means(&one.parent));
            same && controller == Some(one.controller)
        });
        // Else the object has no such reference any more, or it is there twice.
        if let Some(at) = at {
            next.push(entry_of(
                left.remove(at),
                entry,
                owner.generation,
                seen,
                time,
            ));
        }
    }
    let room = MOST_PARENTS.saturating_sub(next.len());
    for one in left.into_iter().take(room) {
        let fresh = json!({"parentRef": one.parent.written, "controllerName": one.controller});
        next.push(entry_of(one, &fresh, owner.generation, seen, time));
    }
    (next != now).then_some(next)
}

/// One for each controller and parent: the first.
fn distinct(ours: &[ParentStatus]) -> Vec<&ParentStatus> {
    let mut distinct: Vec<&ParentStatus> = Vec::new();
    for one in ours {
        let same = |known: &&ParentStatus| {
            known.controller == one.controller && known.parent.means(&one.parent)
        };
        if !distinct.iter().any(same) {
            distinct.push(one);
        }
    }
    distinct
}

/// The entry with our conditions as they are to be. Conditions of types that are not ours stay,
/// and all stay in their order.
fn entry_of(one: &ParentStatus, entry: &Value, generation: i64, seen: i64, time: &str) -> Value {
    let now = entry.get("conditions").and_then(Value::as_array);
    let now: &[Value] = now.map_or(&[], Vec::as_slice);
    let about = |condition: &Value| condition.get("observedGeneration").and_then(Value::as_i64);
    // None was seen beyond the generation of the object itself.
    let is_newer = |condition: &Value| {
        let about = about(condition).filter(|_| is_ours(condition));
        about.is_some_and(|about| about > seen && about <= generation)
    };
    if now.iter().any(is_newer) {
        return entry.clone();
    }
    let mut left: Vec<&Condition> = one.conditions.iter().collect();
    let mut foreign = MOST_CONDITIONS.saturating_sub(left.len());
    let mut next = Vec::with_capacity(MOST_CONDITIONS);
    for condition in now {
        if !is_ours(condition) {
            if foreign > 0 {
                foreign -= 1;
                next.push(condition.clone());
            }
            continue;
        }
        let at = left
            .iter()
            .position(|ours| kind(condition) == Some(ours.kind.as_str()));
        if let Some(at) = at {
            next.push(written(left.remove(at), Some(condition), seen, time));
        }
    }
    next.extend(left.into_iter().map(|ours| written(ours, None, seen, time)));
    let mut entry = entry.clone();
    if let Some(fields) = entry.as_object_mut() {
        fields.insert("conditions".to_owned(), Value::Array(next));
    }
    entry
}

fn kind(condition: &Value) -> Option<&str> {
    condition.get("type").and_then(Value::as_str)
}

/// Whether Weft alone writes conditions of this type in its entries.
fn is_ours(condition: &Value) -> bool {
    kind(condition).is_some_and(|kind| {
        let mut ours = ConditionType::ALL.iter();
        ours.any(|ours| ours.as_str() == kind) || kind.starts_with("weft.dev/")
    })
}

/// A condition as it is stored. The time is that of the last change of its status.
fn written(ours: &Condition, before: Option<&Value>, seen: i64, time: &str) -> Value {
    let before = before.filter(|before| {
        let status = before.get("status").and_then(Value::as_str);
        status == Some(ours.status)
    });
    let since = before.and_then(|before| before.get("lastTransitionTime"));
    let since = since.and_then(Value::as_str).unwrap_or(time);
    let message: String = ours.message.chars().take(LONGEST_MESSAGE).collect();
    json!({
        "type": ours.kind.as_str(),
        "status": ours.status,
        "observedGeneration": seen,
        "lastTransitionTime": since,
        "reason": ours.reason,
        "message": message,
    })
}

#[cfg(test)]
mod tests;
