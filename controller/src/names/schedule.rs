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

use model::world::ObjectKey;
use tokio::time::Instant;

/// No host is looked up more often, whatever its answer says.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);
/// A changed answer is seen within this time, whatever the last one said.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// Addresses of one host. Large services answer with a dozen.
const MAX_ADDRESSES: usize = 64;

/// Hosts by name in small letters, each with the objects that name it.
pub(super) type Wanted = BTreeMap<Arc<str>, BTreeSet<ObjectKey>>;

/// What came of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What DNS says, possibly that there is nothing, and for how long.
    Addresses(BTreeSet<IpAddr>, Duration),
    /// No server has answered, or none could.
    Failed,
}

/// What is known of a host to an object; none where it is of no interest any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) object: ObjectKey,
    pub(super) host: Arc<str>,
    pub(super) addresses: Option<Vec<IpAddr>>,
}

/// All hosts that are wanted.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    hosts: BTreeMap<Arc<str>, Host>,
}

#[derive(Debug)]
struct Host {
    objects: BTreeSet<ObjectKey>,
    /// Of the last answer.
    addresses: Option<Vec<IpAddr>>,
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
    pub(super) fn want(&mut self, mut wanted: Wanted, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        self.hosts.retain(|name, host| {
            let objects = wanted.remove(name).unwrap_or_default();
            let of = |object: &ObjectKey, addresses| Change {
                object: object.clone(),
                host: Arc::clone(name),
                addresses,
            };
            if host.addresses.is_some() {
                let gone = host.objects.difference(&objects);
                changes.extend(gone.map(|object| of(object, None)));
                let new = objects.difference(&host.objects);
                changes.extend(new.map(|object| of(object, host.addresses.clone())));
            }
            host.objects = objects;
            !host.objects.is_empty()
        });
        for (name, objects) in wanted {
            let host = Host {
                objects,
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
    pub(super) fn answered(&mut self, name: &str, answer: Answer, now: Instant) -> Vec<Change> {
        // It may have become of no interest meanwhile.
        let Some(host) = self.hosts.get_mut(name) else {
            return Vec::new();
        };
        let Answer::Addresses(addresses, valid) = answer else {
            host.next = Next::At(now + SHORTEST);
            return Vec::new();
        };
        host.next = Next::At(now + valid.clamp(SHORTEST, LONGEST));
        let addresses: Vec<IpAddr> = addresses.into_iter().take(MAX_ADDRESSES).collect();
        if host.addresses.as_ref() == Some(&addresses) {
            return Vec::new();
        }
        host.addresses = Some(addresses);
        let of = |object: &ObjectKey| Change {
            object: object.clone(),
            host: name.into(),
            addresses: host.addresses.clone(),
        };
        host.objects.iter().map(of).collect()
    }

    /// Whether each of these has been answered.
    pub(super) fn knows_all(&self) -> bool {
        self.hosts.values().all(|host| host.addresses.is_some())
    }
}
