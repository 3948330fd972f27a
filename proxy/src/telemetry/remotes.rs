//! Names and addresses outside the mesh that are distinguished: so many in one slot.
//!
//! A caller from outside makes up as many addresses as it likes, and an application may crawl.
//! What finds no place is reported together with the others.
//!
//! Claims: observe-144

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::telemetry::labels::Direction;
use crate::telemetry::report::SLOT;

/// Names of one side in one slot, which a report has room for beside the mesh's own edges.
const REMOTES: usize = 64;
/// Bytes of a name: the longest of DNS.
const LONGEST: usize = 253;

/// See the module header.
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
        let now = self.began.elapsed().as_secs() / SLOT;
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
