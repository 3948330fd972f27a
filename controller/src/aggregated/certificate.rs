//! The serving certificate of the aggregated APIs, and the CA bundle by which the API server
//! trusts it.
//!
//! Each replica has a certificate of its own, under the root of the aggregated APIs. The chart
//! makes the APIServices without a CA bundle; the Lease holder writes that root and the mesh's
//! there and keeps them. Such a certificate names no identity, so it is worth nothing inside the
//! mesh.
//!
//! During an upgrade and a rollback the Lease holder may be of a version that writes the mesh's
//! roots alone. So a replica serves by the mesh's issuer, as that version does, until the
//! APIServices hold the other root.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::rotate;
use identity::tls::ServingHandle;
use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use runtime::clock::Clock;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::authority::Authority;

/// Life of a certificate.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often the Lease holder looks at the APIServices.
const TICK: Duration = Duration::from_secs(30);
/// How often every replica does: for so long the API server refuses it after a rollback.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// Pause after something failed.
const RETRY: Duration = Duration::from_secs(2);
/// Time for one look at the APIServices.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the API server knows an aggregated API by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServedApi {
    /// Name of the Service in front of the replicas.
    pub service: &'static str,
    /// Its group.
    pub group: &'static str,
    /// Its versions, the preferred one first.
    pub versions: &'static [&'static str],
}

impl ServedApi {
    /// Names of its APIServices, one for each version.
    pub(crate) fn api_services(&self) -> impl Iterator<Item = String> {
        let versions = self.versions.iter();
        versions.map(|version| format!("{version}.{}", self.group))
    }
}

/// The certificate that was stored last, and when it is made anew.
struct Stored {
    /// Whether the API server knew the root of the aggregated APIs.
    known: bool,
    bundle: Arc<str>,
    since: SystemTime,
    renew: SystemTime,
}

impl Stored {
    fn is_due(&self, known: bool, bundle: &Arc<str>, now: SystemTime) -> bool {
        self.known != known || self.bundle != *bundle || now < self.since || now >= self.renew
    }
}

