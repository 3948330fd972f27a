//! Foresees what controllers refuse to revoke, as far as the user may read it: themselves, the
//! issuer in use, and what finds all places held by older Revocations.

use crds::smi::{ACCEPTED, RESOLVED_REFS};
use crds::weft::{GROUP, REVOCATIONS, VERSION};
use policy::revoked::{Held, MAX_OBJECTS, MAX_SUBJECTS};
use serde_json::Value;

use super::rotate;
use crate::cluster::Cluster;

/// What a controller would make of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Foreseen {
    Accepted,
    /// Why, behind the subject.
    Refused(String),
    /// What could not be looked at, and why.
    Unknown(String),
}

/// What controllers name the condition of an object that got no place.
const TOO_MANY: &str = "TooMany";

/// Of a subject as the spec has it, but for [`room`].
pub(super) async fn of(cluster: &Cluster, subject: &Value) -> Foreseen {
    if let Some(fingerprint) = subject["issuer"]["fingerprint"].as_str() {
        return issuer(cluster, fingerprint).await;
    }
    if subject["certificate"].is_object() {
        return Foreseen::Accepted;
    }
    control_plane(cluster, subject).await
}

/// Whether older Revocations leave it a place. A pod that is not there yet holds none, and is judged
/// as if it were: it has to have one when it comes.
pub(super) async fn room(cluster: &Cluster, subject: &Value) -> Foreseen {
    let path = format!("/apis/{GROUP}/{VERSION}/{REVOCATIONS}");
    let what = "the Revocations that are there";
    let unknown =
        |why: &str| Foreseen::Unknown(format!("whether older Revocations leave it a place: {why}"));
    let all = match cluster.try_read::<Value>(what, &path).await {
        Ok(all) => all,
        Err(refusal) => return unknown(&refusal.into_failure().to_string()),
    };
    let (mut surely, mut at_most) = (Held::default(), Held::default());
    for revocation in all["items"].as_array().into_iter().flatten() {
        add_places(revocation, &mut surely, &mut at_most);
    }
    let own = usize::from(!subject["node"].is_object());
    if !surely.leaves_room_for(own) {
        return Foreseen::Refused(format!(
            "has no place ({TOO_MANY}): {MAX_OBJECTS} Revocations may be in force, with \
             {MAX_SUBJECTS} accounts, pods, certificates and issuers; delete those whose \
             certificates have ended (kubectl get rev)"
        ));
    }
    match at_most.leaves_room_for(own) {
        true => Foreseen::Accepted,
        false => unknown("controllers have not judged all of them, or accept some in part"),
    }
}

/// Adds the places that one Revocation holds, as far as its status shows them.
fn add_places(revocation: &Value, surely: &mut Held, at_most: &mut Held) {
    let accepted = condition(revocation, ACCEPTED);
    if accepted.is_some_and(|one| one["status"] == "False" && one["reason"] == TOO_MANY) {
        return;
    }
    let subjects = revocation["spec"]["subjects"].as_array();
    let subjects = || subjects.into_iter().flatten();
    let named = subjects().filter(|one| !one["node"].is_object()).count();
    at_most.objects += 1;
    at_most.subjects += named;
    if accepted.is_none_or(|one| one["status"] != "True") {
        return;
    }
    // A pod that is not there yet holds no place.
    let lacks_some =
        condition(revocation, RESOLVED_REFS).is_some_and(|one| one["status"] != "True");
    let pods = subjects().filter(|one| one["pod"].is_object()).count();
    let here = if lacks_some { named - pods } else { named };
    if here > 0 || subjects().count() > named {
        surely.objects += 1;
        surely.subjects += here;
    }
}

fn condition<'a>(revocation: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = revocation["status"]["conditions"].as_array()?;
    conditions.iter().find(|one| one["type"] == kind)
}

async fn issuer(cluster: &Cluster, fingerprint: &str) -> Foreseen {
    let unknown = |why: String| {
        Foreseen::Unknown(format!("whether this issuer signs certificates now: {why}"))
    };
    let authority = match rotate::read(cluster).await {
        Ok(authority) => authority,
        Err(refusal) => return unknown(refusal.into_failure().to_string()),
    };
    let issuers = authority.status.unwrap_or_default().issuers;
    let named: Vec<&str> = issuers
        .iter()
        .filter_map(|issuer| issuer.authority.as_deref())
        .collect();
    if named.contains(&fingerprint) {
        let why = "signs the mesh's certificates now; replace it first (weft identity rotate \
                   --compromise)";
        return Foreseen::Refused(why.to_owned());
    }
    match named.is_empty() {
        true => unknown("no controller reports its issuer".to_owned()),
        false => Foreseen::Accepted,
    }
}

async fn control_plane(cluster: &Cluster, subject: &Value) -> Foreseen {
    let weft = cluster.weft_namespace();
    let what = format!("controllers' pods in namespace {weft}");
    let path = format!(
        "/api/v1/namespaces/{weft}/pods?labelSelector=app.kubernetes.io%2Fname%3Dweft%2C\
         app.kubernetes.io%2Fcomponent%3Dcontroller"
    );
    let unknown = |why: &str| {
        Foreseen::Unknown(format!(
            "whether it is the controllers' own account, pod or node: {why}"
        ))
    };
    let pods = match cluster.try_read::<Value>(&what, &path).await {
        Ok(pods) => pods,
        Err(refusal) => return unknown(&refusal.into_failure().to_string()),
    };
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    if pods.is_empty() {
        return unknown(&format!("there are no {what}"));
    }
    match pods.iter().any(|pod| is_about(subject, weft, pod)) {
        true => Foreseen::Refused(
            "is the controllers' account, pod or node; move or replace them first".to_owned(),
        ),
        false => Foreseen::Accepted,
    }
}

/// Whether a subject is about a controller's pod.
fn is_about(subject: &Value, weft: &str, pod: &Value) -> bool {
    let is = |named: &Value, own: &Value| {
        named["namespace"] == weft && named["name"].is_string() && named["name"] == *own
    };
    let node = &subject["node"]["name"];
    is(
        &subject["serviceAccount"],
        &pod["spec"]["serviceAccountName"],
    ) || is(&subject["pod"], &pod["metadata"]["name"])
        || (node.is_string() && *node == pod["spec"]["nodeName"])
}
