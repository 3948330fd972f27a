//! Finds the object that a name without a kind means, if only one has that name.
//!
//! Claims: observe-31

use futures::future::join_all;
use serde_json::Value;

use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::nearest::hint;
use crate::cluster::{Cluster, Refusal, existing};
use crate::console::Console;
use crate::failure::Failure;
use crate::traffic::known;

/// A caller without a proxy.
pub(super) const OUTSIDE: &str = "outside";
/// What runs by a name of its own. A Service is called by its name, whatever serves it, and
/// comes first.
const MEANT: [ResourceKind; 6] = [
    ResourceKind::Service,
    ResourceKind::Deployment,
    ResourceKind::StatefulSet,
    ResourceKind::DaemonSet,
    ResourceKind::Job,
    ResourceKind::CronJob,
];
/// Letters of a name, as Kubernetes has them.
const LONGEST: usize = 253;

/// What was typed, or an equivalent for validation alone, if the cluster is to find out what it
/// names.
pub(super) fn readable<'t>(text: &'t str, allowed: &[ResourceKind]) -> &'t str {
    match is_bare(text, allowed) {
        true => "deploy/any",
        false => text,
    }
}

/// The same with the kind of what it names, as `KIND/NAME[:PORT]`; the chosen kind is printed.
///
/// # Errors
/// When there is nothing of this name in the cluster's namespace, or more than one thing, and
/// when the cluster does not respond.
pub(super) async fn named(
    cluster: &Cluster,
    text: &str,
    allowed: &[ResourceKind],
    console: &mut Console<'_>,
) -> Result<String, Failure> {
    if !is_bare(text, allowed) {
        return Ok(text.to_owned());
    }
    let name = text.split(':').next().unwrap_or_default();
    let kinds = MEANT.into_iter().filter(|kind| allowed.contains(kind));
    let kinds: Vec<ResourceKind> = kinds.collect();
    let reads = kinds.iter().map(|kind| async move {
        let found = exists(cluster, *kind, name).await;
        (*kind, found)
    });
    let (mut there, mut unseen) = (Vec::new(), None);
    for (kind, found) in join_all(reads).await {
        match found {
            Ok(true) => there.push(kind),
            Ok(false) => {}
            // What comes after is not meant where this may be.
            Err(refusal) if there.is_empty() => unseen = unseen.or(Some(refusal)),
            Err(_) => {}
        }
    }
    if there.first() == Some(&ResourceKind::Service) {
        there.truncate(1);
    }
    match (there.as_slice(), unseen) {
        (_, Some(refusal)) => Err(refusal.into_failure()),
        ([kind], None) => {
            let meant = format!("{}/{text}", kind.short());
            let place = cluster.namespace();
            console.word(&format!("{text} is taken for {meant} of namespace {place}"))?;
            Ok(meant)
        }
        ([], None) => Err(absent(cluster, (text, name), allowed, &kinds).await),
        (several, None) => {
            let several = several.iter();
            let names: Vec<String> = several
                .map(|kind| format!("{}/{text}", kind.short()))
                .collect();
            Err(Failure::usage(format!(
                "{text:?} names several: say one of {}",
                names.join(", ")
            )))
        }
    }
}

/// Whether it is a name, with a port or without, that only the cluster knows.
fn is_bare(text: &str, allowed: &[ResourceKind]) -> bool {
    let (name, port) = text.split_once(':').unwrap_or((text, "1"));
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    text != OUTSIDE
        && Named::read(text, allowed).is_err()
        && (1..=LONGEST).contains(&name.len())
        && name.bytes().all(letters)
        // Else a part of a path would be another one.
        && !name.starts_with('.')
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

async fn exists(cluster: &Cluster, kind: ResourceKind, name: &str) -> Result<bool, Refusal> {
    let collection = kind.path(Some(cluster.namespace())).unwrap_or_default();
    let what = format!("{kind} {name}");
    let read = cluster
        .try_read::<Value>(&what, &format!("{collection}/{name}"))
        .await;
    match read {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.is_missing() => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// What is wrong with it as `KIND/NAME`, and what else may be meant.
async fn absent(
    cluster: &Cluster,
    (text, name): (&str, &str),
    allowed: &[ResourceKind],
    kinds: &[ResourceKind],
) -> Failure {
    let near = known::nearest_of(cluster, kinds, name).await;
    if near.is_none()
        && let Err(wrong @ Failure::Usage(_)) = existing::must_be_in_a_namespace(cluster).await
    {
        return wrong;
    }
    let hint = hint(near.map(|(kind, name)| format!("{}/{name}", kind.short())));
    match Named::read(text, allowed) {
        Err(Failure::Usage(words)) => Failure::usage(format!(
            "{words}; nothing that runs in namespace {} has this name{hint}",
            cluster.namespace()
        )),
        Err(failure) => failure,
        Ok(_) => Failure::usage(format!("say which one: {text}/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &[ResourceKind] = &[ResourceKind::Deployment];
    const TO: &[ResourceKind] = &[ResourceKind::Service, ResourceKind::Deployment];

    #[test]
    fn bare_names_differ_from_kinds_and_invalid_names() {
        for text in ["web", "cart-v1", "cart:8080", "api.v2", "7"] {
            assert!(is_bare(text, TO), "{text}");
            assert_eq!(readable(text, TO), "deploy/any");
        }
        for text in [
            "outside",
            "svc",
            "deploy",
            "svc/cart",
            "deplyo/web",
            "",
            "..",
            "cart:http",
            "cart:0",
            "cart:",
            "a b",
            "a?b",
            "a/../b",
            "a:1:2",
        ] {
            assert!(!is_bare(text, TO), "{text}");
            assert_eq!(readable(text, TO), text);
        }
        assert!(is_bare("svc", FROM), "what does not call is no kind here");
    }
}
