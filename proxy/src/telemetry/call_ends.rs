//! The two ends of a call, by which it is counted, reported and logged.
//!
//! Imports `labels`, and nothing else of the crate.
//!
//! Claims: observe-140

use std::sync::Arc;

use policy::origin::Origin;

use crate::telemetry::labels::{Direction, Port, Security};

/// A destination outside the mesh, called by its address.
const EXTERNAL: &str = "external";
/// A caller without an identity. No account has such a name.
pub(crate) const OUTSIDE: &str = "outside";

/// The two ends of a call, as far as they are known by now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CallEnds {
    /// The own application what the mesh serves.
    Outbound {
        /// `namespace/name` of the Service, empty for a pod or an unknown address.
        service: Arc<str>,
        port: u16,
        /// The Service whose endpoint gets the call.
        backend: Arc<str>,
        /// What chose the backend, where it is not the Service itself.
        rule: Option<Origin>,
        /// The pod that gets it.
        pod: Arc<str>,
        security: Security,
    },
    /// The own application something outside the mesh.
    External {
        port: u16,
        /// The host's name, or its address; empty where it is not distinguished.
        remote: Arc<str>,
        /// Of the way to the Gateway by which it leaves, where it leaves by one.
        security: Security,
    },
    /// The own application calls what has no server: a port that the Service lacks, or an address
    /// at which it is not known by now what stands there.
    Unserved {
        /// `namespace/name` of the Service whose address it is; empty where that is not known.
        service: Arc<str>,
        /// 0 where it is not distinguished.
        port: u16,
        /// The address where no Service is known; empty where it is not distinguished.
        remote: Arc<str>,
    },
    /// A caller calls the own application.
    Inbound {
        port: u16,
        /// `namespace/service-account`, or `outside`.
        caller: Arc<str>,
        /// Uid of the calling pod, where its certificate has it. Of a caller outside its address,
        /// where that is distinguished.
        at: Option<Arc<str>>,
        security: Security,
    },
    /// Calls of which only the side is counted, because there are too many others.
    Rest(Direction),
}

impl CallEnds {
    /// A call that goes to no endpoint yet.
    pub(crate) fn to_service(service: Arc<str>, port: u16) -> Self {
        Self::Outbound {
            service,
            port,
            backend: Arc::default(),
            rule: None,
            pod: Arc::default(),
            security: Security::none,
        }
    }

    /// The same with another port.
    #[must_use]
    pub(crate) fn at_port(mut self, number: u16) -> Self {
        if let Self::Outbound { port, .. }
        | Self::External { port, .. }
        | Self::Unserved { port, .. }
        | Self::Inbound { port, .. } = &mut self
        {
            *port = number;
        }
        self
    }

    pub(crate) const fn direction(&self) -> Direction {
        match self {
            Self::Outbound { .. } | Self::External { .. } | Self::Unserved { .. } => {
                Direction::outbound
            }
            Self::Inbound { .. } => Direction::inbound,
            Self::Rest(direction) => *direction,
        }
    }

    pub(crate) const fn port(&self) -> u16 {
        match self {
            Self::Outbound { port, .. }
            | Self::External { port, .. }
            | Self::Unserved { port, .. }
            | Self::Inbound { port, .. } => *port,
            Self::Rest(_) => 0,
        }
    }

    /// The port as a label, of the ends of a cell.
    pub(crate) const fn port_label(&self) -> Port {
        match (self, self.port()) {
            // Neither declared nor served: a scan of all ports would make a series of each.
            (Self::Unserved { .. }, _) | (_, 0) => Port::Other,
            (_, number) => Port::Number(number),
        }
    }

    pub(crate) const fn security(&self) -> Security {
        match self {
            Self::Outbound { security, .. }
            | Self::External { security, .. }
            | Self::Inbound { security, .. } => *security,
            Self::Unserved { .. } => Security::none,
            Self::Rest(_) => Security::plaintext,
        }
    }

    /// Whether nothing is known of the other end, and it is not outside the mesh.
    pub(crate) fn is_nowhere(&self) -> bool {
        matches!(self, Self::Outbound { service, backend, pod, .. }
            if service.is_empty() && backend.is_empty() && pod.is_empty())
    }

