//! Which ports are labels.
//!
//! Every client that reaches a pod may call all of its 65 535 ports, and each would be a series
//! in several families. So a port is a label of its own when it was declared or served; the rest
//! share one. Reports are bounded alike where an application tries ports that a Service does not
//! have.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::telemetry::labels::Direction;

/// Ports that are known only because they were served, in each direction. A server
/// that opens more (passive FTP does) is counted under one label for the rest.
const SERVED_PORTS: usize = 64;

/// Ports that were served without being declared.
#[derive(Debug, Default)]
pub(crate) struct ServedPorts {
    inbound: Mutex<BTreeSet<u16>>,
    outbound: Mutex<BTreeSet<u16>>,
}

impl ServedPorts {
    /// Whether `port` was ever served, `served` being the change; `None` when it is served and
    /// there is no place for it.
    pub(crate) fn note(&self, direction: Direction, port: u16, served: bool) -> Option<bool> {
        let mut known = match direction {
            Direction::inbound => self.inbound.lock(),
            Direction::outbound => self.outbound.lock(),
        };
        if known.contains(&port) {
            return Some(true);
        }
        if !served {
            return Some(false);
        }
        if known.len() >= SERVED_PORTS {
            return None;
        }
        known.insert(port);
        Some(true)
    }
}

/// Ports that this process reports as missing from Services. Reports are kept for weeks, so the
/// bound is not one of a moment.
const LACKED_PORTS: usize = 64;

/// Ports that were called and that their Services do not have.
#[derive(Debug, Default)]
pub(crate) struct LackedPorts {
    known: Mutex<BTreeSet<(Arc<str>, u16)>>,
}

impl LackedPorts {
    /// Whether this one is distinguished.
    pub(crate) fn admit(&self, service: &Arc<str>, port: u16) -> bool {
        let one = (Arc::clone(service), port);
        let mut known = self.known.lock();
        if known.len() < LACKED_PORTS {
            known.insert(one);
            return true;
        }
        known.contains(&one)
    }
}

#[cfg(test)]
mod tests {
    use super::{LACKED_PORTS, LackedPorts, SERVED_PORTS, ServedPorts};
    use crate::telemetry::labels::Direction::{inbound, outbound};

    #[test]
    fn port_is_known_per_direction_from_first_service() {
        let ports = ServedPorts::default();
        assert_eq!(ports.note(inbound, 80, false), Some(false));
        assert_eq!(ports.note(inbound, 80, true), Some(true));
        assert_eq!(ports.note(inbound, 80, false), Some(true));
        assert_eq!(ports.note(outbound, 80, false), Some(false));
    }

    #[test]
    fn server_ports_are_distinguished_up_to_fixed_limit() {
        let ports = ServedPorts::default();
        for port in 1..=SERVED_PORTS as u16 {
            assert_eq!(ports.note(inbound, port, true), Some(true));
        }
        assert_eq!(ports.note(inbound, 1000, true), None);
        assert_eq!(ports.note(inbound, 1, false), Some(true));
        assert_eq!(ports.note(outbound, 1000, true), Some(true));
    }

    #[test]
    fn lacked_ports_are_distinguished_up_to_limit() {
        let (ports, service) = (LackedPorts::default(), "shop/cart".into());
        for port in 1..=LACKED_PORTS as u16 {
            assert!(ports.admit(&service, port));
        }
        assert!(!ports.admit(&service, 1000));
        assert!(!ports.admit(&"shop/web".into(), 1));
        assert!(ports.admit(&service, 1), "a known one stays known");
    }
}
