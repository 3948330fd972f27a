//! Reads the ConfigMaps in which ExternalServices name authorities, and puts what they hold into
//! the World.
//!
//! Each is read by itself, at once and then every 10 seconds: a watch would need the right to list
//! the ConfigMaps of all namespaces, and would read all of them. What cannot be read stays as it
//! was.
//!
//! May import `latest_model`, `reread` and `watch`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use model::world::collect::Step;
use model::world::{CaBundle, ExternalFacts, ObjectKey, Store};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::latest_model::LatestModel;
use crate::reread::{PACE, Schedule};
use crate::watch::Feed;

/// The key of the certificates.
const KEY: &str = "ca.crt";

/// Reads until the process ends.
pub(crate) async fn follow(client: Client, mut latest: LatestModel, feed: Feed) {
    let mut schedule = Schedule::default();
    // The objects of which the ConfigMaps were read last.
    let mut objects: Option<Store<ExternalFacts>> = None;
    let mut paced = Instant::now();
    loop {
        let compiled = latest.borrow_and_update().clone();
        let news = compiled.filter(|compiled| {
            let now = &compiled.world.external_services;
            objects
                .as_ref()
                .is_none_or(|known| !Arc::ptr_eq(known, now))
        });
        let gone = news.map(|compiled| {
            objects = Some(Arc::clone(&compiled.world.external_services));
            schedule.want(compiled.world.external_authorities(), Instant::now())
        });
        for key in gone.into_iter().flatten() {
            let step = Step::Deleted(key);
            feed.take(move |collector| collector.ca_bundles.take(step))
                .await;
        }
        if let Some(due) = schedule.next_due() {
            tokio::select! {
                changed = latest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                () = sleep_until(due.max(paced)) => {}
            }
        } else if latest.changed().await.is_err() {
            return;
        } else {
            continue;
        }
        let Some(key) = schedule.take_due(Instant::now()) else {
            continue;
        };
        paced = Instant::now() + PACE;
        if let Some(step) = read(&client, key).await {
            feed.take(move |collector| collector.ca_bundles.take(step))
                .await;
        }
    }
}

/// What a ConfigMap has now; `None` if that is not known.
async fn read(client: &Client, key: ObjectKey) -> Option<Step<CaBundle>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &key.namespace);
    match api.get_opt(&key.name).await {
        Ok(Some(found)) => {
            let pem = found.data.unwrap_or_default().remove(KEY);
            let pem = pem.filter(|pem| has_certificate(pem)).map(Arc::from);
            Some(Step::Applied(key, Some(CaBundle { pem })))
        }
        Ok(None) => Some(Step::Deleted(key)),
        Err(error) => {
            debug!(%key, %error, "authorities of an ExternalService were not read");
            None
        }
    }
}

fn has_certificate(pem: &str) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    certificates.any(|one| one.is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use fake_api::FakeApi;
    use model::Defaults;
    use runtime::ready::Ready;
    use serde_json::{Value, json};
    use tokio::sync::watch;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::metrics::WorldMetrics;
    use crate::reread::EVERY;
    use crate::settings::gateways::GatewayApi;

    const MAP: &str = "/api/v1/namespaces/shop/configmaps/pay-ca";
    const OBJECT: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/externalservices/pay";
    const OBJECTS: &str = "/apis/weft.dev/v1alpha1/externalservices";

    fn object() -> Value {
        let tls = json!({"serverName": "api.pay.example", "caRef": {"name": "pay-ca"}});
        json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "ExternalService",
            "metadata": {"name": "pay", "namespace": "shop", "resourceVersion": "9"},
            "spec": {"hosts": ["api.pay.example"],
                "ports": [{"port": 80, "protocol": "HTTP", "targetPort": 443, "tls": tls}]},
        })
    }

    fn with_certificate() -> Value {
        let certified = rcgen::generate_simple_self_signed(["pay".to_owned()]).unwrap();
        json!({"metadata": {}, "data": {KEY: certified.cert.pem()}})
    }

    /// Whether the World has it, and with certificates.
    async fn becomes(latest: &mut LatestModel, expected: Option<bool>) {
        let key = ObjectKey::new("shop", "pay-ca");
        let found = latest.wait_for(|compiled| {
            let compiled = compiled.as_ref();
            compiled.is_some_and(|compiled| {
                let bundle = compiled.world.ca_bundles.get(&key);
                bundle.map(|bundle| bundle.pem.is_some()) == expected
            })
        });
        assert!(
            timeout(Duration::from_secs(60), found).await.is_ok(),
            "{expected:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn named_authorities_follow_their_config_map_and_no_other() {
        let api = FakeApi::default();
        api.put(OBJECT, object());
        api.put(MAP, with_certificate());
        api.put(&MAP.replace("pay-ca", "other"), with_certificate());
        let metrics = WorldMetrics::default();
        let (worlds, feed) = crate::watch::start(
            api.client(),
            Arc::default(),
            GatewayApi::Gateways,
            metrics,
            Ready::new(),
        );
        let (publish, mut latest) = watch::channel(None);
        let defaults = Defaults::default();
        let (_, signing) = watch::channel(BTreeSet::new());
        tokio::spawn(crate::latest_model::run(worlds, publish, defaults, signing));
        tokio::spawn(follow(api.client(), latest.clone(), feed));
        becomes(&mut latest, Some(true)).await;

        api.put(
            MAP,
            json!({"metadata": {}, "data": {KEY: "no certificate"}}),
        );
        becomes(&mut latest, Some(false)).await;
        api.put_lines(OBJECTS, &[json!({"type": "DELETED", "object": object()})]);
        becomes(&mut latest, None).await;

        api.put(MAP, with_certificate());
        api.put_lines(OBJECTS, &[json!({"type": "ADDED", "object": object()})]);
        becomes(&mut latest, Some(true)).await;
        api.break_down();
        sleep(3 * EVERY).await;
        becomes(&mut latest, Some(true)).await;
        let other = MAP.replace("pay-ca", "other");
        assert_eq!(api.whole_reads(&other), 0);
    }
}
