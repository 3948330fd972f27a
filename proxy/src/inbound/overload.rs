//! Of what class a request is, and whether the application has room for one more.

use policy::overload::Admit;
use policy::reason::Reason;
use policy::traffic::guard::Priority;

use crate::config::guard::PortGuard;
use crate::config::overload::{AdmittedRequest, PendingRequest, PortOverload};
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::deadline::now;
use crate::http::received::Received;
use crate::inbound::connection::Connection;
use crate::inbound::path::JudgedPath;
use crate::net::given_up::ConnectGuard;
use crate::telemetry::labels::{OverloadLabels, Port, ShedLabels};

impl Connection {
    /// Admits a request of this class that access and limits have passed. It counts as in flight
    /// until what comes back is dropped, or gets its response, which may be that it switched
    /// protocols.
    ///
    /// # Errors
    /// When the application has no room for it.
    pub(super) fn let_in(
        &self,
        snapshot: &Snapshot,
        received: &Received,
        class: Option<Priority>,
    ) -> Result<Option<Box<AdmittedRequest>>, Failure> {
        let guard = self.guard(snapshot);
        let Some(overload) = guard.and_then(PortGuard::overload) else {
            return Ok(None);
        };
        let asks = PendingRequest {
            priority: class.unwrap_or_default(),
            retry: received.retry && self.is_of_proxy(),
            audited: false,
        };
        self.arrives(overload, asks).map(Some)
    }

    /// Waits until the call may open a connection. What waits here is not in flight, and needs
    /// room when it goes on: others may have taken it.
    ///
    /// # Errors
    /// When too many wait, or the application has no room by then.
    pub(super) async fn wait_for_turn(
        &self,
        beginning: &ConnectGuard<'_>,
        let_in: &mut Option<Box<AdmittedRequest>>,
    ) -> Result<(), Failure> {
        let put_off = let_in.take().map(|let_in| let_in.put_off());
        let turn = beginning.turn().await;
        turn.map_err(|full| Failure::not_sent(Reason::Overload, full.to_string()))?;
        if let Some((overload, asks)) = put_off {
            *let_in = Some(self.arrives(&overload, asks)?);
        }
        Ok(())
    }

    fn arrives(
        &self,
        overload: &PortOverload,
        asks: PendingRequest,
    ) -> Result<Box<AdmittedRequest>, Failure> {
        let decided = overload.arrive(now(), asks, |limit| self.show_limit(limit));
        if decided.admit != Admit::Pass && !asks.audited {
            let labels = ShedLabels {
                port: Port::Number(self.local.port()),
                priority: asks.class().as_str(),
            };
            self.proxy.telemetry.metrics.shed.at(&labels).inc();
        }
        decided.let_in.ok_or_else(|| Failure::Refused {
            reason: Reason::Overload,
            by: Some(overload.origin().clone()),
            detail: format!(
                "the application has more requests than it can answer in time, by {}; this one, \
                 of class {}, was not sent to it",
                overload.origin(),
                asks.class().as_str()
            )
            .into(),
        })
    }

    /// The class of a request, where policies cover this port. Headers about it count only from
    /// peer proxies.
    pub(super) fn class(
        &self,
        snapshot: &Snapshot,
        received: &Received,
        path: &JudgedPath,
    ) -> Option<Priority> {
        let guard = self.guard(snapshot)?;
        let facts = path.facts(&received.parts);
        let class = guard.class(self.caller(), &facts, path.forms().ways());
        Some(Priority::of_call(self.requested_class(received), class))
    }

    /// The head of the answer to a request is there.
    pub(super) fn answered(&self, let_in: Option<Box<AdmittedRequest>>) {
        if let Some(let_in) = let_in {
            let_in.answered(now(), |limit| self.show_limit(limit));
        }
    }

    /// The limit of the port is another one than before.
    fn show_limit(&self, limit: i64) {
        let labels = OverloadLabels {
            port: Port::Number(self.local.port()),
        };
        let metrics = &self.proxy.telemetry.metrics;
        metrics.overload_limit.at(&labels).set(limit);
    }
}
