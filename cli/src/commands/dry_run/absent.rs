//! Errors of a change that names missing objects. Objects of its own files count as existing.
//!
//! Claims: observe-43

use std::collections::BTreeSet;

use crds::observe::{Deleted, DryRunSpec, DryRunStatus};
use serde_json::Value;

use super::collected::CollectedChange;
use crate::cluster::nearest::{hint, nearest};
use crate::cluster::{Cluster, Refusal, existing};
use crate::failure::Failure;
use crate::kinds;

/// The API's message for every name that does not exist. It names no other object: a user who may
/// make a change may not see all objects.
const NOT_THERE: &str = ": there is no ";

/// Ends where objects would be put into a namespace that is not there, of which the API warns: no
/// `kubectl apply` would take them.
///
/// # Errors
/// With the nearest namespace that there is.
pub(super) async fn must_have_namespaces(
    cluster: &Cluster,
    collected: &CollectedChange,
    status: &DryRunStatus,
) -> Result<(), Failure> {
    let objects = collected.spec.objects.iter();
    let namespaces = objects.filter_map(|object| object["metadata"]["namespace"].as_str());
    let mut namespaces: BTreeSet<&str> = namespaces.collect();
    namespaces.retain(|namespace| !collected.namespaces.contains_key(*namespace));
    for namespace in namespaces {
        let warning = format!("there is no namespace {namespace}: ");
        let mut warnings = status.warnings.iter();
        // It may have been made meanwhile, or be one that the user may not see.
        if warnings.any(|warning_text| warning_text.starts_with(&warning))
            && let Err(wrong @ Failure::Usage(_)) =
                existing::must_be_a_namespace(cluster, namespace).await
        {
            return Err(wrong);
        }
    }
    Ok(())
}

/// Of a refused change, the namespaces whose modes it sets and that its own files are yet to
/// create.
pub(super) async fn yet_to_be_made(
    cluster: &Cluster,
    collected: &CollectedChange,
    refusal: &Refusal,
) -> Vec<String> {
    let mut new = Vec::new();
    if !is_of_a_name(refusal) {
        return new;
    }
    let modes = collected.spec.access.iter();
    let mut names: BTreeSet<&String> = modes.map(|change| &change.namespace).collect();
    names.retain(|name| collected.namespaces.contains_key(*name));
    for name in names {
        let there = existing::must_be_a_namespace(cluster, name).await;
        if matches!(there, Err(Failure::Usage(_))) {
            new.push(name.clone());
        }
    }
    new
}

/// Whether it is about a name that does not exist.
fn is_of_a_name(refusal: &Refusal) -> bool {
    refusal.code() == Some(400) && refusal.message().contains(NOT_THERE)
}

/// Of a refused change: the first of its names that does not exist, with the nearest that the user
/// may see, or else the refusal's own reason.
pub(super) async fn or_refused(cluster: &Cluster, spec: &DryRunSpec, refusal: Refusal) -> Failure {
    if !is_of_a_name(&refusal) {
        return refusal.into_failure();
    }
    for gone in &spec.delete {
        if let Some(wrong) = deleted(cluster, gone).await {
            return wrong;
        }
    }
    for change in &spec.access {
        let there = existing::must_be_a_namespace(cluster, &change.namespace).await;
        if let Err(wrong @ Failure::Usage(_)) = there {
            return wrong;
        }
    }
    refusal.into_failure()
}

