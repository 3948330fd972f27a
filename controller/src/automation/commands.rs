//! Commands of users: the annotation `weft.dev/command: VERB@TIME` on a release or an experiment.
//!
//! A command is carried out once. It holds for [`FRESH`] around its time and must be later than
//! the last one in the status, so neither GitOps nor a restored backup repeats one. The status
//! records it before the annotation is removed: a replica that stops in between removes it later
//! and does nothing else.
//!
//! Its author in the history is the field manager of the annotation; the API server's audit log
//! names the user.

use std::time::Duration;

use crds::item::Item;
use crds::labels::COMMAND;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use runtime::backoff::Backoff;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::calls::{CallFailed, within};

/// A command is for now: clocks of workstations differ by less than this.
const FRESH: SignedDuration = SignedDuration::from_mins(2);
/// Pause after a removal that failed, doubled up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
/// What a refusing policy costs at most: a call in this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// Characters of an annotation that a message repeats.
const SHOWN: usize = 80;

/// A command to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// One of the verbs that were offered.
    pub verb: &'static str,
    /// The annotation as written; becomes `lastCommand` of the status.
    pub value: String,
    /// The field manager that wrote it, where the API server keeps that.
    pub by: Option<String>,
}

/// What is to be done about an annotation. Each of them ends with its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Carry it out, record it in the status, remove it.
    Do(Command),
    /// It was carried out before; only the removal is missing.
    Done,
    /// Record an Event `CommandIgnored` with this sentence, remove it.
    Ignored(String),
}

