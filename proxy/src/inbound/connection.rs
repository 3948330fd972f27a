//! One inbound connection: its caller, and the port of the application that it calls.
//!
//! Claims: calls-13

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use identity::verify::PeerIdentity;
use policy::access::Caller;
use policy::protocol::Protocol;
use policy::revoked::Revoked;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::snapshot::Snapshot;
use crate::config::vouched::Distrusted;
use crate::http::head::ReportedHead;
use crate::http::refusal::NotHandled;
use crate::mesh::load::LastReportedLoad;
use crate::mesh::tls::CertificateEnd;
use crate::net::abandon_limiter::ConnectGuard;
use crate::net::connect::ConnectTimeout;
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::{CallEnds, OUTSIDE};
use crate::telemetry::cell::{CallGroup, CellCache, CellKey};
use crate::telemetry::label_limits::Remotes;
use crate::telemetry::labels::{Direction, Security};

/// The caller, as all its calls are named and counted.
#[derive(Clone)]
pub(super) struct CallerContext {
    peer: Option<Arc<PeerIdentity>>,
    label: Arc<str>,
    at: Option<Arc<str>>,
    holder: Arc<str>,
    /// Of the certificate that it proved itself by.
    certificate_end: Option<CertificateEnd>,
    shared: Arc<OfCaller>,
}

/// What is kept of one caller's connection.
#[derive(Default)]
struct OfCaller {
    /// Where its calls are counted, by port.
    cells: CellCache,
    last_load: LastReportedLoad,
}

impl CallerContext {
    /// A caller of the mesh, until its certificate ends.
    pub(super) fn new(peer: Arc<PeerIdentity>, certificate_end: CertificateEnd) -> Self {
        let part = |part: Option<&str>| part.unwrap_or("?").to_owned();
        let label = format!(
            "{}/{}",
            part(peer.spiffe.namespace()),
            part(peer.spiffe.service_account())
        );
        let label: Arc<str> = label.into();
        let at: Option<Arc<str>> = peer.pod_uid().map(Arc::from);
        Self {
            // One pod of an account answers for no other one.
            holder: Arc::clone(at.as_ref().unwrap_or(&label)),
            label,
            at,
            certificate_end: Some(certificate_end),
            peer: Some(peer),
            shared: Arc::default(),
        }
    }

    /// A caller without an identity. Its address proves nothing. Names run out, and no address
    /// answers for another caller without a name.
    pub(super) fn outside(remotes: &Remotes, address: Option<IpAddr>) -> Self {
        let address = address.map(|ip| ip.to_canonical().to_string());
        let address = address.unwrap_or_default();
        let at = remotes.admit(Direction::inbound, &address);
        let at = (!at.is_empty()).then_some(at);
        Self {
            holder: at.clone().unwrap_or_else(|| address.into()),
            label: OUTSIDE.into(),
            at,
            peer: None,
            certificate_end: None,
            shared: Arc::default(),
        }
    }
}

/// Which side wrote the HTTP that a connection brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WrittenBy {
    /// The peer's proxy, which takes headers of ours out of what its application sends.
    Proxy,
    /// The sender of the bytes that HTTP was found in: in plaintext, or in the tunnel of a peer,
    /// whose proxy has not read them.
    Sender,
}

/// The caller, and which port of the application it calls.
pub(crate) struct Connection {
    pub(super) proxy: Arc<Proxy>,
    /// The peer that proved an identity: its proxy, and whatever comes in its tunnels.
    pub(super) peer: Option<Arc<PeerIdentity>>,
    written_by: WrittenBy,
    /// `namespace/service-account`, or `outside`.
    pub(super) label: Arc<str>,
    /// Uid of the calling pod, where its certificate has it; else the caller's address.
    at: Option<Arc<str>>,
    /// Which holder abandons connections that this caller causes.
    holder: Arc<str>,
    /// The application has sent something, whatever it is.
    has_answered: AtomicBool,
    certificate_end: Option<CertificateEnd>,
    shared: Arc<OfCaller>,
    /// The application's address: always one of the pod's own.
    pub(super) local: SocketAddr,
}

impl Connection {
    pub(super) fn new(proxy: Arc<Proxy>, who: CallerContext, local: SocketAddr) -> Self {
        let CallerContext {
            peer,
            label,
            at,
            holder,
            certificate_end,
            shared,
        } = who;
        Self {
            proxy,
            peer,
            written_by: WrittenBy::Sender,
            label,
            at,
            holder,
            has_answered: AtomicBool::new(false),
            certificate_end,
            shared,
            local,
        }
    }

    /// The same for what the peer's proxy sends itself.
    pub(super) fn of_proxy(mut self) -> Self {
        self.written_by = WrittenBy::Proxy;
        self
    }

