//! Decides which resources one proxy is sent next.
//!
//! A [`Session`] compares what the proxy should hold with what it was sent and makes one batch of
//! the difference. There is no queue: while a batch is not acknowledged no other is made, and
//! later changes are read from the newest Model afterwards, so a slow proxy skips states instead
//! of falling behind. The first batch takes into account what the proxy reports to hold.
//!
//! A resource that the proxy could not use is not sent again until its content
//! changes: the same bytes would fail the same way.
//!
//! Invariant: time is an argument, and nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use model::published::EncodedResource;
use model::resources::{left_out::LeftOut, urgency::must_not_wait};
use policy::egress::MAX_NAMES;
use policy::name::ObjectRef;
use tokio::time::Instant;
use wire::capability::Capabilities;
use wire::names::EXTERNAL;
use wire::v1;

/// Destinations that one proxy may request. One per address and port that its pod ever calls; what
/// is above is refused and counted.
pub(crate) const MAX_DESTINATIONS: usize = 4096;
/// A busy proxy gets at most one batch per this time.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// Batches without an answer, at most. More than one only so that the answer to
/// a new destination need not wait for the answer to a batch before it.
const MAX_UNANSWERED: usize = 3;
/// A proxy that answers nothing for this long is cut off; it then starts afresh.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a nack's reason that are kept.
const REASON_LIMIT: usize = 512;

/// What a proxy should hold: resources by name.
pub(crate) type Target = BTreeMap<String, Arc<EncodedResource>>;

/// One stream's state.
#[derive(Debug)]
pub(crate) struct Session {
    /// What the proxy held when the stream began, until the first batch is made.
    initial_versions: BTreeMap<String, String>,
    /// What the proxy understands.
    capabilities: Capabilities,
    destinations: BTreeSet<String>,
    /// Of those, what others requested and this proxy did not.
    unasked: BTreeSet<String>,
    /// Objects of which something is not sent, because the proxy is too old for it.
    left_out: Vec<LeftOut>,
    /// What the proxy holds once all batches are answered.
    sent: BTreeMap<String, Sent>,
    refused: BTreeMap<String, Refused>,
    unanswered: BTreeMap<u64, Unanswered>,
    last_id: u64,
    last_sent: Option<Instant>,
}

/// A resource version that the proxy could not use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    version: String,
    reason: String,
}

/// A resource as it was sent last.
#[derive(Debug)]
struct Sent {
    published: Arc<EncodedResource>,
    /// The batch that carried it: an answer to an older one says nothing of it.
    batch: u64,
    /// What the proxy has confirmed to use, which may be older. All streams share the
    /// resource, so a confirmation costs one pointer and no names of its own.
    acknowledged: Option<Arc<EncodedResource>>,
}

impl Sent {
    fn version(&self) -> &str {
        &self.published.resource.version
    }
}

#[derive(Debug)]
struct Unanswered {
    at: Instant,
    /// What is in it, unchanged ones included.
    carries: Vec<Arc<EncodedResource>>,
}

/// When the next batch may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Now.
    Now,
    /// Not before this moment.
    At(Instant),
    /// When an answer comes.
    AfterAnswer,
}

/// What an answer reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Resources that the proxy could not use.
    pub refused: usize,
    /// The batch was not one that waited for an answer.
    pub unknown: bool,
    /// From sending to the answer.
    pub after: Option<Duration>,
    /// Whether it was about resources that were made from objects.
    pub objects: bool,
    /// Resources that it was about.
    pub carried: usize,
}

impl Session {
    /// `retained`: what other proxies of the same workload requested. Returns the session and how
    /// many destinations did not fit.
    pub(crate) fn new(
        hello: v1::Hello,
        retained: impl IntoIterator<Item = String>,
    ) -> (Self, usize) {
        let mut session = Self {
            initial_versions: hello.held.into_iter().collect(),
            capabilities: Capabilities::named(&hello.capabilities),
            destinations: BTreeSet::new(),
            unasked: BTreeSet::new(),
            left_out: Vec::new(),
            sent: BTreeMap::new(),
            refused: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            last_id: 0,
            last_sent: None,
        };
        let left_out = session.add(hello.destinations);
        // What does not fit of the persisted was not requested, so it is no loss.
        for name in retained {
            if session.has_room(&name) && session.destinations.insert(name.clone()) {
                session.unasked.insert(name);
            }
        }
        (session, left_out)
    }

    /// What this proxy understands.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether the proxy was sent this, and nothing took it back.
    pub(crate) fn was_sent(&self, name: &str) -> bool {
        self.sent.contains_key(name)
    }

