//! The persisted state of a rotation, which is stored beside the keys in Secret `weft-ca`.
//!
//! Times are whole seconds, so that a state is equal to itself after it was stored. An older
//! controller keeps the text and reads none of it; fields that a later one adds are optional.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::verify::AuthorityId;

/// Ids of requests that are remembered: none of them runs again, since tools that keep objects in
/// step with a repository may apply an old one.
const MAX_IDS: usize = 16;
/// Roots that were taken out since their key was known to others, and are refused since.
const MAX_RETIRED: usize = 8;
/// Issuers whose leaves may be in use: one per replica at most, and former ones.
pub(super) const MAX_ISSUERS: usize = 8;

/// The authority's state. `Default` is that of a content which says none: the one of a former
/// version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct State {
    /// Counts the writes of the authority, so that an earlier content is recognized.
    pub step: u64,
    /// The roots that rotations decide about: first the one that signs. Others may be trusted too.
    pub roots: Vec<AuthorityId>,
    /// What signs leaves below the first root, the newest last.
    pub issuers: Vec<AuthorityId>,
    /// What signed below roots of before, since the last Compromise: what it issued may be in use
    /// after a planned rotation. The newest last.
    pub former: Vec<AuthorityId>,
    /// Who owns the first root's key.
    pub source: Source,
    /// None: Steady.
    pub rotation: Option<Rotation>,
    /// Ids of the requests that were carried out, are, or were declined, the newest last.
    pub ids: Vec<String>,
    /// The last of them that was declined.
    pub declined: Option<String>,
    /// When the last rotation began.
    #[serde(with = "seconds::optional")]
    pub began: Option<SystemTime>,
    /// Roots taken out by a Compromise, the newest last.
    pub retired: Vec<RetiredRoot>,
}

/// A rotation that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Of its request, or made for it.
    pub id: String,
    pub trigger: Trigger,
    pub reason: Reason,
    pub phase: Phase,
    #[serde(with = "seconds")]
    pub since: SystemTime,
    #[serde(with = "seconds")]
    pub phase_since: SystemTime,
    /// Where the next root comes from.
    #[serde(default)]
    pub source: Source,
    /// Roots that Retiring took out.
    #[serde(default)]
    pub dropped: Vec<AuthorityId>,
}

/// What a rotation waits to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The next root is being brought to everything that verifies.
    Preparing,
    /// It signs, and proxies renew their certificates.
    Activating,
    /// The former ones are being forgotten.
    Retiring,
}

/// What began a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    Request,
    Life,
    Source,
}

/// Why: whether the key of the former root may be known to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    Planned,
    Compromise,
}

/// Who makes the root's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The Lease holder.
    #[default]
    Generated,
    /// The owner of a Secret.
    Secret,
    /// The owners of the folders that are mounted into the replicas, an issuer in each.
    Files,
}

/// A root whose key may be known to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredRoot {
    pub root: AuthorityId,
    #[serde(with = "seconds")]
    pub at: SystemTime,
}

/// A rotation's begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    pub id: String,
    pub trigger: Trigger,
    pub reason: Reason,
    pub source: Source,
}

impl Phase {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "Preparing",
            Self::Activating => "Activating",
            Self::Retiring => "Retiring",
        }
    }
}

impl Reason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "Planned",
            Self::Compromise => "Compromise",
        }
    }
}

impl Trigger {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "Request",
            Self::Life => "Life",
            Self::Source => "Source",
        }
    }
}

impl Source {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "Generated",
            Self::Secret => "Secret",
            Self::Files => "Files",
        }
    }
}

impl State {
    /// Of a content that says nothing of itself: one root signs, by one issuer.
    #[must_use]
    pub fn of(root: AuthorityId, issuer: AuthorityId) -> Self {
        Self {
            roots: vec![root],
            issuers: vec![issuer],
            ..Self::default()
        }
    }

    /// Whether it describes a content with these roots, the first of which signs. A person may have
    /// edited one and not the other.
    #[must_use]
    pub fn describes(&self, roots: &[AuthorityId]) -> bool {
        !self.roots.is_empty()
            && self.roots.first() == roots.first()
            && self.roots.iter().all(|root| roots.contains(root))
    }

