//! Writes the objects of a Gateway by server-side apply, and never one that was not made for it.
//!
//! An object is read before each write. One without our owner reference is left alone, whatever
//! made it. One that is missing is *created*, because an apply would take over what another client
//! makes in the same moment; one that is ours is applied for its uid. A create notes its fields as
//! those of an update, which no later apply could take away, so before the first apply that note
//! is written as one of an apply, as kubectl does when it moves to server-side apply.
//!
//! An apply leaves what others have added. Where that must go a merge patch removes it. What comes
//! again and again, by a webhook or another controller, is removed less often: else both would write
//! for ever, and pods be made anew each time.

use std::time::Duration;

use crds::item::Item;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::compare::{Additions, additions, covers};
use super::objects::{MANAGER, Part, Wanted, is_left_behind, is_owned, object};
use crate::settings::gateways::GatewaySettings;

/// How often in a row the same additions are removed at once: more often than a person repeats an
/// edit.
const AT_ONCE: u32 = 5;
/// Until they are removed again then.
const LATER: Duration = Duration::from_secs(3600);

type Objects = Api<Item<DynamicObject>>;

/// What was found, and done about it.
#[derive(Debug)]
pub(super) enum Applied {
    /// It was as it should be.
    Same { live: Value },
    /// It was written.
    Written { live: Value },
    /// The name is another owner's.
    Taken,
    /// The object is going, and its successor can only be made then.
    Going,
}

/// What is known of one object between two looks.
#[derive(Debug, Default)]
pub(super) struct History {
    /// As it was wanted when this process applied it last.
    applied: Option<Value>,
    removed: Option<Removal>,
    /// Fields with additions that are left for a while.
    left: Vec<String>,
}

/// What was removed last.
#[derive(Debug)]
struct Removal {
    additions: Additions,
    /// In a row.
    times: u32,
    at: Instant,
}

impl History {
    /// What others have added, and is not removed for now because it came again and again.
    pub(super) fn left(&self) -> Option<String> {
        (!self.left.is_empty()).then(|| self.left.join(", "))
    }

    fn is_due(&self, additions: &Additions, now: Instant) -> bool {
        self.removed.as_ref().is_none_or(|last| {
            last.additions != *additions || last.times < AT_ONCE || now >= last.at + LATER
        })
    }

    fn removed(&mut self, additions: Additions, now: Instant) {
        let before = self.removed.take();
        let before = before.filter(|last| last.additions == additions);
        let times = before.map_or(0, |last| last.times).saturating_add(1);
        self.removed = Some(Removal {
            additions,
            times,
            at: now,
        });
    }

    /// The answer to the removal has them still: it is no use to do that again soon.
    fn kept(&mut self, additions: Additions, now: Instant) {
        self.left.clone_from(&additions.fields);
        self.removed = Some(Removal {
            additions,
            times: AT_ONCE,
            at: now,
        });
    }
}

/// Makes one object of a Gateway as it should be.
///
/// # Errors
/// When it cannot be read or written, also where another client writes at the same time.
pub(super) async fn apply(
    client: &Client,
    part: Part,
    name: &str,
    wanted: &Wanted,
    settings: &GatewaySettings,
    history: &mut History,
) -> Result<Applied, kube::Error> {
    let namespace = &*wanted.gateway.namespace;
    let api: Objects = Api::namespaced_with(client.clone(), namespace, &resource(part));
    let Some(live) = api.get_opt(name).await?.map(value) else {
        // It has to be applied once more.
        *history = History::default();
        let object = object(part, name, wanted, settings, None);
        let live = create(client, part, namespace, object).await?;
        return Ok(Applied::Written { live });
    };
    if !is_owned(&live, &wanted.uid) {
        let goes = is_left_behind(&live, wanted);
        return Ok(if goes { Applied::Going } else { Applied::Taken });
    }
    if !live["metadata"]["deletionTimestamp"].is_null() {
        return Ok(Applied::Going);
    }
    let as_wanted = object(part, name, wanted, settings, None);
    let mut complete = object(part, name, wanted, settings, live["spec"].get("replicas"));
    if history.applied.as_ref() == Some(&as_wanted) && covers(&live, &complete) {
        return clean(&api, (part, name), live, &complete, history).await;
    }
    let live = noted_as_applied(&api, name, live).await?;
    // No other object of that name than the one that was judged.
    let uid = &live["metadata"]["uid"];
    if uid.is_string() {
        complete["metadata"]["uid"] = uid.clone();
    }
    let (params, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(&complete));
    let written = match api.patch(name, &params, &patch).await {
        // With an addition it may be invalid, such as a volume of two sources.
        Err(kube::Error::Api(status))
            if status.code == 422 && additions(part, &live, &complete).is_some() =>
        {
            clean(&api, (part, name), live, &complete, history).await?;
            api.patch(name, &params, &patch).await?
        }
        outcome => outcome?,
    };
    history.applied = Some(as_wanted);
    let cleaned = clean(&api, (part, name), value(written), &complete, history).await?;
    Ok(match cleaned {
        Applied::Same { live } => Applied::Written { live },
        cleaned => cleaned,
    })
}

