//! Lists the pods, and which of them have a proxy: only the API server knows pods without calls.

use std::collections::BTreeMap;

use crds::objects::{GATEWAY_CONTAINER, PROXY_CONTAINER};
use serde::Deserialize;

use crate::cluster::names::ResourceKind;
use crate::cluster::{Cluster, Refusal, existing};
use crate::failure::Failure;

/// The name of its response.
const ANSWER: &str = "Pods";
/// Bytes of a response, which holds [`existing::PAGE`] pods at most.
const MAX_ANSWER: usize = 64 << 20;
/// Phases of a pod that serves no calls any more.
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

/// The pods of a namespace that have not ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ListedPods {
    /// Whether each has a proxy, by name.
    pub(super) meshed: BTreeMap<String, bool>,
    /// There are more than one response holds.
    pub(super) is_cut: bool,
}

/// The fields of the API server's response that are read; the rest is not kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    metadata: ListMetadata,
    items: Vec<Item>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListMetadata {
    /// The token of the next page.
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    metadata: Name,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Name {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Vec<Name>,
    init_containers: Vec<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

impl ListedPods {
    /// Those of the cluster's namespace, or of them the one of this name. None for all namespaces:
    /// listing the pods of a large cluster takes too long.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(super) async fn fetch(
        cluster: &Cluster,
        name: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let path = cluster.scope();
        let Some(path) = path.and_then(|scope| ResourceKind::Pod.path(Some(scope))) else {
            return Ok(None);
        };
        let alone = name.map(|name| format!("&fieldSelector=metadata.name%3D{name}"));
        let path = format!(
            "{path}?limit={}{}",
            existing::PAGE,
            alone.unwrap_or_default()
        );
        let answer = cluster.try_read_bytes(ANSWER, &path, MAX_ANSWER).await;
        let answer = answer.map_err(Refusal::into_failure)?;
        let read = Self::read(&answer);
        let read = read.map_err(|error| Failure::unknown(format!("{ANSWER}: {error}")))?;
        Ok(Some(read))
    }

    fn read(answer: &[u8]) -> serde_json::Result<Self> {
        let List { metadata, items } = serde_json::from_slice(answer)?;
        let has_proxy = |spec: &Spec| {
            let mut sidecars = spec.init_containers.iter();
            let mut own = spec.containers.iter();
            sidecars.any(|container| container.name == PROXY_CONTAINER)
                || own.any(|container| container.name == GATEWAY_CONTAINER)
        };
        let live = items.into_iter();
        let live = live.filter(|pod| !ENDED.contains(&pod.status.phase.as_str()));
        let meshed = live.map(|pod| (pod.metadata.name, has_proxy(&pod.spec)));
        Ok(Self {
            meshed: meshed.collect(),
            // Some servers mark the last page by an empty token.
            is_cut: metadata.next.is_some_and(|next| !next.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finished_pods_are_skipped_and_proxy_container_counts() {
        let pod = |name: &str, containers: &[&str], phase: &str| {
            let named = |name: &&str| json!({"name": name, "image": "x"});
            let containers: Vec<_> = containers.iter().map(named).collect();
            json!({"metadata": {"name": name, "labels": {"app": "web"}}, "status": {"phase": phase},
                "spec": {"containers": [{"name": "weft-proxy"}], "initContainers": containers}})
        };
        let list = |next: serde_json::Value| {
            let items = [
                pod("in", &["first", "weft-proxy"], "Running"),
                pod("out", &["first"], "Pending"),
                pod("done", &["weft-proxy"], "Succeeded"),
                pod("lost", &["weft-proxy"], "Failed"),
                json!({"metadata": {"name": "bare"}}),
                json!({"metadata": {"name": "edge"}, "spec": {"containers": [{"name": "weft-gateway"}]}}),
            ];
            let list = json!({"metadata": {"continue": next}, "items": items});
            ListedPods::read(list.to_string().as_bytes()).unwrap()
        };
        let whole = list(json!(null));
        let meshed = [
            ("bare", false),
            ("edge", true),
            ("in", true),
            ("out", false),
        ];
        let meshed = meshed.map(|(name, meshed)| (name.to_owned(), meshed));
        assert_eq!(whole.meshed, BTreeMap::from(meshed));
        assert!(!whole.is_cut && !list(json!("")).is_cut);
        assert!(list(json!("more")).is_cut);
        assert!(ListedPods::read(b"no list").is_err());
    }
}
