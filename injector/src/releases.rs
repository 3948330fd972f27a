//! Reads which revisions are stable in a namespace, for the pods that are made in it.
//!
//! Anew for every pod of a Deployment, as its namespace is: the status changes while pods are made.
//! A tenant may write releases of any number and size, so what is read has a bound in bytes, objects
//! and time, and of each object only a few fields are kept. What is beyond them cannot be read.

use std::time::Duration;

use crds::inject::{Releases, StableRevision};
use crds::objects::{TRUST_BUNDLE, TRUST_BUNDLE_LEAVING};
use crds::smi::ACCEPTED;
use crds::weft::CanaryRelease;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::client::Body;
use kube::core::Request;
use kube::{Api, Client, Resource as _};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

/// Releases of one page. With its status and its managed fields one takes a few KiB.
const PAGE: u32 = 50;
/// Bytes of one page. So many namespaces may be read at one time that all of their pages take
/// 16 MiB.
const PAGE_BYTES: usize = 512 * 1024;
/// Pages of one namespace.
const PAGES: usize = 10;
/// Time for all of them: a fifth of what the call has.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the releases are not known.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the request could not be built: {0}")]
    Request(#[from] kube::core::request::Error),
    #[error(transparent)]
    Call(#[from] kube::Error),
    #[error("the API server answered {0}")]
    Status(StatusCode),
    #[error("{PAGE} of them take more than {PAGE_BYTES} bytes, or the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is no list of releases: {0}")]
    Json(#[from] serde_json::Error),
    #[error("there are more than {most}", most = PAGES * PAGE as usize)]
    TooMany,
    #[error("the API server did not answer in time")]
    Timeout,
}

/// Those of a namespace that are in force. Never fails: what cannot be read is a result, too.
pub(crate) async fn read(client: &Client, namespace: &str) -> Releases {
    let read = timeout(PATIENCE, pages(client, namespace)).await;
    let releases = match read.unwrap_or(Err(Unread::Timeout)) {
        Ok(stable) => Releases::Known(stable),
        Err(error) => {
            warn!(%error, namespace, "releases could not be read; pods of Deployments are gated");
            Releases::Unreadable
        }
    };
    let gates_none = matches!(&releases, Releases::Known(stable) if stable.is_empty());
    if !gates_none && is_leaving(client, namespace).await {
        return Releases::Ignored;
    }
    releases
}

/// Whether the mesh is being uninstalled: what opens gates goes with it, and the pods that follow
/// when a gate opens are made while this webhook is still there.
async fn is_leaving(client: &Client, namespace: &str) -> bool {
    let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Ok(Ok(bundle)) = timeout(PATIENCE, bundles.get_opt(TRUST_BUNDLE)).await else {
        return false;
    };
    let mut data = bundle.and_then(|bundle| bundle.data).unwrap_or_default();
    data.remove(TRUST_BUNDLE_LEAVING).as_deref() == Some("true")
}

async fn pages(client: &Client, namespace: &str) -> Result<Vec<StableRevision>, Unread> {
    let request = Request::new(CanaryRelease::url_path(&(), Some(namespace)));
    let mut params = ListParams::default().limit(PAGE);
    let mut stable = Vec::new();
    for _ in 0..PAGES {
        let response = client.send(request.list(&params)?.map(Body::from)).await?;
        match response.status() {
            StatusCode::OK => {}
            // The kind is not installed, or not yet.
            StatusCode::NOT_FOUND => return Ok(Vec::new()),
            other => return Err(Unread::Status(other)),
        }
        let body = Limited::new(response.into_body(), PAGE_BYTES);
        let body = body.collect().await.map_err(Unread::Body)?.to_bytes();
        let page: Page = serde_json::from_slice(&body)?;
        stable.extend(page.items.into_iter().filter_map(Release::stable));
        let next = page.metadata.continues.filter(|token| !token.is_empty());
        let Some(next) = next else {
            return Ok(stable);
        };
        params = params.continue_token(&next);
    }
    Err(Unread::TooMany)
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    items: Vec<Release>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    continues: Option<String>,
}

/// What decides about gates. Every other field is passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Release {
    spec: Spec,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    deployment: String,
    suspend: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    stable: Option<Stable>,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stable {
    revision: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Release {
    /// What it holds its Deployment to; `None` when it has no effect.
    fn stable(self) -> Option<StableRevision> {
        let status = self.status?;
        let mut conditions = status.conditions.iter();
        let is_refused = conditions.any(|one| one.kind == ACCEPTED && one.status == "False");
        let revision = status.stable?.revision;
        let has_effect = !is_refused && self.spec.suspend != Some(true) && !revision.is_empty();
        has_effect.then_some(StableRevision {
            deployment: self.spec.deployment,
            revision,
        })
    }
}

#[cfg(test)]
mod tests {
    use fake_api::FakeApi;
    use serde_json::{Value, json};

    use super::*;

    fn release(name: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"service": name, "deployment": name},
            "status": {
                "stable": {"revision": "aaa", "pods": 2},
                "conditions": [{"type": "Accepted", "status": "True"}],
            },
        })
    }

    fn put(api: &FakeApi, release: &Value) {
        let name = release["metadata"]["name"].as_str().unwrap();
        let path = format!("/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/{name}");
        api.put(&path, release.clone());
    }

    #[tokio::test]
    async fn release_without_effect_holds_no_revision() {
        let api = FakeApi::default();
        put(&api, &release("web"));
        for (name, pointer, value) in [
            ("suspended", "/spec/suspend", json!(true)),
            ("refused", "/status/conditions/0/status", json!("False")),
            ("unseen", "/status", json!(null)),
            ("unknown", "/status/stable", json!(null)),
        ] {
            let mut release = release(name);
            release["spec"]["suspend"] = json!(false);
            *release.pointer_mut(pointer).unwrap() = value;
            put(&api, &release);
        }
        let web = StableRevision {
            deployment: "web".into(),
            revision: "aaa".into(),
        };
        let found = read(&api.client(), "shop").await;
        assert_eq!(found, Releases::Known(vec![web]));
        let other = read(&api.client(), "other").await;
        assert_eq!(other, Releases::Known(vec![]));
    }

    #[tokio::test]
    async fn leaving_mesh_holds_no_revision() {
        let api = FakeApi::default();
        put(&api, &release("web"));
        let bundle = |mark: &str| {
            let path = format!("/api/v1/namespaces/shop/configmaps/{TRUST_BUNDLE}");
            let map = json!({"metadata": {"name": TRUST_BUNDLE, "namespace": "shop"},
                "data": {TRUST_BUNDLE_LEAVING: mark}});
            api.put(&path, map);
        };
        bundle("false");
        assert!(matches!(
            read(&api.client(), "shop").await,
            Releases::Known(_)
        ));
        bundle("true");
        assert_eq!(read(&api.client(), "shop").await, Releases::Ignored);
    }

    #[tokio::test]
    async fn every_page_is_read_up_to_the_bound() {
        let api = FakeApi::default();
        let most = PAGES * PAGE as usize;
        for n in 0..most {
            put(&api, &release(&format!("web-{n}")));
        }
        let Releases::Known(found) = read(&api.client(), "shop").await else {
            panic!("not read");
        };
        assert_eq!(found.len(), most);
        put(&api, &release("one-more"));
        assert_eq!(read(&api.client(), "shop").await, Releases::Unreadable);
    }

    #[tokio::test(start_paused = true)]
    async fn large_broken_or_silent_answer_is_unreadable() {
        let api = FakeApi::default();
        let mut large = release("web");
        large["metadata"]["annotations"] = json!({"a": "x".repeat(PAGE_BYTES)});
        put(&api, &large);
        assert_eq!(read(&api.client(), "shop").await, Releases::Unreadable);

        let api = FakeApi::default();
        let slow = api.slow_client(PATIENCE * 2);
        assert_eq!(read(&slow, "shop").await, Releases::Unreadable);
        api.break_down();
        assert_eq!(read(&api.client(), "shop").await, Releases::Unreadable);
    }
}
