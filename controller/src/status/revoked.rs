//! The parts of the status that only Revocations have: the pods that their subjects mean, and the
//! Event and the log line once every proxy refuses them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use model::compiled::Compiled;
use model::revoked::FoundPods;
use policy::name::{Kind, ObjectRef};
use serde_json::{Value, json};
use tracing::info;

use super::conditions::{Status, Written, api_version};
use crate::apiserver::events::{About, Event, EventRecorder, EventType};

/// The pods that the subjects of an object mean; none of another kind.
pub(super) fn found(object: &ObjectRef, compiled: &Compiled) -> Vec<FoundPods> {
    match object.kind {
        Kind::Revocation => compiled.model.index.revocations.found(object).to_vec(),
        _ => Vec::new(),
    }
}

/// The field `status.subjects`; `None` leaves what is there. One of which nothing is in force for
/// now keeps the pods that it has meant.
pub(super) fn json(found: &[FoundPods]) -> Option<Value> {
    let subject = |one: &FoundPods| {
        let uids: Vec<&str> = one.uids.iter().map(AsRef::as_ref).collect();
        json!({"subject": &*one.subject, "podUids": uids})
    };
    (!found.is_empty()).then(|| found.iter().map(subject).collect())
}

/// Puts what is wrong with the subjects in front of how many proxies refuse them: the column MESSAGE
/// shows it.
pub(super) fn name_what_is_wrong(object: &ObjectRef, status: &mut Status) {
    let [accepted, resolved, (_, programmed)] = &mut status.conditions;
    let wrong = [accepted, resolved]
        .into_iter()
        .find(|(_, one)| !one.status);
    if object.kind == Kind::Revocation
        && let Some((_, wrong)) = wrong
    {
        programmed.message = format!("{}; {}", wrong.message, programmed.message);
    }
}

/// Reports that all proxies refuse what an object revokes, the first time. `stored`: the object as
/// it is now.
pub(super) fn report_in_force(
    events: &EventRecorder,
    (object, status): (&ObjectRef, &Status),
    before: Option<&Written>,
    stored: &DynamicObject,
) {
    let [.., (_, programmed)] = &status.conditions;
    let was = before.is_some_and(|before| before.programmed == Some(status.generation));
    if object.kind != Kind::Revocation || !programmed.status || was {
        return;
    }
    let reason = stored.data["spec"]["reason"].as_str().unwrap_or_default();
    let by = manager(&stored.metadata);
    let (name, subjects) = (&*object.name, status.summary.as_str());
    info!(target: "audit", name, subjects, reason, by, "revocation in force");
    events.record(Event {
        about: About {
            api_version: api_version(object.kind),
            kind: object.kind.word().to_owned(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            uid: status.uid.clone(),
        },
        event_type: EventType::Normal,
        reason: "RevocationInForce",
        action: "Revoke",
        text: format!(
            "{} refuse {subjects}, as written by {by}: {reason}",
            programmed.message
        ),
    });
}

/// What wrote the object last.
fn manager(metadata: &ObjectMeta) -> &str {
    let entries = metadata.managed_fields.iter().flatten();
    let whole = entries.filter(|entry| entry.subresource.is_none());
    let last = whole.max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    let manager = last.and_then(|entry| entry.manager.as_deref());
    manager.unwrap_or("an unknown client")
}