    /// Notes of which objects something is not sent because the proxy could not use it.
    pub(crate) fn leave_out(&mut self, objects: Vec<LeftOut>) {
        self.left_out = objects;
    }

    /// Destinations that this proxy gets.
    pub(crate) fn destinations(&self) -> &BTreeSet<String> {
        &self.destinations
    }

    /// Returns how many were skipped because of [`MAX_DESTINATIONS`] and [`MAX_NAMES`].
    pub(crate) fn subscribe(&mut self, change: v1::Subscribe) -> usize {
        self.forget(&change.remove);
        self.add(change.add)
    }

    /// Takes destinations out that turned out to be of no use.
    pub(crate) fn forget(&mut self, names: &[String]) {
        for name in names {
            self.destinations.remove(name);
            self.unasked.remove(name);
        }
    }

    fn add(&mut self, names: impl IntoIterator<Item = String>) -> usize {
        let mut left_out = 0;
        for name in names {
            self.unasked.remove(&name);
            if self.destinations.contains(&name) {
                continue;
            }
            self.make_room(&name);
            if self.has_room(&name) {
                self.destinations.insert(name);
            } else {
                left_out += 1;
            }
        }
        left_out
    }

    /// Takes out what was not requested, where this name has no room otherwise.
    fn make_room(&mut self, name: &str) {
        let other = if self.has_room(name) {
            None
        } else if self.destinations.len() >= MAX_DESTINATIONS {
            self.unasked.first().cloned()
        } else {
            let mut unasked = self.unasked.iter();
            unasked.find(|one| one.starts_with(EXTERNAL)).cloned()
        };
        if let Some(other) = other {
            self.unasked.remove(&other);
            self.destinations.remove(&other);
        }
    }

    /// Whether one more name may be requested. Each host outside the mesh has to be resolved, so
    /// there are fewer of them.
    fn has_room(&self, name: &str) -> bool {
        let hosts = || {
            let all = self
                .destinations
                .range::<str, _>((Bound::Included(EXTERNAL), Bound::Unbounded));
            all.take_while(|one| one.starts_with(EXTERNAL)).count()
        };
        self.destinations.len() < MAX_DESTINATIONS
            && (!name.starts_with(EXTERNAL) || hosts() < MAX_NAMES)
    }

    /// When a batch may be sent. `urgent`: a subscription, or a change that
    /// must not wait.
    pub(crate) fn due(&self, urgent: bool, now: Instant) -> Due {
        let room = if urgent { MAX_UNANSWERED } else { 1 };
        if self.unanswered.len() >= room {
            return Due::AfterAnswer;
        }
        match self.last_sent {
            Some(at) if !urgent && now < at + PACE => Due::At(at + PACE),
            _ => Due::Now,
        }
    }

