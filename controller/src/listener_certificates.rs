//! Reads the Secrets in which Gateways name certificates of their listeners: what they hold goes to
//! the pods of those Gateways and nowhere else, and into the World only whether it can be served.
//!
//! Each is read by itself, at once and then every 10 seconds: a watch would need the right to list
//! the Secrets of a namespace. One that no Gateway names, or may not name, is never read. Every
//! replica reads for the streams that it serves; no replica is sent anything by another.
//!
//! A Secret that cannot be read stays as it was. One that is gone, or holds no certificate with
//! its key any more, is not served: deleting it is how a certificate is withdrawn. So is one whose
//! certificate has ended or is not valid yet, also where it ends while it cannot be read.
//!
//! Invariant: a key lies in [`ListenerCertificates`], in what is sent to the pods that serve it,
//! and in nothing that is shown, logged or passed on. The message that holds one is cleared when it
//! is dropped.
//!
//! May import `latest_model`, `metrics`, `reread` and `watch`.

mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use model::compiled::Compiled;
use model::published::{EncodedResource, SharedResources};
use model::world::collect::Step;
use model::world::{
    GatewayClassFacts, GatewayFacts, GrantFacts, ListenerCertificateFacts, ObjectKey, Store, World,
};
use parking_lot::RwLock;
use runtime::ready::Hold;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};
use wire::{names, v1};

use self::secret::Certificate;
use crate::latest_model::LatestModel;
use crate::metrics::certificates::CertificateMetrics;
use crate::reread::{PACE, Schedule};
use crate::watch::Feed;

/// Until a Secret that could not be read, and of which nothing is known, is read again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a replica that starts waits for its first reads: pods of Gateways that come to it
/// before would lose the certificates that another replica has sent them.
const FIRST_READS: Duration = Duration::from_secs(10);
/// Between two of them, so that two thousand certificates are read within that time.
const FIRST_PACE: Duration = Duration::from_millis(5);

/// The certificates that Gateways serve, by Secret. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct ListenerCertificates(Arc<RwLock<BTreeMap<ObjectKey, Arc<EncodedResource>>>>);

opaque_debug!(ListenerCertificates);

impl ListenerCertificates {
    /// The resource with the certificate of this Secret.
    pub(crate) fn get(&self, secret: &ObjectKey) -> Option<Arc<EncodedResource>> {
        self.0.read().get(secret).cloned()
    }

    /// Keeps the certificate of this Secret.
    pub(crate) fn insert(&self, secret: &ObjectKey, content: v1::ListenerCertificate) {
        let name = names::certificate(&secret.namespace, &secret.name);
        let content = v1::resource::Content::ListenerCertificate(content);
        // Shared among the streams of its Gateway, and held by nothing else.
        let resource = SharedResources::default().of(&name, content);
        let mut held = self.0.write();
        let before = held.get(secret);
        // Else there would be a copy of the key for each read.
        if before.is_none_or(|before| before.resource.version != resource.resource.version) {
            held.insert(secret.clone(), resource);
        }
    }

    fn remove(&self, secret: &ObjectKey) {
        self.0.write().remove(secret);
    }
}

/// What follows the Secrets.
pub(crate) struct Follower {
    /// API server.
    pub client: Client,
    /// Newest model.
    pub latest: LatestModel,
    /// Into the World.
    pub feed: Feed,
    /// Namespaces in which Gateways are run.
    pub namespaces: Arc<BTreeSet<String>>,
    /// Where the certificates are kept.
    pub certificates: ListenerCertificates,
    /// When they end.
    pub metrics: CertificateMetrics,
}

opaque_debug!(Follower);

/// What decides which Secrets are named.
type Inputs = (
    Store<GatewayFacts>,
    Store<GatewayClassFacts>,
    Store<GrantFacts>,
);

