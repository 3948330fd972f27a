//! What dry runs of rules would do with a call: evaluated beside the verdict, and no part of it.

use std::time::Instant;

use http::request::Parts;
use policy::access::Access;
use policy::protocol::Protocol;

use crate::config::snapshot::Snapshot;
use crate::config::trial::Judged;
use crate::inbound::connection::Connection;
use crate::inbound::path::JudgedPath;

impl Connection {
    /// Tries them on a request that was evaluated, or, without one, on a connection of opaque
    /// bytes.
    #[cold]
    pub(super) fn try_on(
        &self,
        snapshot: &Snapshot,
        judged: &Judged<'_>,
        request: Option<(&Parts, &JudgedPath)>,
    ) {
        // Nothing is evaluated before the rules arrive, and everything is refused.
        if !snapshot.is_complete() {
            return;
        }
        let (caller, port) = (self.caller(), self.local.port());
        let would_pass = |candidate: &Access| {
            if self.needs_identity(snapshot) {
                return false;
            }
            let Some((parts, path)) = request else {
                let bytes = self.traffic_of_bytes(snapshot);
                return candidate.decide(caller, port, bytes).is_allowed();
            };
            let sent = JudgedPath::sent(parts);
            let judged = candidate.decide_request(caller, port, &sent, path.forms());
            judged.is_ok_and(|judged| judged.verdict.is_allowed())
        };
        let trials = &self.proxy.config.trials;
        trials.judge(judged, would_pass, Instant::now);
    }

    /// Tries them on a connection of opaque bytes that passes, or does not. They go by what is
    /// declared of the port, as the rules in force do, and count as the connection does.
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
                runs: 1,
            };
            self.try_on(snapshot, &judged, None);
        }
    }
}