/// Removes what others have added and must not, of an object that is applied.
async fn clean(
    api: &Objects,
    (part, name): (Part, &str),
    live: Value,
    wanted: &Value,
    history: &mut History,
) -> Result<Applied, kube::Error> {
    history.left.clear();
    let Some(added) = additions(part, &live, wanted) else {
        return Ok(Applied::Same { live });
    };
    let now = Instant::now();
    if !history.is_due(&added, now) {
        history.left = added.fields;
        return Ok(Applied::Same { live });
    }
    let mut patch = added.patch.clone();
    // What was compared is what is written over.
    let version = &live["metadata"]["resourceVersion"];
    patch["metadata"] = json!({"resourceVersion": version});
    let outcome = api.patch(name, &as_manager(), &Patch::Merge(&patch)).await;
    if outcome.as_ref().err().is_none_or(is_refusal) {
        history.removed(added, now);
    }
    let live = value(outcome?);
    if let Some(added) = additions(part, &live, wanted) {
        history.kept(added, now);
    }
    Ok(Applied::Written { live })
}

/// Whether the API server has decided so, and will again: neither it nor what it calls has failed, and
/// no other client was in the way.
pub(super) fn is_refusal(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            !status.is_conflict() && status.code != 429 && (400..500).contains(&status.code)
        }
        _ => false,
    }
}

/// The message of an error, for people: the rest of what the API server answers repeats it.
pub(super) fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => {
            format!("the API server answers {} {}", status.code, status.reason)
        }
        other => other.to_string(),
    }
}

/// Takes an object away that was made for the Gateway of this uid.
///
/// # Errors
/// When it cannot be read or deleted.
pub(super) async fn remove(
    client: &Client,
    part: Part,
    (namespace, name): (&str, &str),
    gateway: &str,
) -> Result<(), kube::Error> {
    let api: Objects = Api::namespaced_with(client.clone(), namespace, &resource(part));
    let live = api.get_opt(name).await?.map(value);
    let Some(live) = live.filter(|live| is_owned(live, gateway)) else {
        return Ok(());
    };
    // No other object of that name than the one that was judged.
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: live["metadata"]["uid"].as_str().map(str::to_owned),
        resource_version: None,
    });
    match api.delete(name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

/// The object with its notes about who wrote which field as an apply needs them.
async fn noted_as_applied(api: &Objects, name: &str, live: Value) -> Result<Value, kube::Error> {
    let Some(fields) = as_applied(&live) else {
        return Ok(live);
    };
    let version = &live["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version, "managedFields": fields}});
    let written = api
        .patch(name, &as_manager(), &Patch::Merge(&patch))
        .await?;
    Ok(value(written))
}

fn as_manager() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// The notes of an object about who wrote which field, with ours as that of an apply; none where
/// it is that already.
fn as_applied(live: &Value) -> Option<Vec<Value>> {
    let entries = live["metadata"]["managedFields"].as_array()?;
    let is_ours = |entry: &Value, operation: &str| {
        entry["manager"] == MANAGER
            && entry["operation"] == operation
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
    };
    if entries.iter().any(|entry| is_ours(entry, "Apply")) {
        return None;
    }
    let mut all = entries.clone();
    let ours = all.iter_mut().find(|entry| is_ours(entry, "Update"))?;
    ours["operation"] = json!("Apply");
    Some(all)
}

async fn create(
    client: &Client,
    part: Part,
    namespace: &str,
    object: Value,
) -> Result<Value, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource(part));
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let created = api.create(&params, &object).await?;
    serde_json::to_value(created).map_err(kube::Error::SerdeError)
}

/// What cannot be read counts as an object without an owner: it is left alone.
fn value(Item(object): Item<DynamicObject>) -> Value {
    let object = object.ok().map(serde_json::to_value);
    object.and_then(Result::ok).unwrap_or_default()
}

fn resource(part: Part) -> ApiResource {
    let kind = GroupVersionKind::gvk(part.group(), "v1", part.kind());
    ApiResource::from_gvk_with_plural(&kind, part.plural())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_fields_become_applied_ones_once() {
        let entry = |manager: &str, operation: &str, subresource: &str| json!({"manager": manager, "operation": operation, "subresource": subresource});
        let object = |entries: Value| json!({"metadata": {"managedFields": entries}});
        let status = entry(MANAGER, "Update", "status");
        let other = entry("kubectl", "Update", "");
        let created = json!([status, other, entry(MANAGER, "Update", "")]);
        let expected = vec![status.clone(), other.clone(), entry(MANAGER, "Apply", "")];
        assert_eq!(as_applied(&object(created)), Some(expected.clone()));
        assert_eq!(as_applied(&object(json!(expected))), None);
        assert_eq!(as_applied(&object(json!([status, other]))), None);
        assert_eq!(as_applied(&json!({"metadata": {}})), None);
    }
}
