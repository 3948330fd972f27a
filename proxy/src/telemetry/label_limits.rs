//! Bounds which ports and which names outside the mesh get a label of their own, in metrics and in
//! reports.
//!
//! Every client that reaches a pod may call all of its 65 535 ports, and each would be a series in
//! several families. So a port is a label of its own when it was declared or served; the rest share
//! one. Reports are bounded alike where an application tries ports that a Service does not have. A
//! caller from outside has as many addresses as it likes, and an application may crawl: names
//! beyond the bound are reported together with the others.
//!
//! Claims: observe-144

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::telemetry::labels::Direction;
use crate::telemetry::report::INTERVAL;

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

/// Names of one side in one interval, which a report has room for beside the mesh's own edges.
const REMOTES: usize = 64;
/// Bytes of a name: the longest of DNS.
const LONGEST: usize = 253;

/// Names and addresses outside the mesh that are distinguished: so many in one interval.
#[derive(Debug)]
pub(crate) struct Remotes {
    began: Instant,
    inbound: Mutex<Slot>,
    outbound: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    number: u64,
    names: HashSet<Arc<str>>,
}

impl Default for Remotes {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            inbound: Mutex::default(),
            outbound: Mutex::default(),
        }
    }
}

impl Remotes {
    /// The name to count by; empty if there are too many, or if it is none.
    pub(crate) fn admit(&self, direction: Direction, name: &str) -> Arc<str> {
        let now = self.began.elapsed().as_secs() / INTERVAL;
        let side = match direction {
            Direction::inbound => &self.inbound,
            Direction::outbound => &self.outbound,
        };
        let mut slot = side.lock();
        slot.admit(now, name)
    }
}

impl Slot {
    fn admit(&mut self, now: u64, name: &str) -> Arc<str> {
        if self.number != now {
            self.number = now;
            self.names.clear();
        }
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let readable = name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !readable || self.names.len() >= REMOTES {
            return Arc::default();
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn remotes_are_limited_per_interval() {
        let mut slot = Slot::default();
        let name = |number: usize| format!("10.0.0.{number}");
        for number in 0..REMOTES {
            assert_eq!(&*slot.admit(1, &name(number)), name(number));
        }
        assert_eq!(&*slot.admit(1, "10.0.1.1"), "");
        assert_eq!(
            &*slot.admit(1, &name(3)),
            name(3),
            "a known one stays known"
        );
        assert_eq!(&*slot.admit(2, "10.0.1.1"), "10.0.1.1");
    }

    #[test]
    fn what_no_terminal_should_see_is_no_name() {
        let mut slot = Slot::default();
        let long = "a".repeat(LONGEST + 1);
        for bad in [long.as_str(), "a b", "\u{1b}[31m", "h\u{f6}st"] {
            assert_eq!(&*slot.admit(1, bad), "", "{bad:?}");
        }
        assert_eq!(slot.names.len(), 0);
    }
}
