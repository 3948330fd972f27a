//! Foresees what controllers refuse to revoke, as far as the user may read it: themselves, and the
//! issuer in use.

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

/// Of a subject as the spec has it.
pub(super) async fn of(cluster: &Cluster, subject: &Value) -> Foreseen {
    if let Some(fingerprint) = subject["issuer"]["fingerprint"].as_str() {
        return issuer(cluster, fingerprint).await;
    }
    if subject["certificate"].is_object() {
        return Foreseen::Accepted;
    }
    control_plane(cluster, subject).await
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
