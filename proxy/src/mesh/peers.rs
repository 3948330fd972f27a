//! All peer proxies that this one calls.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::name::SpiffeId;

use crate::http::http2::keepalive::Suspects;
use crate::mesh::peer::Peer;
use crate::mesh::tls::{ExpectedPeer, MeshTls};
use crate::net::budget::Budget;

/// A peer's address, what its certificate must carry, and the uid of its pod.
type PeerKey = (IpAddr, SpiffeId, Arc<str>);

/// Every connection that the proxy opens to peer proxies.
#[derive(Debug)]
pub struct Peers {
    tls: MeshTls,
    budget: Arc<Budget>,
    suspects: Suspects,
    mesh: Mutex<HashMap<PeerKey, Arc<Peer>>>,
}

impl Peers {
    #[must_use]
    pub fn new(tls: MeshTls, budget: Arc<Budget>) -> Self {
        Self {
            tls,
            budget,
            suspects: Suspects::default(),
            mesh: Mutex::default(),
        }
    }

    /// TLS with them, in both directions.
    #[must_use]
    pub const fn tls(&self) -> &MeshTls {
        &self.tls
    }

    /// The proxy of the pod `pod_uid` at `ip`. Empty: of whichever pod has that identity there, as
    /// an older controller sends no more.
    pub fn mesh(&self, ip: IpAddr, identity: &SpiffeId, pod_uid: &Arc<str>) -> Arc<Peer> {
        let mut mesh = self.mesh.lock();
        let key = (ip, identity.clone(), Arc::clone(pod_uid));
        Arc::clone(mesh.entry(key).or_insert_with(|| {
            Arc::new(Peer::new(
                ip,
                ExpectedPeer {
                    identity: identity.clone(),
                    pod_uid: Arc::clone(pod_uid),
                },
                self.tls.clone(),
                Arc::clone(&self.budget),
                self.suspects.clone(),
            ))
        }))
    }

    /// Whether any connection to one of them is known to be silent.
    pub(crate) fn any_suspect(&self) -> bool {
        self.suspects.any()
    }

    /// Looks after what waits by dedicated connections. Called every `WATCH_EVERY`.
    pub fn watch_over(&self) {
        self.mesh.lock().values().for_each(Peer::watch_over);
    }

    /// Closes what is idle. Called every few seconds.
    pub fn sweep(&self) {
        // A peer to which a connection is being opened right now is held by them too.
        self.mesh
            .lock()
            .retain(|_, peer| !peer.sweep() || Arc::strong_count(peer) > 1);
    }
}
