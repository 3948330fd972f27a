//! The called host or address outside the mesh in an explanation, and what distinguishes callers of
//! it.

use std::net::IpAddr;

use crds::observe::To;
use policy::egress::EgressMode;

use crate::model::{Index, PodId, modes};
use crate::world::{PodFacts, Proxy};

/// The port that is meant where none is named: that of TLS.
pub(super) const PORT: u16 = 443;

/// What is called outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outside {
    /// Name of the host, or its address.
    pub(super) name: String,
    pub(super) port: Option<u16>,
}

impl Outside {
    pub(super) fn of(to: &To) -> Self {
        Self::at(&to.name, to.port)
    }

    pub(super) fn at(name: &str, port: Option<u16>) -> Self {
        Self {
            name: name.trim_matches(['[', ']']).to_owned(),
            port,
        }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }

    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(PORT)
    }

    /// Whether a pod's traffic capture leaves calls to it out.
    pub(super) fn is_left_out(&self, proxy: &Proxy) -> bool {
        let port = self.port.filter(|_| !self.name.is_empty());
        port.is_some_and(|port| proxy.leaves_out(self.address().into_iter(), port))
    }
}

/// What distinguishes pods of one account as callers of something outside.
pub(super) fn mode(index: &Index, pod: &PodId, facts: &PodFacts) -> EgressMode {
    let namespace = index.world.namespace(&pod.namespace);
    modes::egress(&index.defaults, namespace, &facts.annotations)
}
