//! What rules that are only tried would do with a call: asked beside the verdict, and no
//! part of it.

use std::time::Instant;

use policy::access::{Access, JudgedTraffic};
use policy::protocol::Protocol;

use crate::config::snapshot::Snapshot;
use crate::config::trial::Judged;
use crate::inbound::authorize::has_http_rules;
use crate::inbound::connection::Connection;

impl Connection {
    /// Tries them on a request that was judged, or on a connection of opaque bytes;
    /// `unreadable`: its path has no normal form.
    #[cold]
    pub(super) fn try_on(&self, snapshot: &Snapshot, judged: &Judged<'_>, unreadable: bool) {
        // Nothing is judged before the proxy is told how, and everything refused.
        if !snapshot.is_complete() {
            return;
        }
        let port = self.local.port();
        let traffic = match judged.request {
            Some(facts) => JudgedTraffic::Http(facts),
            None => self.traffic_of_bytes(snapshot),
        };
        let would_pass = |candidate: &Access| {
            !(self.needs_identity(snapshot) || unreadable && has_http_rules(candidate, port))
                && candidate.decide(self.caller(), port, traffic).is_allowed()
        };
        let trials = &self.proxy.config.trials;
        trials.judge(judged, would_pass, Instant::now);
    }

    /// Tries them on a connection of opaque bytes that passes, or does not. They are judged by
    /// what is declared of the port, as by the rules that hold, and counted as the connection is.
    pub(super) fn try_on_bytes(&self, snapshot: &Snapshot, passes: bool, begins_as_tls: bool) {
        if self.proxy.config.trials.any() {
            let carried = if begins_as_tls {
                Protocol::Tls
            } else {
                self.declared_bytes(snapshot)
            };
            let judged = Judged {
                key: self.cell_key(carried, None),
                passes,
                request: None,
            };
            self.try_on(snapshot, &judged, false);
        }
    }
}
