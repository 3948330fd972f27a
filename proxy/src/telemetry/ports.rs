//! Which ports are labels.
//!
//! Anybody who reaches a pod may call all of its 65 535 ports, and each would be a
//! series in several families. So a port is a label of its own when somebody declared
//! it or when it was served; the rest share one.

use std::collections::BTreeSet;

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
    /// Whether `port` was ever served, `served` being the news; `None` when it is
    /// served and there is no place for it.
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

#[cfg(test)]
mod tests {
    use super::{SERVED_PORTS, ServedPorts};
    use crate::telemetry::labels::Direction::{inbound, outbound};

    #[test]
    fn a_port_is_known_from_its_first_service_on_and_in_that_direction_only() {
        let ports = ServedPorts::default();
        assert_eq!(ports.note(inbound, 80, false), Some(false));
        assert_eq!(ports.note(inbound, 80, true), Some(true));
        assert_eq!(ports.note(inbound, 80, false), Some(true));
        assert_eq!(ports.note(outbound, 80, false), Some(false));
    }

    #[test]
    fn a_server_on_many_ports_takes_so_many_places_and_no_more() {
        let ports = ServedPorts::default();
        for port in 1..=SERVED_PORTS as u16 {
            assert_eq!(ports.note(inbound, port, true), Some(true));
        }
        assert_eq!(ports.note(inbound, 1000, true), None);
        assert_eq!(ports.note(inbound, 1, false), Some(true));
        assert_eq!(ports.note(outbound, 1000, true), Some(true));
    }
}
