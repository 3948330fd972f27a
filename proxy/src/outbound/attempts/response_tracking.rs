//! What is held of a call while its answer is passed on.

use std::sync::Arc;

use super::Attempts;
use crate::endpoints::endpoint::InFlight;
use crate::http::deadline::Ends;
use crate::outbound::send::Outgoing;
use crate::outbound::serving::{Marks, Open, Serving};
use crate::proxy::Proxy;

impl Attempts<'_> {
    /// What waits for the trailers of an answer.
    pub(super) fn open(&self, proxy: &Proxy, outgoing: &Outgoing) -> Option<Open> {
        Some(Open {
            set: Arc::clone(self.route.choice.set()?),
            policy: self.route.policy.clone(),
            ejects: self.route.choice.ejects(),
            retried: self.retries > 0,
            recorder: self.recorder.clone(),
            shown: self.shown,
            listener: self.trailer_listener(proxy, outgoing),
        })
    }

    pub(super) fn served(
        &self,
        in_flight: InFlight,
        open: Option<Open>,
        ends: Option<Box<Ends>>,
    ) -> Serving {
        let route = self.route;
        let routed_to = route.overridden.then_some(&*route.backend);
        Serving {
            in_flight,
            open,
            ends,
            marks: Marks::of(self.route.cookie.as_deref(), routed_to),
        }
    }
}
