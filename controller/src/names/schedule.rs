//! Decides when the addresses of a host are looked up, and which of them count after an answer of
//! DNS.
//!
//! A host is looked up again when its answer is too old to use: after the time that DNS gives it,
//! within 5 seconds and 5 minutes. An answer without an address is an answer: the host leads
//! nowhere then. A lookup that failed is none, so what was known stays.
//!
//! Hosts of one namespace share a part of the lookups at a time, so names whose servers do not
//! answer keep none of another namespace waiting.
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

/// Lookups at a time for objects of one namespace.
const AT_ONCE_FOR_ONE: usize = 8;

/// The hosts that are wanted, each with the namespaces of the objects that want it.
pub(super) type Wanted = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

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
    /// Hosts that are looked up, of interest or not any more, each for one of its namespaces.
    under_way: BTreeMap<Arc<str>, Arc<str>>,
}

#[derive(Debug)]
struct Host {
    /// Of the last answer.
    addresses: Option<Arc<[IpAddr]>>,
    namespaces: BTreeSet<Arc<str>>,
    /// A lookup has ended.
    is_tried: bool,
    /// When it is to be looked up again.
    next: Instant,
}

impl Schedule {
    /// Takes which hosts are wanted from now on.
    pub(super) fn want(&mut self, mut wanted: Wanted, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        self.hosts.retain(|name, host| {
            let Some(namespaces) = wanted.remove(name) else {
                if host.addresses.is_some() {
                    changes.push(Change {
                        host: Arc::clone(name),
                        addresses: None,
                    });
                }
                return false;
            };
            host.namespaces = namespaces;
            true
        });
        for (name, namespaces) in wanted {
            let host = Host {
                addresses: None,
                namespaces,
                is_tried: false,
                next: now,
            };
            self.hosts.insert(name, host);
        }
        changes
    }

    /// Hosts that are to be looked up now, at most so many. Their lookups count as under way.
    pub(super) fn take_due(&mut self, now: Instant, room: usize) -> Vec<Arc<str>> {
        // A host that is new comes first, since calls wait for it; then the one that is due longest.
        let due = self.waiting().filter(|(_, host)| host.next <= now);
        let mut due: Vec<(bool, Instant, &Arc<str>)> = due
            .map(|(name, host)| (host.is_tried, host.next, name))
            .collect();
        due.sort_unstable();
        let due: Vec<Arc<str>> = due.into_iter().map(|(.., name)| Arc::clone(name)).collect();
        let mut taken = Vec::new();
        for name in due {
            if taken.len() == room {
                break;
            }
            let host = self.hosts.get(&name);
            if let Some(namespace) = host.and_then(|host| self.with_room(host)).cloned() {
                self.under_way.insert(Arc::clone(&name), namespace);
                taken.push(name);
            }
        }
        taken
    }

    /// Those that are not looked up.
    fn waiting(&self) -> impl Iterator<Item = (&Arc<str>, &Host)> {
        let hosts = self.hosts.iter();
        hosts.filter(move |(name, _)| !self.under_way.contains_key(*name))
    }

    /// A namespace for which the host may be looked up beside those that are.
    fn with_room<'a>(&self, host: &'a Host) -> Option<&'a Arc<str>> {
        host.namespaces.iter().find(|namespace| {
            let others = self.under_way.values();
            others.filter(|other| other == namespace).count() < AT_ONCE_FOR_ONE
        })
    }

    /// When the next lookup is due, if none has to end before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let free = self
            .waiting()
            .filter(|(_, host)| self.with_room(host).is_some());
        free.map(|(_, host)| host.next).min()
    }

    /// Takes what came of a lookup.
    pub(super) fn answered(
        &mut self,
        name: &Arc<str>,
        answer: Answer,
        now: Instant,
    ) -> Option<Change> {
        self.under_way.remove(name);
        // It may have become of no interest meanwhile.
        let host = self.hosts.get_mut(name)?;
        host.is_tried = true;
        let Answer::Addresses(addresses, valid) = answer else {
            host.next = now + SHORTEST;
            return None;
        };
        host.next = now + valid.clamp(SHORTEST, LONGEST);
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

    /// Hosts of objects in one namespace.
    fn shop(hosts: impl IntoIterator<Item = Arc<str>>) -> Wanted {
        let namespaces = BTreeSet::from([Arc::from("shop")]);
        let hosts = hosts.into_iter();
        hosts.map(|host| (host, namespaces.clone())).collect()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Of a host that is looked up at this moment.
    fn scheduled(host: &str, now: Instant) -> Schedule {
        let mut schedule = Schedule::default();
        assert!(schedule.want(shop([name(host)]), now).is_empty());
        assert_eq!(schedule.take_due(now, 1), [name(host)]);
        schedule
    }

    fn answer(ip: [u8; 4], valid: u64) -> Answer {
        Answer::Addresses(BTreeSet::from([IpAddr::from(ip)]), seconds(valid))
    }

    #[test]
    fn next_lookup_is_within_five_seconds_and_minutes() {
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
        let changes = schedule.want(shop([name("b.example")]), now);
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
        let both = shop([name("a.example"), name("b.example")]);
        let later = now + seconds(5);
        assert!(schedule.want(both, later).is_empty());
        assert_eq!(schedule.take_due(later, 1), [name("b.example")]);
        assert_eq!(schedule.take_due(later, 1), [name("a.example")]);
    }

    /// A wildcard may cover names whose servers never answer.
    #[test]
    fn failing_hosts_keep_no_others_waiting() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        let slow = (0..100).map(|number| name(&format!("a{number}.slow.example")));
        let mut wanted = shop(slow);
        wanted.insert(name("z.example"), BTreeSet::from([Arc::from("bank")]));
        assert!(schedule.want(wanted.clone(), now).is_empty());
        let first = schedule.take_due(now, 32);
        assert_eq!(
            first.len(),
            AT_ONCE_FOR_ONE + 1,
            "no more for one namespace"
        );
        assert!(first.contains(&name("z.example")));
        assert_eq!(schedule.next_due(), None, "another lookup has to end");
        // Forgotten and wanted again, they are still under way.
        schedule.want(Wanted::default(), now);
        schedule.want(wanted, now);
        assert!(schedule.take_due(now, 32).is_empty());
        let later = now + seconds(10);
        for host in &first {
            schedule.answered(host, Answer::Failed, later);
        }
        let second = schedule.take_due(later + SHORTEST, 32);
        assert_eq!(second.len(), AT_ONCE_FOR_ONE + 1);
        let again = second.iter().filter(|host| first.contains(host));
        assert_eq!(again.count(), 1, "others of their namespace come first");
    }
}
