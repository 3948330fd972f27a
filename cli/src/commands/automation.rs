//! What `weft release` and `weft fault` share: they read an object, give it a command, and show what
//! its checks counted.
//!
//! A command is an annotation with a time: the controller carries it out once and removes it, and a
//! copy of the object repeats nothing.

use std::fmt::Debug;
use std::time::SystemTime;

use crds::labels::COMMAND;
use crds::smi::{ACCEPTED, RESOLVED_REFS};
use crds::weft::CheckCounts;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::names::ResourceKind;
use crate::cluster::{Cluster, existing};
use crate::failure::Failure;
use crate::output::number;

/// The field manager of commands, which the history of the object names.
const MANAGER: &str = "weft";

/// # Errors
/// When there is no such object, or the API server does not respond or refuses.
pub(super) async fn read(
    cluster: &Cluster,
    (kind, name): (ResourceKind, &str),
) -> Result<Value, Failure> {
    match existing::read(cluster, kind, name).await? {
        Some(object) => Ok(object),
        None => Err(existing::absent(cluster, (kind, name), &[]).await),
    }
}

/// Writes the annotation of a command. `last`: the last one that was carried out, as the status has
/// it.
///
/// # Errors
/// As [`read`].
pub(super) async fn command<K>(
    cluster: &Cluster,
    (kind, name): (ResourceKind, &str),
    verb: &str,
    last: Option<&str>,
    now: SystemTime,
) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let at = later_than(last, cluster.now(now))
        .ok_or_else(|| Failure::unknown("the cluster's clock has a time that cannot be written"))?;
    let patch = json!({"metadata": {"annotations": {COMMAND: format!("{verb}@{at}")}}});
    let objects: Api<K> = Api::namespaced(cluster.client(), cluster.namespace());
    let what = format!("{kind} {}/{name}", cluster.namespace());
    let (parameters, patch) = (written_by_user(), Patch::Merge(&patch));
    let patched = cluster.try_call(&what, objects.patch(name, &parameters, &patch));
    match patched.await {
        Ok(_) => Ok(()),
        Err(refusal) => Err(existing::or_absent(cluster, (kind, name), refusal).await),
    }
}

pub(super) fn written_by_user() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// The time of a command that is given now: later than the last one, which may be of the same
/// second.
fn later_than(last: Option<&str>, now: SystemTime) -> Option<Timestamp> {
    let now = Timestamp::try_from(now).ok()?;
    let last = last.and_then(|last| last.split_once('@')?.1.parse::<Timestamp>().ok());
    let after = last.and_then(|last| last.checked_add(SignedDuration::from_millis(1)).ok());
    Some(after.map_or(now, |after| now.max(after)))
}

/// Conditions by which an object has no effect, or not the one that was asked for.
pub(super) fn refused(conditions: &[Condition]) -> impl Iterator<Item = &Condition> {
    let refused = conditions.iter().filter(|one| one.status == "False");
    refused.filter(|one| [ACCEPTED, RESOLVED_REFS].contains(&one.type_.as_str()))
}

/// `11/9120 0.12%`
pub(super) fn counts(counts: Option<CheckCounts>) -> String {
    match counts {
        None => String::new(),
        Some(CheckCounts { requests, bad }) if requests <= 0 => format!("{bad}/{requests}"),
        Some(CheckCounts { requests, bad }) => {
            let share = number::percent(bad as f64 / requests as f64);
            format!("{bad}/{requests} {share}")
        }
    }
}
