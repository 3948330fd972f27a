//! Checks that the injector's configured trust domain is that of the mesh.
//!
//! The injector gives each new proxy its trust domain. A proxy with another one than the
//! controllers' gets no certificate, so an injector that is configured with another one stays
//! unready until they have it too: a rollout stops there, and the previous injectors go on. The
//! Lease of the controllers names theirs.
//!
//! Claims: attack-101

use std::time::Duration;

use crds::labels::TRUST_DOMAIN;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use policy::well_known::CONTROLLER;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time for one look.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// Looks from one line in the log to the next.
const LOOKS_PER_LINE: u32 = 15;

/// Returns once no controller is known to have another trust domain than `own`.
pub(crate) async fn agreed(client: Client, namespace: &str, own: &str) {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    for look in 0u32.. {
        let loud = look % LOOKS_PER_LINE == 0;
        match timeout(LOOK_WITHIN, leases.get_opt(CONTROLLER)).await {
            Ok(Ok(lease)) => match lease.as_ref().and_then(recorded) {
                Some(theirs) if theirs != own => {
                    if loud {
                        error!(
                            own,
                            theirs,
                            "the controllers have another trust domain than this injector is \
                             configured with (identity.trustDomain), waiting until they have the same"
                        );
                    }
                }
                _ => return,
            },
            // The chart gives the right; without it nothing can be known.
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                warn!(
                    message = status.message,
                    "the controllers' trust domain is not known"
                );
                return;
            }
            Ok(Err(error)) if loud => warn!(%error, "the controllers' Lease could not be read"),
            Err(_) if loud => warn!("the API server did not answer in time"),
            _ => {}
        }
        sleep(LOOK_EVERY).await;
    }
}

fn recorded(lease: &Lease) -> Option<&str> {
    let annotations = lease.metadata.annotations.as_ref()?;
    annotations.get(TRUST_DOMAIN).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use fake_api::FakeApi;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/mesh/leases/weft-controller";

    fn lease(trust_domain: Option<&str>) -> serde_json::Value {
        json!({"metadata": {"name": CONTROLLER, "annotations": {TRUST_DOMAIN: trust_domain}}})
    }

    async fn waits(api: &FakeApi) -> bool {
        let agreed = agreed(api.client(), "mesh", "corp.example");
        timeout(Duration::from_secs(600), agreed).await.is_err()
    }

    // Claims: C6
    #[tokio::test(start_paused = true)]
    async fn injector_with_other_trust_domain_waits_for_controllers() {
        let api = FakeApi::default();
        api.put(PATH, lease(Some("old.example")));
        let client = api.client();
        let waiting = tokio::spawn(async move { agreed(client, "mesh", "corp.example").await });
        sleep(Duration::from_secs(600)).await;
        assert!(!waiting.is_finished());
        api.put(PATH, lease(Some("corp.example")));
        timeout(Duration::from_secs(5), waiting)
            .await
            .unwrap()
            .unwrap();
    }

    // Claims: C6
    #[tokio::test(start_paused = true)]
    async fn same_trust_domain_or_first_start_delays_no_injector() {
        let api = FakeApi::default();
        assert!(!waits(&api).await, "no controller has run yet");
        api.put(PATH, json!({"metadata": {"name": CONTROLLER}}));
        assert!(!waits(&api).await, "a controller that does not say");
        api.put(PATH, lease(Some("corp.example")));
        assert!(!waits(&api).await);
        api.break_down();
        assert!(waits(&api).await, "nothing is known");
    }
}
