//! One call that a peer proxy has handed over to the own Gateway to leave the mesh (an egress gateway),
//! and whether it may leave.
//!
//! The mesh's certificate of the peer proves which account calls; the object, which the controller has
//! sent, says whose calls leave, to which hosts and addresses, and how. What the peer's headers say
//! only chooses among that.

use std::net::IpAddr;
use std::sync::Arc;

use identity::verify::PeerIdentity;
use policy::egress::{Admitted, HandedCall, NotHanded, To, host_name};
use policy::protocol::Protocol;
use policy::reason::Reason;

use crate::config::snapshot::Snapshot;
use crate::config::store::DestinationGuard;
use crate::failure::Failure;
use crate::http::received::Received;
use crate::mesh::protocol::HandedOver;

/// A call that a proxy has handed over.
pub(super) struct Handed {
    peer: Arc<PeerIdentity>,
    /// `namespace/name` of the object.
    object: Arc<str>,
    /// That the caller's application used.
    port: u16,
    pub(super) to: HandedTarget,
    /// The version of HTTP of a request; `None`: these are bytes.
    pub(super) speaks: Option<Protocol>,
    /// Keeps what stands at its address in the configuration.
    _guard: Option<DestinationGuard>,
}

/// Where it is to go, as the peer wrote it.
pub(super) enum HandedTarget {
    Host(Box<str>),
    Address(IpAddr),
}

impl HandedTarget {
    fn read(raw: &str) -> Result<Self, Failure> {
        if let Ok(ip) = raw.parse::<IpAddr>() {
            return Ok(Self::Address(ip.to_canonical()));
        }
        let host = host_name(raw).map(|host| Self::Host(host.into()));
        host.ok_or_else(|| {
            let detail = "weft-external-to is neither a host nor an address";
            Failure::refused(Reason::BadRequest, detail)
        })
    }
}

impl Handed {
    /// As this peer has handed it over: a request in this version of HTTP, or bytes.
    ///
    /// # Errors
    /// When it is to go nowhere.
    pub(super) fn new(
        peer: Arc<PeerIdentity>,
        over: HandedOver,
        port: u16,
        speaks: Option<Protocol>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            peer,
            to: HandedTarget::read(&over.to)?,
            object: over.object,
            port,
            speaks,
            _guard: None,
        })
    }

    /// With what keeps its address in the configuration, where it goes to one.
    pub(super) fn keeping(self, guard: Option<DestinationGuard>) -> Self {
        Self {
            _guard: guard,
            ..self
        }
    }

    /// How it leaves.
    pub(super) fn admitted<'a>(&'a self, snapshot: &'a Snapshot) -> Result<Admitted<'a>, Failure> {
        let revoked = match self.speaks {
            Some(_) => snapshot.revoked_for_good(&self.peer),
            None => snapshot.revoked(&self.peer),
        };
        if let Some(revoked) = revoked {
            return Err(Failure::Refused {
                reason: Reason::Revoked,
                by: Some(revoked.by.clone()),
                detail:
                    "the certificate of the caller is revoked: `kubectl get revocations` shows \
                         by what"
                        .into(),
            });
        }
        let distrusted = snapshot.vouched.check(&self.peer.certificate.authority);
        if distrusted.is_err() {
            let detail =
                "the certificate of the caller is of an authority that is no longer trusted";
            return Err(Failure::refused(Reason::NoIdentity, detail));
        }
        let spiffe = &self.peer.spiffe;
        let call = HandedCall {
            object: &self.object,
            namespace: spiffe.namespace().unwrap_or_default(),
            account: spiffe.service_account().unwrap_or_default(),
            port: self.port,
            to: match &self.to {
                HandedTarget::Host(host) => To::Host(host),
                HandedTarget::Address(ip) => To::Address(*ip),
            },
        };
        let let_out = snapshot.egress.lets_out(&call);
        let_out.map_err(|why| self.not_let_out(why))
    }

    fn not_let_out(&self, why: NotHanded) -> Failure {
        let Self { object, port, .. } = self;
        let detail = match why {
            NotHanded::Object => format!(
                "ExternalService {object} is not one whose calls leave by this Gateway: name it in \
                 spec.gateway of that"
            ),
            NotHanded::Caller => format!(
                "spec.sources of ExternalService {object} does not list the service account of the \
                 caller; list it there"
            ),
            NotHanded::Destination => format!(
                "ExternalService {object} gives no such host or address at port {port}; name it in \
                 spec.hosts or spec.addresses, with the port"
            ),
        };
        Failure::refused(Reason::EgressDenied, detail)
    }

    /// Whether what is carried may still leave.
    pub(super) fn may_go_on(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        self.admitted(snapshot).map(|_| ())
    }
}

/// Forgets what a request says of other requests, which are none of this Gateway's.
pub(super) fn enter(received: &mut Received) {
    received.context = None;
    received.retry = false;
    received.route_override = None;
    received.client_address = None;
}