    /// The guard of a call that may open connections to the application. `began`: when it has
    /// opened one already.
    pub(super) fn connect_guard(&self, began: Option<Instant>) -> ConnectGuard<'_> {
        self.proxy
            .abandon_limiter
            .connect_guard(&self.holder, began)
    }

    /// The application has sent something to this caller, or has closed its connection.
    pub(super) fn note_answer(&self) {
        self.has_answered.store(true, Relaxed);
    }

    /// The same by the connection that was opened so. At once: what makes up for an abandoned one
    /// is not to be saved for when that is of use.
    pub(super) fn note_answer_by(&self, connect_guard: Option<&ConnectGuard<'_>>) {
        self.note_answer();
        if let Some(connect_guard) = connect_guard {
            connect_guard.answered();
        }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Relaxed)
    }

    /// Opens a connection to the application.
    pub(super) fn connect(&self) -> impl Future<Output = io::Result<TcpStream>> + Send {
        let connector = &self.proxy.connector;
        connector.connect(self.local, ConnectTimeout::Application)
    }

    /// Whether headers of ours are believed in requests, and understood in answers. An
    /// identity counts without that.
    pub(super) fn is_of_proxy(&self) -> bool {
        self.written_by == WrittenBy::Proxy
    }

    pub(super) fn caller(&self) -> Caller<'_> {
        self.peer
            .as_ref()
            .map_or(Caller::Outside, |peer| Caller::Mesh {
                id: &peer.spiffe,
                pod: peer.pod_uid(),
            })
    }

    /// Returns when the certificate of the caller has ended, is of an authority that is no longer
    /// trusted, or is revoked; never for a caller without one.
    pub(super) async fn certificate_ended(&self) {
        let (Some(end), Some(peer)) = (&self.certificate_end, &self.peer) else {
            return std::future::pending().await;
        };
        let config = &self.proxy.config;
        let distrusted = config.until_refused(|now| now.keep(peer));
        // On the heap: most connections end long before.
        Box::pin(async move {
            tokio::select! {
                () = end.passed() => {}
                _ = distrusted => {}
            }
        })
        .await;
    }

    /// Whether the caller's certificate, if it has one, is of an authority that is still trusted.
    pub(super) fn vouched_for(&self, snapshot: &Snapshot) -> Result<(), Distrusted> {
        let peer = self.peer.as_ref();
        peer.map_or(Ok(()), |peer| {
            snapshot.vouched.check(&peer.certificate.authority)
        })
    }

    /// What revokes the certificate of the caller, of whom bytes pass no longer.
    pub(super) fn revoked<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Revoked> {
        // One branch for each request while nothing is revoked.
        let revocations = snapshot.revocations.as_ref()?;
        revocations.find(&self.peer.as_ref()?.facts())
    }

    /// The same where requests do not pass either.
    pub(super) fn revoked_for_good<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Revoked> {
        let revoked = self.revoked(snapshot);
        revoked.filter(|revoked| revoked.issued_before.is_none())
    }

    /// The last load of the application that it received.
    pub(super) fn last_load(&self) -> &LastReportedLoad {
        &self.shared.last_load
    }

    pub(super) const fn security(&self) -> Security {
        Security::of(self.peer.is_some())
    }

    /// A call of this caller begins.
    pub(super) fn call(&self, kind: CallKind) -> Call {
        Call::begin(&self.proxy.telemetry, kind, self.call_ends())
    }

    /// Counts it where this caller's calls of its kind and group are counted, now that these are
    /// known.
    pub(super) fn count_on_cell(&self, call: &mut Call, group: CallGroup) {
        let (port, protocol) = (self.local.port(), call.protocol());
        let of_kind = |key: &CellKey| {
            key.call_ends.port() == port && key.protocol == protocol && key.group == group
        };
        let cell = self.shared.cells.find(of_kind).unwrap_or_else(|| {
            let cell = self.proxy.telemetry.cell_of(CellKey {
                group,
                ..self.cell_key(protocol, None)
            });
            // Ports that are not distinguished have one cell together, and may be distinguished
            // by the next call.
            if of_kind(cell.key()) {
                self.shared.cells.keep(&cell);
            }
            cell
        });
        call.on(cell);
    }

    /// The way of its calls that one route of the pod describes.
    pub(super) fn cell_key(&self, protocol: Protocol, route: Option<&Arc<str>>) -> CellKey {
        CellKey {
            call_ends: self.call_ends(),
            protocol,
            route: route.cloned(),
            group: CallGroup::None,
        }
    }

    fn call_ends(&self) -> CallEnds {
        CallEnds::Inbound {
            port: self.local.port(),
            caller: Arc::clone(&self.label),
            at: self.at.clone(),
            security: self.security(),
        }
    }

    /// Counts a request that was refused before it was read.
    pub(super) fn turned_away(&self, how: NotHandled, head: ReportedHead<'_>) {
        self.call(CallKind::Request).turned_away(how, head);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn unnamed_outside_addresses_stay_separate_holders() {
        let remotes = Remotes::default();
        let who =
            |last| CallerContext::outside(&remotes, Some(Ipv4Addr::new(192, 0, 2, last).into()));
        assert!((0..64).all(|last| who(last).at.is_some()));
        let (one, other) = (who(64), who(65));
        assert_eq!((&one.at, &other.at), (&None, &None));
        assert_ne!(one.holder, other.holder);
        // Control: by whichever connection.
        assert_eq!(one.holder, who(64).holder);
    }
}