impl Follower {
    /// Follows until the process ends. `hold` is released once the model knows the first reads.
    pub(crate) async fn follow(mut self, hold: Hold) {
        let (mut hold, started) = (Some(hold), Instant::now());
        let mut schedule = Schedule::default();
        let mut inputs: Option<Inputs> = None;
        let mut paced = Instant::now();
        loop {
            let compiled = self.latest.borrow_and_update().clone();
            let news = compiled.as_ref().filter(|compiled| {
                let known = inputs.as_ref();
                known.is_none_or(|known| !is_same(known, &compiled.world))
            });
            if let Some(compiled) = news {
                inputs = Some(inputs_of(&compiled.world));
                let wanted = compiled.world.listener_secrets(&self.namespaces);
                for key in schedule.want(wanted, Instant::now()) {
                    self.withdraw(key).await;
                }
            }
            let late = Instant::now() >= started + FIRST_READS;
            let is_known = |compiled: &Arc<Compiled>| {
                let known = &compiled.world.listener_certificates;
                schedule.wanted().all(|key| known.contains_key(key))
            };
            if hold.is_some() && (late || compiled.as_ref().is_some_and(is_known)) {
                info!(late, "first certificates of Gateways are read");
                hold = None;
            }
            let first = hold.is_some().then_some(started + FIRST_READS);
            let due = schedule.next_due().map(|due| due.max(paced));
            let wake = first.into_iter().chain(due).min();
            tokio::select! {
                changed = self.latest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            if due.is_none_or(|due| due > Instant::now()) {
                continue;
            }
            let Some(key) = schedule.take_due(Instant::now()) else {
                continue;
            };
            let pace = if hold.is_some() { FIRST_PACE } else { PACE };
            paced = Instant::now() + pace;
            if !self.read(&key).await {
                schedule.set_due(&key, Instant::now() + AGAIN);
            }
        }
    }

    /// Reads one Secret. False where nothing is known of it.
    async fn read(&self, key: &ObjectKey) -> bool {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let outcome = match api.get_opt(&key.name).await {
            Ok(Some(found)) => secret::read(key, found),
            Ok(None) => Err(format!(
                "Secret {key} does not exist: create it with tls.crt and tls.key"
            )),
            Err(kube::Error::Api(status))
                if status.is_forbidden() && self.certificates.get(key).is_none() =>
            {
                Err(format!(
                    "Weft may not read Secret {key}: add {} to gateway.namespaces of its chart",
                    key.namespace
                ))
            }
            Err(error) => {
                debug!(%key, %error, "certificate of a Gateway was not read");
                match self.ended(key) {
                    Some(why) => Err(why),
                    None => return self.certificates.get(key).is_some(),
                }
            }
        };
        let fact = match outcome {
            Ok(certificate) => self.keep(key, certificate),
            Err(why) => {
                self.certificates.remove(key);
                self.metrics.forget(&key.namespace, &key.name);
                ListenerCertificateFacts::Unusable(why.into())
            }
        };
        let step = Step::Applied(key.clone(), Some(fact));
        self.feed
            .take(move |collector| collector.listener_certificates.take(step))
            .await;
        true
    }

    /// Why the certificate that is held for this Secret is not valid any more.
    fn ended(&self, key: &ObjectKey) -> Option<String> {
        let compiled = self.latest.borrow().clone()?;
        let facts = compiled.world.listener_certificates.get(key)?;
        match &**facts {
            ListenerCertificateFacts::Usable { not_after, .. } => {
                secret::invalid_at(key, (i64::MIN, *not_after), Timestamp::now())
            }
            ListenerCertificateFacts::Unusable(_) => None,
        }
    }

    /// Before the World says that it can be served it is there.
    fn keep(&self, key: &ObjectKey, certificate: Certificate) -> ListenerCertificateFacts {
        let Certificate {
            content,
            not_before,
            not_after,
            fingerprint,
        } = certificate;
        let now = Timestamp::now();
        let left = not_after.saturating_sub(now.as_second());
        self.metrics.expires_in(&key.namespace, &key.name, left);
        if let Some(why) = secret::invalid_at(key, (not_before, not_after), now) {
            self.certificates.remove(key);
            return ListenerCertificateFacts::Unusable(why.into());
        }
        self.certificates.insert(key, content);
        ListenerCertificateFacts::Usable {
            not_after,
            fingerprint,
        }
    }

    /// No Gateway names it any more, or may.
    async fn withdraw(&self, key: ObjectKey) {
        self.certificates.remove(&key);
        self.metrics.forget(&key.namespace, &key.name);
        let step = Step::Deleted(key);
        self.feed
            .take(move |collector| collector.listener_certificates.take(step))
            .await;
    }
}

fn inputs_of(world: &World) -> Inputs {
    (
        Arc::clone(&world.gateways),
        Arc::clone(&world.gateway_classes),
        Arc::clone(&world.grants),
    )
}

fn is_same((gateways, classes, grants): &Inputs, world: &World) -> bool {
    Arc::ptr_eq(gateways, &world.gateways)
        && Arc::ptr_eq(classes, &world.gateway_classes)
        && Arc::ptr_eq(grants, &world.grants)
}

#[cfg(test)]
mod tests;
