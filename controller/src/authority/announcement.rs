//! Sends proxies what they need of the authority: the trusted roots, and what a rotation requires
//! of proxies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use identity::rotation::Announced;
use tokio::sync::watch;
use wire::v1;

use super::Authority;

impl Authority {
    /// The bundle, whenever it or [`Self::is_late`] changes. It has no roots until they are loaded.
    pub(crate) fn bundle(&self) -> watch::Receiver<Arc<v1::Bundle>> {
        self.inner.bundle.subscribe()
    }

    /// Whether another replica serves a later step than this one, which cannot read it. It would send
    /// its proxies roots of an earlier step, so others have to serve them.
    pub(crate) fn is_late(&self) -> bool {
        self.inner.is_late.load(Ordering::Relaxed)
    }

    pub(super) fn set_late(&self, is_late: bool) {
        if self.inner.is_late.swap(is_late, Ordering::Relaxed) != is_late {
            self.inner.bundle.send_modify(|_| ());
        }
    }

    /// Says beside the roots what a rotation needs of proxies.
    pub(super) fn announce(&self, announced: Announced) {
        *self.inner.announced.lock() = announced;
        self.send_bundle();
    }

    pub(super) fn send_bundle(&self) {
        let Some(loaded) = self.loaded() else {
            return;
        };
        let announced = *self.inner.announced.lock();
        let within = announced.renew_within.unwrap_or_default().as_millis();
        let state = &loaded.state;
        // The Lease holder may not know yet what this replica's own folder holds.
        let own = loaded.own.and_then(|_| loaded.issuer.id());
        let own = own.filter(|own| !state.issuers.contains(own));
        let issuers = state.former.iter().chain(&state.issuers).chain(&own);
        let issuers = issuers.filter(|_| announced.end_others);
        let bundle = v1::Bundle {
            roots: loaded.roots_der.clone(),
            renew_within: u64::try_from(within).unwrap_or(u64::MAX),
            end_others: announced.end_others,
            issuers: issuers.map(|issuer| issuer.as_bytes().to_vec()).collect(),
        };
        self.inner.bundle.send_if_modified(|current| {
            let is_news = **current != bundle;
            if is_news {
                *current = Arc::new(bundle);
            }
            is_news
        });
    }
}