    /// True when the proxy has let a batch wait for too long.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        let oldest = self.unanswered.values().next();
        oldest.is_some_and(|batch| now.duration_since(batch.at) >= ANSWER_TIMEOUT)
    }

    /// True when the way from what was sent to `target` takes something away,
    /// which must not wait for [`PACE`].
    pub(crate) fn is_urgent(&self, target: &Target) -> bool {
        let mut gone = self
            .sent
            .iter()
            .filter(|(name, _)| !target.contains_key(*name));
        gone.any(|(_, old)| must_not_wait(Some(&old.published), None))
            || target
                .iter()
                .any(|(name, new)| self.is_urgent_change(name, Some(new)))
    }

    /// The same for resources of these names, when no other has changed.
    pub(crate) fn is_urgent_among(&self, names: &[String], target: &Target) -> bool {
        names
            .iter()
            .any(|name| self.is_urgent_change(name, target.get(name)))
    }

    fn is_urgent_change(&self, name: &str, new: Option<&Arc<EncodedResource>>) -> bool {
        let old = self.sent.get(name);
        // Most resources are as they were, and the version says so.
        let same = old
            .zip(new)
            .is_some_and(|(old, new)| old.version() == new.resource.version);
        let old = old.map(|old| &*old.published);
        !same && must_not_wait(old, new.map(Arc::as_ref))
    }

    /// The batch that takes the proxy from what it was sent to `target`; none
    /// when there is no difference. The first is always made.
    pub(crate) fn next(&mut self, target: &Target, now: Instant) -> Option<v1::Batch> {
        let first = self.last_id == 0;
        let mut batch = v1::Batch {
            full: first,
            ..v1::Batch::default()
        };
        let mut carries = Vec::new();
        let id = self.last_id + 1;
        for (name, published) in target {
            let version = &published.resource.version;
            if first && self.initial_versions.get(name) == Some(version) {
                batch.unchanged.push(name.clone());
            } else if self
                .sent
                .get(name)
                .is_none_or(|sent| sent.version() != version)
            {
                batch.set.push(published.resource.clone());
            } else {
                continue;
            }
            let before = self.sent.get_mut(name);
            let sent = Sent {
                published: Arc::clone(published),
                batch: id,
                acknowledged: before.and_then(|sent| sent.acknowledged.take()),
            };
            self.sent.insert(name.clone(), sent);
            carries.push(Arc::clone(published));
        }
        if first {
            // What the proxy held besides is dropped because the batch is full.
            self.initial_versions = BTreeMap::new();
        } else {
            batch.remove = self
                .sent
                .keys()
                .filter(|name| !target.contains_key(*name))
                .cloned()
                .collect();
            for name in &batch.remove {
                self.sent.remove(name);
                self.refused.remove(name);
            }
            if batch.set.is_empty() && batch.remove.is_empty() {
                return None;
            }
        }
        self.last_id = id;
        batch.id = id;
        self.last_sent = Some(now);
        self.unanswered.insert(id, Unanswered { at: now, carries });
        Some(batch)
    }

    /// Takes the proxy's answer to a batch.
    pub(crate) fn answer(&mut self, ack: v1::Ack, now: Instant) -> Answered {
        let Some(batch) = self.unanswered.remove(&ack.batch) else {
            return Answered {
                unknown: true,
                ..Answered::default()
            };
        };
        let mut nacks: BTreeMap<String, v1::Nack> = ack
            .nacks
            .into_iter()
            .map(|nack| (nack.name.clone(), nack))
            .collect();
        let mut refused = 0;
        let mut objects = false;
        let carried = batch.carries.len();
        for published in batch.carries {
            let name = &published.resource.name;
            let nack = nacks.remove(name);
            refused += usize::from(nack.is_some());
            let sent = self.sent.get_mut(name);
            objects |= sent
                .as_ref()
                .is_none_or(|sent| sent.published.is_of_objects());
            // What was sent again or taken back since is answered by a later batch.
            let Some(sent) = sent.filter(|sent| sent.batch == ack.batch) else {
                continue;
            };
            match nack {
                Some(nack) => {
                    sent.acknowledged = None;
                    let version = published.resource.version.clone();
                    let reason = cut(nack.reason);
                    let refusal = Refused { version, reason };
                    self.refused.insert(name.clone(), refusal);
                }
                None => {
                    self.refused.remove(name);
                    sent.acknowledged = Some(published);
                }
            }
        }
        Answered {
            refused,
            unknown: false,
            after: Some(now.duration_since(batch.at)),
            objects,
            carried,
        }
    }

    /// What each object needs of this proxy, and how far it is.
    pub(crate) fn objects(&self, target: &Target) -> Vec<v1::ObjectState> {
        let mut objects: BTreeMap<&ObjectRef, v1::ObjectState> = BTreeMap::new();
        for (name, published) in target {
            let version = &published.resource.version;
            let acknowledged = self
                .sent
                .get(name)
                .and_then(|sent| sent.acknowledged.as_ref())
                .is_some_and(|used| used.resource.version == *version);
            let refused = self
                .refused
                .get(name)
                .filter(|refused| refused.version == *version);
            for (object, generation) in &published.origins {
                let state = objects.entry(object).or_insert_with(|| v1::ObjectState {
                    object: Some(v1::ObjectRef::from(object)),
                    needed: *generation,
                    acknowledged: true,
                    ..v1::ObjectState::default()
                });
                state.needed = state.needed.max(*generation);
                state.acknowledged &= acknowledged;
                if let Some(refused) = refused {
                    state.nack.clone_from(&refused.reason);
                }
            }
        }
        for left_out in &self.left_out {
            let object = &left_out.object;
            let state = objects.entry(object).or_insert_with(|| v1::ObjectState {
                object: Some(v1::ObjectRef::from(object)),
                ..v1::ObjectState::default()
            });
            state.needed = state.needed.max(left_out.generation);
            state.acknowledged = false;
            state.too_old = true;
            for part in left_out.lacks.iter() {
                let field = part.field();
                // A proxy may need it of several Services and ports.
                if !state.lacks.iter().any(|held| held == field) {
                    state.lacks.push(field.to_owned());
                }
            }
        }
        objects.into_values().collect()
    }
}

fn cut(mut reason: String) -> String {
    let mut end = reason.len().min(REASON_LIMIT);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

#[cfg(test)]
mod tests;