    /// The same for a content that it does not describe: what was carried out stays known.
    #[must_use]
    pub fn corrected(&self, root: AuthorityId, issuer: AuthorityId) -> Self {
        Self {
            step: self.step,
            source: self.source,
            ids: self.ids.clone(),
            declined: self.declined.clone(),
            began: self.began,
            retired: self.retired.clone(),
            ..Self::of(root, issuer)
        }
    }

    /// The root that signs.
    #[must_use]
    pub fn active(&self) -> Option<AuthorityId> {
        self.roots.first().copied()
    }

    /// The root that will sign.
    #[must_use]
    pub fn next(&self) -> Option<AuthorityId> {
        let preparing = self.phase() == Some(Phase::Preparing);
        self.roots.last().copied().filter(|_| preparing)
    }

    /// None: Steady.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.rotation.as_ref().map(|rotation| rotation.phase)
    }

    #[must_use]
    pub fn is_retired(&self, root: AuthorityId) -> bool {
        self.retired.iter().any(|retired| retired.root == root)
    }

    /// Whether a running replica that serves this state must not take `found`: it is of an earlier
    /// step, or of the same one and lacks a root.
    #[must_use]
    pub fn is_undone_by(&self, found: &Self) -> bool {
        let lacks = |root: &AuthorityId| !found.roots.contains(root);
        found.step < self.step || (found.step == self.step && self.roots.iter().any(lacks))
    }

    /// This state, to be written over `found`. All replicas take it, whichever they serve.
    #[must_use]
    pub fn written_over(&self, found: &Self) -> Self {
        let mut again = self.clone();
        again.step = self.step.max(found.step).saturating_add(1);
        again
    }

    /// After a write that changes nothing of this.
    #[must_use]
    pub fn stepped(&self) -> Self {
        let mut next = self.clone();
        next.step = next.step.saturating_add(1);
        next
    }

    /// With the next root behind the others. It takes over from a rotation that runs.
    #[must_use]
    pub fn started(&self, begin: &Begin, root: AuthorityId, now: SystemTime) -> Self {
        let mut next = self.stepped();
        let now = seconds::whole(now);
        next.roots.push(root);
        next.rotation = Some(Rotation {
            id: begin.id.clone(),
            trigger: begin.trigger,
            reason: begin.reason,
            phase: Phase::Preparing,
            since: now,
            phase_since: now,
            source: begin.source,
            dropped: Vec::new(),
        });
        next.began = Some(now);
        next.remember(begin.trigger, &begin.id);
        next
    }

    /// The rotation that runs goes on as a Compromise.
    #[must_use]
    pub fn hastened(&self, id: &str, now: SystemTime) -> Self {
        let mut next = self.stepped();
        if let Some(rotation) = &mut next.rotation {
            rotation.reason = Reason::Compromise;
            id.clone_into(&mut rotation.id);
        }
        if next.phase() != Some(Phase::Preparing) {
            next.forget_where_compromised();
        }
        // In Retiring the former roots have left already.
        next.retire_where_compromised(now);
        next.remember(Trigger::Request, id);
        next
    }

    /// The next root signs, by `issuer`.
    #[must_use]
    pub fn activated(&self, issuer: AuthorityId, now: SystemTime) -> Self {
        let mut next = self.in_phase(Phase::Activating, now);
        next.roots.rotate_right(1);
        next.former.append(&mut next.issuers);
        let over = next.former.len().saturating_sub(MAX_ISSUERS);
        next.former.drain(..over);
        next.issuers = vec![issuer];
        if let Some(rotation) = &next.rotation {
            next.source = rotation.source;
        }
        next.forget_where_compromised();
        next
    }

    /// The former roots are forgotten.
    #[must_use]
    pub fn without_former(&self, now: SystemTime) -> Self {
        let mut next = self.in_phase(Phase::Retiring, now);
        let dropped = next.roots.split_off(next.roots.len().min(1));
        let Some(rotation) = &mut next.rotation else {
            return next;
        };
        rotation.dropped = dropped;
        next.retire_where_compromised(now);
        next
    }

    /// The rotation has ended.
    #[must_use]
    pub fn finished(&self) -> Self {
        let mut next = self.stepped();
        next.rotation = None;
        next
    }

    /// Leaves are signed by this issuer from now on, below the same root. `id`: of its request.
    #[must_use]
    pub fn with_issuer(&self, issuer: AuthorityId, id: Option<&str>) -> Self {
        let mut next = self.stepped();
        next.issuers.retain(|known| *known != issuer);
        next.issuers.push(issuer);
        let over = next.issuers.len().saturating_sub(MAX_ISSUERS);
        next.issuers.drain(..over);
        if let Some(id) = id {
            next.remember(Trigger::Request, id);
        }
        next
    }

    /// The request of this id is not carried out, now or later.
    #[must_use]
    pub fn declining(&self, id: &str) -> Self {
        let mut next = self.stepped();
        next.remember(Trigger::Request, id);
        next.declined = Some(id.to_owned());
        next
    }

    /// Replicas sign by these too, below the same root.
    #[must_use]
    pub fn with_issuers(&self, issuers: &[AuthorityId]) -> Self {
        let mut next = self.stepped();
        next.issuers.retain(|known| !issuers.contains(known));
        next.issuers.extend(issuers);
        let over = next.issuers.len().saturating_sub(MAX_ISSUERS);
        next.issuers.drain(..over);
        next
    }

    fn in_phase(&self, phase: Phase, now: SystemTime) -> Self {
        let mut next = self.stepped();
        if let Some(rotation) = &mut next.rotation {
            rotation.phase = phase;
            rotation.phase_since = seconds::whole(now);
        }
        next
    }

    /// Nothing that signed below a root of before is vouched for once its key may be known to others.
    fn forget_where_compromised(&mut self) {
        let rotation = self.rotation.as_ref();
        if rotation.is_some_and(|rotation| rotation.reason == Reason::Compromise) {
            self.former.clear();
        }
    }

    /// The roots that have left are refused from now on if their keys may be known to others.
    fn retire_where_compromised(&mut self, now: SystemTime) {
        let rotation = self.rotation.as_ref();
        let Some(rotation) = rotation.filter(|rotation| rotation.reason == Reason::Compromise)
        else {
            return;
        };
        let at = seconds::whole(now);
        let dropped = rotation.dropped.iter();
        self.retired
            .extend(dropped.map(|&root| RetiredRoot { root, at }));
        let over = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..over);
    }

    fn remember(&mut self, trigger: Trigger, id: &str) {
        if trigger != Trigger::Request {
            return;
        }
        self.ids.push(id.to_owned());
        let over = self.ids.len().saturating_sub(MAX_IDS);
        self.ids.drain(..over);
    }
}

/// Times as seconds since 1970.
mod seconds {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn whole(at: SystemTime) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(since_1970(at))
    }

    fn since_1970(at: SystemTime) -> u64 {
        at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// The end of what certificates can name; a greater number is no time.
    fn at(seconds: u64) -> SystemTime {
        const YEAR_9999: u64 = 253_402_300_799;
        UNIX_EPOCH + Duration::from_secs(seconds.min(YEAR_9999))
    }

    pub(super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(since_1970(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        u64::deserialize(deserializer).map(at)
    }

    /// The same where there may be none.
    pub(super) mod optional {
        use std::time::SystemTime;

        use serde::{Deserialize, Deserializer, Serializer};

        pub(in crate::rotation::state) fn serialize<S: Serializer>(
            time: &Option<SystemTime>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => serializer.serialize_some(&super::since_1970(*time)),
                None => serializer.serialize_none(),
            }
        }

        pub(in crate::rotation::state) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<SystemTime>, D::Error> {
            let seconds = Option::<u64>::deserialize(deserializer)?;
            Ok(seconds.map(super::at))
        }
    }
}
