//! Checks whether a named object exists, and suggests the name that was probably meant.
//!
//! Every command ends alike if there is none: it is bad input, and the message has the nearest
//! existing name. This needs the API server's response; a user without the right to see the object
//! gets the command's own error.

use crds::observe::{LIVE, Resource, Scope};
use http::header::ACCEPT;
use serde::Deserialize;
use serde_json::Value;

use super::names::ResourceKind;
use super::nearest::{hint, nearest};
use super::{Cluster, Refusal};
use crate::failure::Failure;

/// Objects per request, as kubectl does.
pub(crate) const PAGE: usize = 500;
/// Pages that are searched for the nearest name; no user waits for all pages of a large cluster.
const PAGES: usize = 4;
/// Of each object its metadata alone.
pub(crate) const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<Item>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    /// The token of the next page.
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// An object of this name in the cluster's namespace; of several namespaces the first one. A name
/// outside the cluster has none.
///
/// # Errors
/// When the API server does not respond or refuses.
pub(crate) async fn read(
    cluster: &Cluster,
    kind: ResourceKind,
    name: &str,
) -> Result<Option<Value>, Failure> {
    let found = try_read(cluster, kind, name).await;
    found.map_err(Refusal::into_failure)
}

/// The same; the caller distinguishes what the user may not see from what is not known.
///
/// # Errors
/// When the API server does not respond or refuses.
pub(crate) async fn try_read(
    cluster: &Cluster,
    kind: ResourceKind,
    name: &str,
) -> Result<Option<Value>, Refusal> {
    let Some(collection) = kind.path(cluster.scope()) else {
        return Ok(None);
    };
    let path = match cluster.scope() {
        Some(_) => format!("{collection}/{name}"),
        None => format!("{collection}?fieldSelector=metadata.name%3D{name}"),
    };
    let what = format!("{kind} {name}");
    let found = match cluster.try_read::<Value>(&what, &path).await {
        Ok(found) => found,
        Err(refusal) if refusal.is_missing() => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    Ok(match cluster.scope() {
        Some(_) => Some(found),
        None => found["items"].get(0).cloned(),
    })
}

/// Why a request for an object was refused: there is no such object, or else the refusal's own
/// reason.
pub(crate) async fn or_absent(
    cluster: &Cluster,
    (kind, name): (ResourceKind, &str),
    refusal: Refusal,
) -> Failure {
    if refusal.is_missing()
        && let Ok(None) = read(cluster, kind, name).await
    {
        return absent(cluster, (kind, name), &[]).await;
    }
    refusal.into_failure()
}

/// The failure that there is no such object, or not even its namespace. `known` are existing names
/// of its kind; others are listed.
pub(crate) async fn absent(
    cluster: &Cluster,
    (kind, name): (ResourceKind, &str),
    known: &[&str],
) -> Failure {
    let mut meant = nearest(name, known.iter().copied()).map(str::to_owned);
    if meant.is_none() {
        let there = names(cluster, kind).await;
        // What holds an object is there.
        if known.is_empty()
            && there.is_empty()
            && let Err(wrong @ Failure::Usage(_)) = must_be_in_a_namespace(cluster).await
        {
            return wrong;
        }
        meant = near(kind, name, &there);
    }
    let meant = meant.map(|meant| format!("{}/{meant}", kind.short()));
    no_such(cluster, (kind, name), meant)
}

/// The nearest name of a kind that the API server has, as `KIND/NAME`.
pub(crate) async fn nearest_of(
    cluster: &Cluster,
    kind: ResourceKind,
    name: &str,
) -> Option<String> {
    let there = names(cluster, kind).await;
    let meant = near(kind, name, &there)?;
    Some(format!("{}/{meant}", kind.short()))
}

/// The nearest of these names of a kind. Of a pod many type what its workload is called, which
/// its own name begins with.
fn near(kind: ResourceKind, name: &str, there: &[String]) -> Option<String> {
    let all = there.iter().map(String::as_str);
    if let Some(meant) = nearest(name, all.clone()) {
        return Some(meant.to_owned());
    }
    if kind != ResourceKind::Pod {
        return None;
    }
    let meant = nearest(name, all.flat_map(beginnings))?;
    let pod = there
        .iter()
        .find(|pod| beginnings(pod).any(|beginning| beginning == meant));
    pod.cloned()
}

/// What a pod's workload may be called: its own name without the last part, or without two.
fn beginnings(pod: &str) -> impl Iterator<Item = &str> {
    let shorter = std::iter::successors(Some(pod), |name| {
        name.rsplit_once('-').map(|(beginning, _)| beginning)
    });
    shorter.skip(1).take(2)
}

/// The sentence of all commands for a name that does not exist. `edges` prints objects of other
/// namespaces as NAME.NAMESPACE; a user who types that gets the right notation.
#[must_use]
pub(crate) fn no_such(
    cluster: &Cluster,
    (kind, name): (ResourceKind, &str),
    meant: Option<String>,
) -> Failure {
    let scope = cluster.scope_label();
    let more = match (meant, name.rsplit_once('.')) {
        (None, Some((own, namespace))) if !own.is_empty() && !namespace.is_empty() => format!(
            "; for one of namespace {namespace} say {}/{own} with -n {namespace}, or of the end of \
             a call with --from-namespace or --to-namespace",
            kind.short()
        ),
        (meant, _) => hint(meant),
    };
    Failure::usage(format!("there is no {kind} {name} {scope}{more}"))
}

/// Ends if the cluster's namespace does not exist.
///
/// # Errors
/// When there is none, with the nearest existing name; and when the API server does not respond.
pub(crate) async fn must_be_in_a_namespace(cluster: &Cluster) -> Result<(), Failure> {
    match cluster.scope() {
        Some(namespace) => must_be_a_namespace(cluster, namespace).await,
        None => Ok(()),
    }
}

/// Ends where there is no namespace of this name.
///
/// # Errors
/// When there is none, with the nearest existing name; and when the API server does not respond.
pub(crate) async fn must_be_a_namespace(cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let what = format!("Namespace {name}");
    let path = format!("/api/v1/namespaces/{name}");
    match cluster.try_read::<Value>(&what, &path).await {
        Ok(_) => Ok(()),
        // A user may have rights in a namespace but none to the Namespace itself; then the command
        // reports that it found nothing.
        Err(refusal) if refusal.is_forbidden() => Ok(()),
        Err(refusal) if refusal.is_missing() => {
            let scope: Result<Scope, Failure> = cluster
                .observe(Resource::Scopes, None, Some(LIVE), "")
                .await;
            // Without a controller the API server may have them; without them the name is as wrong.
            let known = match scope {
                Ok(scope) => scope.namespaces,
                Err(_) => names_at(cluster, "/api/v1/namespaces").await,
            };
            let hint = hint(nearest(name, known.iter().map(String::as_str)));
            Err(Failure::usage(format!(
                "there is no namespace {name}{hint}"
            )))
        }
        Err(refusal) => Err(refusal.into_failure()),
    }
}

/// Ends if a namespace of Weft was named that does not exist. If that is not known, the command's
/// other requests report why.
///
/// # Errors
/// When there is none, with the nearest that there is.
pub(crate) async fn must_have_weft_namespace(cluster: &Cluster) -> Result<(), Failure> {
    if !cluster.is_weft_named() {
        return Ok(());
    }
    match must_be_a_namespace(cluster, cluster.weft_namespace()).await {
        Err(wrong @ Failure::Usage(_)) => Err(wrong),
        _ => Ok(()),
    }
}

/// Names of a kind, as many as are searched for a hint; none if they cannot be listed.
async fn names(cluster: &Cluster, kind: ResourceKind) -> Vec<String> {
    let Some(path) = kind.path(cluster.scope()) else {
        return Vec::new();
    };
    names_at(cluster, &path).await
}

/// The same of a collection at the API server.
pub(crate) async fn names_at(cluster: &Cluster, path: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    for _ in 0..PAGES {
        let Ok((names, rest)) = page(cluster, path, next.as_deref()).await else {
            break;
        };
        all.extend(names);
        if rest.is_none() {
            break;
        }
        next = rest;
    }
    all
}

/// Names of one page of a collection, and the token of the next one.
///
/// # Errors
/// When they cannot be listed.
pub(crate) async fn page(
    cluster: &Cluster,
    path: &str,
    from: Option<&str>,
) -> Result<(Vec<String>, Option<String>), Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &PAGE.to_string());
    if let Some(from) = from {
        query.append_pair("continue", from);
    }
    let request = http::Request::get(format!("{path}?{}", query.finish()))
        .header(ACCEPT, METADATA)
        .body(Vec::new())
        .map_err(|error| Failure::unknown(error.to_string()))?;
    let answer = cluster.try_request("names", request).await;
    let List { metadata, items } = answer.map_err(Refusal::into_failure)?;
    let names = items.into_iter().map(|item| item.metadata.name).collect();
    // Some servers mark the last page by an empty token.
    Ok((names, metadata.next.filter(|next| !next.is_empty())))
}
