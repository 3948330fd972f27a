//! The serving certificate of the aggregated APIs, and the CA bundle by which the API server
//! trusts it.
//!
//! Each replica has a certificate of its own from the mesh's authority. The chart makes the
//! APIServices without a CA bundle; the Lease holder writes it there and keeps it. Such a
//! certificate names no identity, so it is worth nothing inside the mesh.

use std::time::{Duration, UNIX_EPOCH};

use identity::rotate;
use identity::tls::ServingHandle;
use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use runtime::clock::Clock;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::authority::Authority;

/// Life of a certificate.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often everything is looked at.
const TICK: Duration = Duration::from_secs(30);
/// Pause after something failed.
const RETRY: Duration = Duration::from_secs(2);
/// Time for one look at an APIService.
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

/// Keeps the serving certificate fresh; made anew at once when the roots change or the
/// clock is set back before its begin. One that the API server would refuse does not
/// replace the one in use.
pub(crate) async fn keep_serving(
    services: Vec<&'static str>,
    authority: Authority,
    namespace: String,
    handle: ServingHandle,
    clock: Clock,
) {
    authority.ready().await;
    let mut roots = authority.roots_pem();
    // The API server calls Services by these names, whatever the cluster's domain.
    let name = |service: &&str| format!("{service}.{namespace}.svc");
    let names: Vec<String> = services.iter().map(name).collect();
    loop {
        let now = clock.now();
        let made = authority
            .serving(&names, now, LIFE)
            .map_err(|error| error.to_string())
            .and_then(|serving| {
                handle.store(&serving).map_err(|error| error.to_string())?;
                Ok((serving.not_before, serving.not_after))
            });
        let (renew, since) = match made {
            Ok((since, end)) => {
                let renew = rotate::renew_at(now, end, rand::random());
                (renew.max(now + RETRY), since)
            }
            Err(reason) => {
                warn!(reason, "no serving certificate for the aggregated APIs");
                (now + RETRY, UNIX_EPOCH)
            }
        };
        tokio::select! {
            () = clock.sleep_until(renew) => {}
            () = clock.back_before(since) => {}
            changed = roots.changed() => if changed.is_err() { return },
        }
    }
}

/// Keeps the roots in the APIServices. One that does not exist is left alone: the
/// chart makes it, or did not want it.
pub(crate) async fn keep_trusted(served: ServedApi, authority: Authority, client: Client) {
    let api: Api<APIService> = Api::all(client);
    let mut roots = authority.roots_pem();
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
    let ours = spec
        .service
        .is_some_and(|service| service.name.as_deref() == Some(served_by));
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