/// The failure that an object to be deleted does not exist; none if it exists or that is not known.
async fn deleted(cluster: &Cluster, gone: &Deleted) -> Option<Failure> {
    let Deleted {
        kind,
        namespace,
        name,
    } = gone;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if !name.bytes().all(letters) {
        return None;
    }
    let mut all = kinds::all().into_iter().chain(kinds::of_gateway_api());
    let known = all.find(|known| known.known.as_str() == kind)?;
    let what = format!("{kind} {namespace}/{name}");
    let mut there = Vec::new();
    for collection in known.collections(namespace) {
        let path = format!("{collection}/{name}");
        let refusal = cluster.try_read::<Value>(&what, &path).await.err()?;
        if !refusal.is_missing() {
            return None;
        }
        there.extend(existing::names_at(cluster, &collection).await);
    }
    // What holds an object is there.
    if there.is_empty()
        && let Err(wrong @ Failure::Usage(_)) =
            existing::must_be_a_namespace(cluster, namespace).await
    {
        return Some(wrong);
    }
    let meant = nearest(name, there.iter().map(String::as_str));
    let hint = hint(meant.map(|meant| format!("{kind}/{meant}")));
    Some(Failure::usage(format!(
        "there is no {kind} {name} in namespace {namespace}{hint}"
    )))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use crds::observe::AccessChange;
    use fake_api::FakeApi;
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::args::Cli;

    #[tokio::test]
    async fn unknown_dry_run_name_suggests_nearest_visible_name() {
        let api = FakeApi::default();
        let targets = "/apis/access.smi-spec.io/v1alpha4/namespaces/shop/traffictargets";
        let read = json!({"metadata": {"name": "read", "namespace": "shop"}});
        api.put(&format!("{targets}/read"), read);
        let scopes = "/apis/observe.weft.dev/v1alpha1/scopes/live";
        api.put(scopes, json!({"namespaces": ["shop"]}));
        let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
        let cluster = Cluster::of(api.client(), &global);
        let gone_of = |namespace: &str, name: &str| DryRunSpec {
            delete: vec![Deleted {
                kind: "TrafficTarget".to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }],
            ..DryRunSpec::default()
        };
        let gone = |name: &str| gone_of("shop", name);
        let closed = DryRunSpec {
            access: vec![AccessChange {
                namespace: "shpo".to_owned(),
                mode: "deny".to_owned(),
            }],
            ..DryRunSpec::default()
        };
        let warning_text = "spec.delete[0]: there is no TrafficTarget shop/raed";
        for (spec, code, message, expected) in [
            (
                gone("raed"),
                400,
                warning_text,
                "there is no TrafficTarget raed in namespace shop; you may mean TrafficTarget/read",
            ),
            (
                closed,
                400,
                "spec.access[0].namespace: there is no namespace shpo",
                "there is no namespace shpo; you may mean shop",
            ),
            (
                gone_of("shpo", "read"),
                400,
                "spec.delete[0]: there is no TrafficTarget shpo/read",
                "there is no namespace shpo; you may mean shop",
            ),
            (gone("read"), 400, warning_text, warning_text),
            (gone("../raed"), 400, warning_text, warning_text),
            (gone("raed"), 400, "spec.objects: too many", "too many"),
            (gone("raed"), 403, "forbidden", "forbidden"),
        ] {
            let status = Status::failure(message, "").with_code(code);
            let refusal = Refusal::of("dryruns", kube::Error::Api(status.boxed()));
            let failure = or_refused(&cluster, &spec, refusal).await;
            let words = failure.to_string();
            assert!(words.contains(expected), "{words}");
            assert_eq!(matches!(failure, Failure::Usage(_)), code == 400, "{words}");
        }
    }

    #[tokio::test]
    async fn route_is_found_in_every_version_of_its_kind() {
        let api = FakeApi::default();
        let routes = "/apis/gateway.networking.k8s.io/v1alpha2/namespaces/shop/tcproutes";
        api.put(
            &format!("{routes}/sql"),
            json!({"metadata": {"name": "sql"}}),
        );
        let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
        let cluster = Cluster::of(api.client(), &global);
        for (name, is_there) in [("sql", true), ("slq", false)] {
            let gone = Deleted {
                kind: "TCPRoute.gateway.networking.k8s.io".to_owned(),
                namespace: "shop".to_owned(),
                name: name.to_owned(),
            };
            let failure = deleted(&cluster, &gone).await;
            assert_eq!(failure.is_none(), is_there, "{name}: {failure:?}");
        }
    }
}
