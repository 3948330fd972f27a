//! Decides when a host is looked up, and what an answer changes.
//!
//! A host is looked up again when its answer is too old to use: after the time that DNS gives it,
//! within 5 seconds and 5 minutes. An answer without an address is an answer: the host leads
//! nowhere then. A lookup that failed is none, so what was known stays.
//!
//! Invariant: time is an argument, and nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// No host is looked up more often, whatever its answer says.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);
/// A changed answer is seen within this time, whatever the last one said.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// Addresses of one host. Large services answer with a dozen.
const MAX_ADDRESSES: usize = 64;

/// What came of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What DNS says, possibly that there is nothing, and for how long.
    Addresses(BTreeSet<IpAddr>, Duration),
    /// No server has answered, or none could.
    Failed,
}

/// What is known of a host from now on; none where it is of no interest any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) host: Arc<str>,
    pub(super) addresses: Option<Arc<[IpAddr]>>,
}

/// All hosts that are wanted.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    hosts: BTreeMap<Arc<str>, Host>,
}

#[derive(Debug)]
struct Host {
    /// Of the last answer.
    addresses: Option<Arc<[IpAddr]>>,
    next: Next,
}

/// The next lookup of a host.
#[derive(Clone, Copy, Debug)]
enum Next {
    At(Instant),
    UnderWay,
}

impl Schedule {
    /// Takes which hosts are wanted from now on.
    pub(super) fn want(&mut self, mut wanted: BTreeSet<Arc<str>>, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        self.hosts.retain(|name, host| {
            let stays = wanted.remove(name);
            if !stays && host.addresses.is_some() {
                changes.push(Change {
                    host: Arc::clone(name),
                    addresses: None,
                });
            }
            stays
        });
        for name in wanted {
            let host = Host {
                addresses: None,
                next: Next::At(now),
            };
            self.hosts.insert(name, host);
        }
        changes
    }

    /// Hosts that are to be looked up now, at most so many. Their lookups count as under way.
    pub(super) fn take_due(&mut self, now: Instant, room: usize) -> Vec<Arc<str>> {
        let due = |host: &Host| matches!(host.next, Next::At(at) if at <= now);
        // A host of which nothing is known comes first: calls wait for it.
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for (name, host) in self.hosts.iter().filter(|(_, host)| due(host)) {
            match host.addresses {
                None => first.push(Arc::clone(name)),
                Some(_) => rest.push(Arc::clone(name)),
            }
        }
        first.append(&mut rest);
        first.truncate(room);
        for name in &first {
            if let Some(host) = self.hosts.get_mut(name) {
                host.next = Next::UnderWay;
            }
        }
        first
    }

    /// When the next lookup is due, if none has to end before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = self.hosts.values().filter_map(|host| match host.next {
            Next::At(at) => Some(at),
            Next::UnderWay => None,
        });
        due.min()
    }

    /// Takes what came of a lookup.
    pub(super) fn answered(
        &mut self,
        name: &Arc<str>,
        answer: Answer,
        now: Instant,
    ) -> Option<Change> {
        // It may have become of no interest meanwhile.
        let host = self.hosts.get_mut(name)?;
        let Answer::Addresses(addresses, valid) = answer else {
            host.next = Next::At(now + SHORTEST);
            return None;
        };
        host.next = Next::At(now + valid.clamp(SHORTEST, LONGEST));
        let addresses: Arc<[IpAddr]> = addresses.into_iter().take(MAX_ADDRESSES).collect();
        if host.addresses.as_ref() == Some(&addresses) {
            return None;
        }
        host.addresses = Some(Arc::clone(&addresses));
        Some(Change {
            host: Arc::clone(name),
            addresses: Some(addresses),
        })
    }

    /// How many there are.
    pub(super) fn hosts(&self) -> i64 {
        i64::try_from(self.hosts.len()).unwrap_or(i64::MAX)
    }

    /// Whether each of these has been answered.
    pub(super) fn knows_all(&self) -> bool {
        self.hosts.values().all(|host| host.addresses.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str) -> Arc<str> {
        host.into()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Of a host that is looked up at this moment.
    fn scheduled(host: &str, now: Instant) -> Schedule {
        let mut schedule = Schedule::default();
        assert!(schedule.want(BTreeSet::from([name(host)]), now).is_empty());
        assert_eq!(schedule.take_due(now, 1), [name(host)]);
        schedule
    }

    fn answer(ip: [u8; 4], valid: u64) -> Answer {
        Answer::Addresses(BTreeSet::from([IpAddr::from(ip)]), seconds(valid))
    }

    #[test]
    fn host_is_looked_up_again_within_five_seconds_and_minutes() {
        for (valid, after) in [(0, 5), (1, 5), (30, 30), (3600, 300)] {
            let now = Instant::now();
            let mut schedule = scheduled("a.example", now);
            assert_eq!(schedule.next_due(), None, "one lookup at a time");
            let answer = answer([203, 0, 113, 7], valid);
            let change = schedule.answered(&name("a.example"), answer, now);
            assert!(change.is_some_and(|change| change.addresses.is_some()));
            let due = now + seconds(after);
            assert_eq!(schedule.next_due(), Some(due), "valid for {valid} s");
            assert!(schedule.take_due(due - seconds(1), 9).is_empty());
            assert_eq!(schedule.take_due(due, 9), [name("a.example")]);
        }
    }

    #[test]
    fn failed_lookup_keeps_addresses_but_empty_answer_does_not() {
        let now = Instant::now();
        let (host, mut schedule) = (name("a.example"), scheduled("a.example", now));
        assert!(schedule.answered(&host, Answer::Failed, now).is_none());
        assert!(!schedule.knows_all(), "nothing is known yet");
        let first = schedule.answered(&host, answer([203, 0, 113, 7], 9), now);
        assert!(first.is_some());
        assert!(schedule.knows_all());
        assert_eq!(schedule.answered(&host, Answer::Failed, now), None);
        assert_eq!(schedule.next_due(), Some(now + SHORTEST));
        let same = schedule.answered(&host, answer([203, 0, 113, 7], 9), now);
        assert_eq!(same, None, "nothing is new");
        let gone = schedule.answered(&host, Answer::Addresses(BTreeSet::new(), seconds(9)), now);
        let addresses = gone.and_then(|change| change.addresses);
        assert!(addresses.is_some_and(|addresses| addresses.is_empty()));
    }

    #[test]
    fn unwanted_host_is_forgotten_with_its_late_answer() {
        let now = Instant::now();
        let mut schedule = scheduled("a.example", now);
        let change = schedule.answered(&name("a.example"), answer([203, 0, 113, 7], 9), now);
        assert!(change.is_some());
        let changes = schedule.want(BTreeSet::from([name("b.example")]), now);
        let gone = Change {
            host: name("a.example"),
            addresses: None,
        };
        assert_eq!(changes, [gone]);
        let late = schedule.answered(&name("a.example"), answer([203, 0, 113, 8], 9), now);
        assert_eq!(late, None);
        assert_eq!(schedule.take_due(now, 9), [name("b.example")]);
    }

    #[test]
    fn unknown_hosts_are_looked_up_before_known_ones() {
        let now = Instant::now();
        let mut schedule = scheduled("a.example", now);
        schedule.answered(&name("a.example"), answer([203, 0, 113, 7], 5), now);
        let both = BTreeSet::from([name("a.example"), name("b.example")]);
        let later = now + seconds(5);
        assert!(schedule.want(both, later).is_empty());
        assert_eq!(schedule.take_due(later, 1), [name("b.example")]);
        assert_eq!(schedule.take_due(later, 1), [name("a.example")]);
    }
}