    /// `namespace/name` of the Service that was called, empty where there is none.
    pub(crate) fn service_name(&self) -> &str {
        match self {
            Self::Outbound { service, .. } | Self::Unserved { service, .. } => service,
            Self::External { .. } | Self::Inbound { .. } | Self::Rest(_) => "",
        }
    }

    /// The same as a label.
    pub(crate) fn service(&self) -> Arc<str> {
        match self {
            Self::Outbound { service, .. } | Self::Unserved { service, .. } => Arc::clone(service),
            Self::External { .. } | Self::Inbound { .. } | Self::Rest(_) => Arc::default(),
        }
    }

    pub(crate) fn backend(&self) -> Arc<str> {
        match self {
            Self::Outbound { backend, .. } => Arc::clone(backend),
            Self::External { .. }
            | Self::Unserved { .. }
            | Self::Inbound { .. }
            | Self::Rest(_) => Arc::default(),
        }
    }

    pub(crate) fn backend_name(&self) -> &str {
        match self {
            Self::Outbound { backend, .. } => backend,
            Self::External { .. }
            | Self::Unserved { .. }
            | Self::Inbound { .. }
            | Self::Rest(_) => "",
        }
    }

    /// The other end, as metrics name it.
    pub(crate) fn peer(&self) -> Arc<str> {
        match self {
            Self::Outbound { pod: peer, .. } | Self::Inbound { caller: peer, .. } => {
                Arc::clone(peer)
            }
            Self::External { .. } => EXTERNAL.into(),
            Self::Unserved { .. } | Self::Rest(_) => Arc::default(),
        }
    }

    pub(crate) fn peer_name(&self) -> &str {
        match self {
            Self::Outbound { pod: peer, .. } | Self::Inbound { caller: peer, .. } => peer,
            Self::External { .. } => EXTERNAL,
            Self::Unserved { .. } | Self::Rest(_) => "",
        }
    }

    /// What chose the backend.
    pub(crate) const fn rule(&self) -> Option<&Origin> {
        match self {
            Self::Outbound { rule, .. } => rule.as_ref(),
            Self::External { .. }
            | Self::Unserved { .. }
            | Self::Inbound { .. }
            | Self::Rest(_) => None,
        }
    }

    /// Uid of the calling pod.
    pub(crate) fn caller(&self) -> Option<&Arc<str>> {
        match self {
            Self::Inbound { caller, at, .. } if **caller != *OUTSIDE => at.as_ref(),
            Self::Inbound { .. }
            | Self::Outbound { .. }
            | Self::External { .. }
            | Self::Unserved { .. }
            | Self::Rest(_) => None,
        }
    }

    /// Distinguishes what is outside the mesh, or not served, no longer.
    pub(crate) fn forget_remote(&mut self) {
        match self {
            Self::External { remote, .. } => *remote = Arc::default(),
            Self::Unserved { port, remote, .. } => {
                (*port, *remote) = (0, Arc::default());
            }
            Self::Inbound { caller, at, .. } if **caller == *OUTSIDE => *at = None,
            Self::Inbound { .. } | Self::Outbound { .. } | Self::Rest(_) => {}
        }
    }

    /// The other end where it is outside the mesh: its name or address; empty where that is not
    /// distinguished.
    pub(crate) fn remote(&self) -> &str {
        match self {
            Self::External { remote, .. } | Self::Unserved { remote, .. } => remote,
            Self::Inbound { caller, at, .. } if **caller == *OUTSIDE => {
                at.as_deref().unwrap_or_default()
            }
            Self::Inbound { .. } | Self::Outbound { .. } | Self::Rest(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unserved_destination_keeps_service_when_remote_is_dropped() {
        let unserved = |service: &str, port, remote: &str| CallEnds::Unserved {
            service: service.into(),
            port,
            remote: remote.into(),
        };
        for (mut call_ends, left) in [
            (unserved("shop/cart", 81, ""), unserved("shop/cart", 0, "")),
            (unserved("", 81, "10.0.0.7"), unserved("", 0, "")),
            (
                CallEnds::to_service("shop/cart".into(), 80),
                CallEnds::to_service("shop/cart".into(), 80),
            ),
        ] {
            call_ends.forget_remote();
            assert_eq!(call_ends, left);
        }
    }
}
