//! Writes the objects of a Gateway by server-side apply, and never one that was not made for it.
//!
//! An object is read before each write. One without our owner reference is left alone, whatever
//! made it. One that is missing is *created*, because an apply would take over what another client
//! makes in the same moment; one that is ours is applied for its uid. A create notes its fields as
//! those of an update, which no later apply could take away, so before the first apply that note
//! is written as one of an apply, as kubectl does when it moves to server-side apply.

use crds::item::Item;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::objects::{MANAGER, Part, Wanted, covers, is_left_behind, is_owned, object};
use crate::settings::gateways::GatewaySettings;

/// What was found, and done about it.
#[derive(Debug)]
pub(super) enum Applied {
    /// It was as it should be.
    Same { live: Value },
    /// It was written. `as_wanted`: as it was wanted, for the next comparison; none where it has
    /// to be applied once more.
    Written {
        live: Value,
        as_wanted: Option<Value>,
    },
    /// The name is another owner's.
    Taken,
    /// The object is going, and its successor can only be made then.
    Going,
}

/// Makes one object of a Gateway as it should be. `before`: as it was wanted when it was applied
/// last, if this process has applied it.
///
/// # Errors
/// When it cannot be read or written, also where another client writes at the same time.
pub(super) async fn apply(
    client: &Client,
    part: Part,
    name: &str,
    wanted: &Wanted,
    settings: &GatewaySettings,
    before: Option<&Value>,
) -> Result<Applied, kube::Error> {
    let namespace = &*wanted.gateway.namespace;
    let api: Api<Item<DynamicObject>> =
        Api::namespaced_with(client.clone(), namespace, &resource(part));
    let Some(live) = api.get_opt(name).await?.map(value) else {
        let object = object(part, name, wanted, settings, None);
        let live = create(client, part, namespace, object).await?;
        return Ok(Applied::Written {
            live,
            as_wanted: None,
        });
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
    if before == Some(&as_wanted) && covers(&live, &complete) {
        return Ok(Applied::Same { live });
    }
    if let Some(fields) = as_applied(&live) {
        let version = &live["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"resourceVersion": version, "managedFields": fields}});
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        api.patch(name, &params, &Patch::Merge(&patch)).await?;
    }
    // No other object of that name than the one that was judged.
    let uid = &live["metadata"]["uid"];
    if uid.is_string() {
        complete["metadata"]["uid"] = uid.clone();
    }
    let params = PatchParams::apply(MANAGER).force();
    let written = api.patch(name, &params, &Patch::Apply(&complete)).await?;
    Ok(Applied::Written {
        live: value(written),
        as_wanted: Some(as_wanted),
    })
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
    let api: Api<Item<DynamicObject>> =
        Api::namespaced_with(client.clone(), namespace, &resource(part));
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
