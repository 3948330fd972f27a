//! Who calls, and which port of the application.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use identity::verify::PeerIdentity;
use policy::access::Caller;

use crate::proxy::Proxy;
use crate::telemetry::call::Call;
use crate::telemetry::labels::{Direction, Security};

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
    pub(super) fn tcp_call(&self) -> Call {
        Call::tcp(
            &self.proxy.telemetry,
            Direction::inbound,
            Arc::default(),
            self.local.port(),
            Arc::default(),
            Arc::clone(&self.label),
            self.security(),
        )
        .with_caller(self.pod.clone())
    }

    /// Counts a request that was refused before it was read.
    pub(super) fn turned_away(&self, status: StatusCode) {
        let mut call = Call::unread(&self.proxy.telemetry, Direction::inbound)
            .to(Arc::default(), self.local.port(), Arc::default())
            .with_caller(self.pod.clone());
        call.peer(Arc::clone(&self.label), self.security());
        call.turned_away(status);
    }
}
