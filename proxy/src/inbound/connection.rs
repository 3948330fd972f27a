//! Who calls, and which port of the application.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use identity::verify::PeerIdentity;
use policy::access::Caller;

use crate::proxy::Proxy;
use crate::telemetry::call::{Call, Kind};
use crate::telemetry::labels::Security;
use crate::telemetry::parties::Parties;

/// Who calls, and which port of the application.
pub(crate) struct Connection {
    pub(super) proxy: Arc<Proxy>,
    pub(super) peer: Option<PeerIdentity>,
    /// `namespace/service-account`, or `outside`.
    pub(super) label: Arc<str>,
    /// Uid of the calling pod, where its certificate says so.
    pub(super) pod: Option<Arc<str>>,
    /// The application's address: always one of the pod's own.
    pub(super) local: SocketAddr,
}

impl Connection {
    pub(super) fn new(proxy: Arc<Proxy>, peer: Option<PeerIdentity>, local: SocketAddr) -> Self {
        let label = peer.as_ref().map_or_else(
            || "outside".into(),
            |peer| {
                let part = |part: Option<&str>| part.unwrap_or("?").to_owned();
                format!(
                    "{}/{}",
                    part(peer.spiffe.namespace()),
                    part(peer.spiffe.service_account())
                )
                .into()
            },
        );
        let pod = peer.as_ref().and_then(PeerIdentity::pod_uid).map(Arc::from);
        Self {
            proxy,
            peer,
            pod,
            label,
            local,
        }
    }

    pub(super) fn caller(&self) -> Caller<'_> {
        self.peer
            .as_ref()
            .map_or(Caller::Outside, |peer| Caller::Mesh {
                id: &peer.spiffe,
                pod: peer.pod_uid(),
            })
    }

    pub(super) const fn security(&self) -> Security {
        Security::of(self.peer.is_some())
    }
}

impl Connection {
    /// A call of this caller begins.
    pub(super) fn call(&self, kind: Kind) -> Call {
        let parties = Parties::Inbound {
            port: self.local.port(),
            caller: Arc::clone(&self.label),
            pod: self.pod.clone(),
            security: self.security(),
        };
        Call::begin(&self.proxy.telemetry, kind, parties)
    }

    /// Counts a request that was refused before it was read.
    pub(super) fn turned_away(&self, status: StatusCode) {
        self.call(Kind::Request).turned_away(status);
    }
}