/// Reads the annotation of an object. `last` is `lastCommand` of its status.
pub(crate) fn read(
    meta: &ObjectMeta,
    last: Option<&str>,
    verbs: &[&'static str],
    now: Timestamp,
) -> Option<Request> {
    let value = meta.annotations.as_ref()?.get(COMMAND)?;
    Some(
        evaluate(value, last, verbs, now).map_or_else(Request::Ignored, |verb| {
            verb.map_or(Request::Done, |verb| {
                Request::Do(Command {
                    verb,
                    value: value.clone(),
                    by: manager(meta),
                })
            })
        }),
    )
}

/// The verb; none if it was carried out before.
fn evaluate(
    value: &str,
    last: Option<&str>,
    verbs: &[&'static str],
    now: Timestamp,
) -> Result<Option<&'static str>, String> {
    let shown: String = value.chars().take(SHOWN).collect();
    let refuse = |why: &str| Err(format!("annotation {COMMAND} is {shown:?}, {why}"));
    let Some((word, at)) = parse(value) else {
        return refuse(
            "but must be VERB@TIME such as resume@2026-11-29T14:00:00Z: use weft, or kubectl \
             annotate with the present time",
        );
    };
    let Some(verb) = verbs.iter().find(|verb| **verb == word) else {
        return refuse(&format!("but the verbs are {}", verbs.join(" ")));
    };
    if at.duration_since(now).abs() > FRESH {
        return refuse("and its time is more than 2 minutes from now: give the command anew");
    }
    match last {
        Some(last) if last == value => Ok(None),
        Some(last) if parse(last).is_some_and(|(_, last)| at <= last) => refuse(&format!(
            "and not later than the last command, {last}: give the command anew"
        )),
        _ => Ok(Some(verb)),
    }
}

fn parse(value: &str) -> Option<(&str, Timestamp)> {
    let (verb, at) = value.split_once('@')?;
    Some((verb, at.parse().ok()?))
}

/// The field manager that wrote the annotation last.
fn manager(meta: &ObjectMeta) -> Option<String> {
    let entries = meta.managed_fields.iter().flatten();
    let latest = entries
        .filter(|entry| owns_command(entry))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    latest.and_then(|entry| entry.manager.clone())
}

fn owns_command(entry: &ManagedFieldsEntry) -> bool {
    let field = entry.fields_v1.as_ref().map(|fields| {
        let annotations = &fields.0["f:metadata"]["f:annotations"];
        &annotations[format!("f:{COMMAND}").as_str()]
    });
    field.is_some_and(|field| !matches!(field, Value::Null))
}

/// Removals of the annotation of one object. A removal that failed is tried again with pauses: an
/// admission policy may refuse each of them.
#[derive(Debug)]
pub(super) struct Removals {
    pauses: Backoff,
    /// When the next try is due, after one that failed.
    due: Option<Instant>,
}

impl Default for Removals {
    fn default() -> Self {
        Self {
            pauses: Backoff::new(PAUSE, LONGEST_PAUSE),
            due: None,
        }
    }
}

impl Removals {
    /// Removes the annotation where that is due, if the object is still this version of it; else
    /// the next look reads it anew.
    ///
    /// # Errors
    /// When the API server refuses, or sends no answer in time.
    pub(super) async fn remove(
        &mut self,
        client: &Client,
        resource: &ApiResource,
        meta: &ObjectMeta,
    ) -> Result<(), CallFailed> {
        if self.due.is_some_and(|due| Instant::now() < due) {
            return Ok(());
        }
        let removed = remove(client, resource, meta).await;
        if removed.is_ok() {
            *self = Self::default();
        } else {
            self.due = Some(Instant::now() + self.pauses.next_delay());
        }
        removed
    }
}

async fn remove(
    client: &Client,
    resource: &ApiResource,
    meta: &ObjectMeta,
) -> Result<(), CallFailed> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let api: Api<Item<PartialObjectMeta<DynamicObject>>> =
        Api::namespaced_with(client.clone(), namespace, resource);
    let patch = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "annotations": {COMMAND: null},
    }});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    match within(api.patch(name, &params, &patch)).await {
        Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: [&str; 2] = ["pause", "resume"];
    const NOW: &str = "2026-11-29T14:00:00Z";

    fn annotated(value: &str) -> ObjectMeta {
        let fields = json!({"f:metadata": {"f:annotations": {".": {}, "f:weft.dev/command": {}}}});
        let meta = json!({
            "name": "web", "namespace": "shop",
            "annotations": {"weft.dev/command": value},
            "managedFields": [
                {"manager": "helm", "operation": "Update", "fieldsType": "FieldsV1",
                    "time": "2026-11-29T13:59:00Z", "fieldsV1": {"f:spec": {}}},
                {"manager": "weft-cli", "operation": "Update", "fieldsType": "FieldsV1",
                    "time": "2026-11-29T13:58:00Z", "fieldsV1": fields},
            ],
        });
        serde_json::from_value(meta).unwrap()
    }

    fn request(value: &str, last: Option<&str>) -> Option<Request> {
        read(&annotated(value), last, &VERBS, NOW.parse().unwrap())
    }

    fn ignored(value: &str, last: Option<&str>) -> String {
        match request(value, last) {
            Some(Request::Ignored(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn command_names_its_verb_and_its_field_manager() {
        let value = "resume@2026-11-29T13:59:30Z";
        let command = Command {
            verb: "resume",
            value: value.to_owned(),
            by: Some("weft-cli".to_owned()),
        };
        assert_eq!(request(value, None), Some(Request::Do(command.clone())));
        let before = "pause@2026-11-29T13:59:29Z";
        assert_eq!(request(value, Some(before)), Some(Request::Do(command)));
        let nothing = ObjectMeta::default();
        assert_eq!(read(&nothing, None, &VERBS, NOW.parse().unwrap()), None);
    }

    #[test]
    fn command_is_carried_out_once() {
        let value = "resume@2026-11-29T13:59:30Z";
        assert_eq!(request(value, Some(value)), Some(Request::Done));
        // Another one of the same or an earlier time is a replay.
        for last in ["pause@2026-11-29T13:59:30Z", "pause@2026-11-29T14:00:10Z"] {
            let why = ignored(value, Some(last));
            assert!(why.contains("not later than the last command"), "{why}");
        }
    }

    #[test]
    fn command_far_from_now_is_ignored() {
        for at in ["2026-11-29T13:57:59Z", "2026-11-29T14:02:01Z"] {
            let why = ignored(&format!("resume@{at}"), None);
            assert!(why.contains("more than 2 minutes from now"), "{why}");
        }
        // In another zone it is the same time.
        let zoned = request("resume@2026-11-29T15:01:59+01:00", None);
        assert!(matches!(zoned, Some(Request::Do(_))), "{zoned:?}");
    }

    #[test]
    fn what_is_no_command_is_ignored_with_reason() {
        for (value, part) in [
            ("resume", "must be VERB@TIME"),
            ("resume@soon", "must be VERB@TIME"),
            ("", "must be VERB@TIME"),
            ("explode@2026-11-29T14:00:00Z", "the verbs are pause resume"),
        ] {
            let why = ignored(value, None);
            assert!(why.contains(part), "{value}: {why}");
        }
    }
}
