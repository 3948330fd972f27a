//! What an attempt has to do with how calls are balanced: where it went is counted, and the load
//! that its response reports is recorded.

use std::sync::Arc;

use http::{HeaderMap, Response};

use super::Attempts;
use crate::endpoints::endpoint::Endpoint;
use crate::http::grpc::grpc_status;
use crate::mesh::load;
use crate::outbound::attempt_outcome::{is_limited, limited_for};
use crate::outbound::call_policy;
use crate::proxy::Proxy;
use crate::telemetry::labels::LocalityLabels;

impl Attempts<'_> {
    /// Counts how near an attempt goes, where calls go by that.
    pub(super) fn count_nearness(&self, proxy: &Proxy, to: &Endpoint) {
        let route = self.route;
        let balance = call_policy::balance(route.policy.as_deref());
        if let Some(nearness) = route.choice.nearness(to, balance) {
            let labels = LocalityLabels {
                service: Arc::clone(&route.service),
                locality: nearness.as_str(),
            };
            proxy.telemetry.metrics.locality.at(&labels).inc();
        }
    }

    /// Whether an application refuses a call by a limit of its own, which makes it busy.
    pub(super) fn record_limit<B>(from: &Endpoint, head: &Response<B>, grpc: bool) -> bool {
        let map = head.headers();
        let limited = is_limited(head.status(), grpc_status(map));
        if limited {
            from.limited(limited_for(map, grpc));
        }
        limited
    }

    /// Of a proxy of the mesh it is believed how busy its application is.
    pub(super) fn record_load(proxy: &Proxy, from: &Endpoint, map: &HeaderMap) {
        if !from.meshed() {
            return;
        }
        match load::read(map) {
            None => {}
            Some(Ok(percent)) => from.record_load(percent),
            Some(Err(load::Unreadable)) => proxy.telemetry.metrics.unreadable_load(),
        }
    }
}