/// Keeps the serving certificate fresh; made anew at once when the roots change, and within
/// [`LOOK`] when the clock is set back before its begin. One that the API server would refuse does
/// not replace the one in use.
pub(crate) async fn keep_serving(
    served: Vec<ServedApi>,
    authority: Authority,
    client: Client,
    namespace: String,
    handle: ServingHandle,
    clock: Clock,
) {
    authority.ready().await;
    let api: Api<APIService> = Api::all(client);
    let mut bundles = authority.api_bundle();
    // The API server calls Services by these names, whatever the cluster's domain.
    let name = |api: &ServedApi| format!("{}.{namespace}.svc", api.service);
    let names: Vec<String> = served.iter().map(name).collect();
    let mut known = false;
    let mut stored: Option<Stored> = None;
    loop {
        let bundle = bundles.borrow_and_update().clone();
        // What was seen stays true while the API server does not answer.
        match timeout(PATIENCE, knows_api_root(&api, &served, &authority)).await {
            Ok(Ok(seen)) => known = seen,
            Ok(Err(error)) => debug!(%error, "APIServices not read"),
            Err(_) => debug!("APIServices not read in time"),
        }
        let now = clock.now();
        let mut pause = LOOK;
        let last = stored.as_ref();
        if last.is_none_or(|last| last.is_due(known, &bundle, now)) {
            match store(&authority, &names, &handle, known, now) {
                Ok((since, renew)) => {
                    stored = Some(Stored {
                        known,
                        bundle,
                        since,
                        renew,
                    });
                }
                Err(reason) => {
                    warn!(reason, "no serving certificate for the aggregated APIs");
                    pause = RETRY;
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = bundles.changed() => if changed.is_err() { return },
        }
    }
}

/// Takes a certificate into use that the API server accepts by what it holds, or may soon. Returns
/// since when it is valid, and when the next one is due.
fn store(
    authority: &Authority,
    names: &[String],
    handle: &ServingHandle,
    known: bool,
    now: SystemTime,
) -> Result<(SystemTime, SystemTime), String> {
    let by_api_root = || authority.api_serving(names, now, LIFE);
    let by_issuer = || authority.serving(names, now, LIFE);
    let in_use = handle.not_after().is_some_and(|end| now < end);
    let made = if known {
        by_api_root().or_else(|_| by_issuer())
    } else {
        by_issuer().or_else(|refused| {
            // The Lease holder is about to write the root that this one has.
            if in_use {
                Err(refused)
            } else {
                by_api_root().map_err(|_| refused)
            }
        })
    };
    let serving = made.map_err(|error| error.to_string())?;
    handle.store(&serving).map_err(|error| error.to_string())?;
    let renew = rotate::renew_at(now, serving.not_after, rand::random());
    Ok((serving.not_before, renew.max(now + RETRY)))
}

/// Whether every APIService that leads here holds the root of the aggregated APIs.
async fn knows_api_root(
    api: &Api<APIService>,
    served: &[ServedApi],
    authority: &Authority,
) -> Result<bool, kube::Error> {
    let Some(root) = authority.api_root() else {
        return Ok(false);
    };
    for one in served {
        for name in one.api_services() {
            let service = api.get_opt(&name).await?;
            let Some(spec) = service.and_then(|service| service.spec) else {
                continue;
            };
            let held = spec.ca_bundle.as_ref();
            let held =
                held.is_some_and(|held| String::from_utf8_lossy(&held.0).contains(root.as_str()));
            if leads_to(&spec, one.service) && !held {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn leads_to(spec: &APIServiceSpec, service: &str) -> bool {
    let named = spec.service.as_ref();
    named.is_some_and(|named| named.name.as_deref() == Some(service))
}

/// Keeps the root of the aggregated APIs and the mesh's in the APIServices. One that does not exist
/// is left alone: the chart makes it, or did not want it.
pub(crate) async fn keep_trusted(served: ServedApi, authority: Authority, client: Client) {
    let api: Api<APIService> = Api::all(client);
    let mut roots = authority.api_bundle();
    loop {
        let pem = roots.borrow_and_update().clone();
        let mut pause = TICK;
        for name in served.api_services() {
            let repaired = timeout(PATIENCE, repair(&api, served.service, &name, &pem));
            match repaired.await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => info!(name, "caBundle written"),
                Ok(Err(error)) => {
                    debug!(name, %error, "caBundle not written");
                    pause = RETRY;
                }
                Err(_) => pause = RETRY,
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = roots.changed() => if changed.is_err() { return },
        }
    }
}

async fn repair(
    api: &Api<APIService>,
    served_by: &str,
    name: &str,
    pem: &str,
) -> Result<bool, kube::Error> {
    let Some(service) = api.get_opt(name).await? else {
        return Ok(false);
    };
    let spec = service.spec.unwrap_or_default();
    let ours = leads_to(&spec, served_by);
    let current = spec
        .ca_bundle
        .is_some_and(|current| current.0 == pem.as_bytes());
    // An APIService that leads elsewhere belongs to another owner.
    if pem.is_empty() || !ours || current {
        return Ok(false);
    }
    let patch = json!({"spec": {"caBundle": ByteString(pem.as_bytes().to_vec())}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::api_server::FakeApi;

    const SERVICE: &str = "weft-metrics";
    const GROUP: &str = "metrics.smi-spec.io";

    fn path(version: &str) -> String {
        format!("/apis/apiregistration.k8s.io/v1/apiservices/{version}.{GROUP}")
    }

    fn leads_to(service: &str) -> serde_json::Value {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "x"},
            "spec": {"group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 100,
                "versionPriority": 100, "service": {"name": service, "namespace": "weft-system"}},
        })
    }

    #[tokio::test]
    async fn roots_are_written_once_into_own_apiservices_only() {
        let fake = FakeApi::default();
        fake.put(&path("v1alpha1"), leads_to(SERVICE));
        fake.put(&path("v1alpha2"), leads_to("smi-metrics"));
        let api: Api<APIService> = Api::all(fake.client());
        let name = |version: &str| format!("{version}.{GROUP}");
        for (version, pem, written) in [
            ("v1alpha1", "", false),
            ("v1alpha1", "roots", true),
            ("v1alpha1", "roots", false),
            ("v1alpha1", "other roots", true),
            ("v1alpha2", "roots", false),
            ("v1alpha3", "roots", false),
        ] {
            let repaired = repair(&api, SERVICE, &name(version), pem).await.unwrap();
            assert_eq!(repaired, written, "{version} {pem}");
        }
        let current = fake.read(&path("v1alpha1")).unwrap();
        let current: ByteString =
            serde_json::from_value(current["spec"]["caBundle"].clone()).unwrap();
        assert_eq!(current.0, b"other roots");
        assert_eq!(fake.writes().len(), 2);
    }
}
