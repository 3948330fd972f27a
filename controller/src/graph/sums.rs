//! The counts of one edge of the service graph, as one side reported them for a range of time, and
//! how they add up.

use std::sync::{Arc, LazyLock};

use model::world::ObjectKey;
use policy::latency::Histogram;
use policy::reason::Reason;
use wire::v1;

use crate::observe::reports::Edge;

/// Callers, addresses and names that are not counted apart.
pub(crate) const OTHER: &str = "other";
pub(crate) static OTHER_NAME: LazyLock<Arc<str>> = LazyLock::new(|| OTHER.into());
/// Targets of one edge that are shown.
const MAX_RULES: usize = 8;
/// Routes and reasons of one edge that are shown.
const MAX_NAMES: usize = 64;

/// Counts, and what not every edge has in a box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EdgeTotals {
    /// Calls that went well.
    pub success: u32,
    /// Calls that did not.
    pub failure: u32,
    /// Requests whose caller left.
    pub cancelled: u32,
    /// What this backend was chosen for.
    pub attempts: u32,
    /// What of that failed.
    pub attempt_failures: u32,
    /// Responses with 4xx.
    pub client_errors: u32,
    /// Under way at the end.
    pub open: u32,
    /// Connections that began.
    pub opened: u32,
    /// Calls over mutual TLS, and those of which it is known.
    pub secured: (u32, u32),
    /// The called pod's own port; 0 if it is not known.
    pub own_port: u16,
    /// Bytes from and to the caller.
    pub bytes: (u64, u64),
    /// HTTP requests by bucket, without empty ones at the end.
    pub latency: Box<[u32]>,
    /// The other counts.
    pub rare: Option<Box<Rare>>,
}

/// What few edges have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rare {
    /// What deny would have refused.
    pub audit: u32,
    /// Failures by reason.
    pub reasons: Vec<(Arc<str>, u32)>,
    /// Targets that allowed calls.
    pub rules: Vec<ObjectKey>,
    /// Requests by route.
    pub routes: Vec<(Arc<str>, u32)>,
}

fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl EdgeTotals {
    /// Calls that ended or whose caller left.
    pub(crate) fn requests(&self) -> u64 {
        u64::from(self.success) + u64::from(self.failure) + u64::from(self.cancelled)
    }

    /// What decides which of two sums of the same is fuller.
    pub(crate) fn reported_calls(&self) -> u64 {
        self.requests() + u64::from(self.attempts) + u64::from(self.opened)
    }

    /// Whether anything happened.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests() == 0 && self.open == 0 && self.opened == 0 && self.attempts == 0
    }

    /// Adds what one proxy reported of one interval. Names beyond `room` count under [`OTHER`].
    pub(crate) fn count(&mut self, edge: &Edge, room: &mut usize) {
        self.success = self.success.saturating_add(count(edge.success));
        self.failure = self.failure.saturating_add(count(edge.failure));
        self.bytes.0 = self.bytes.0.saturating_add(edge.bytes.0);
        self.bytes.1 = self.bytes.1.saturating_add(edge.bytes.1);
        add_latency(&mut self.latency, edge.latency.iter());
        let mut calls = edge.success.saturating_add(edge.failure);
        let mut tries = match edge.attempts {
            Some(attempts) => (u64::from(attempts), 0),
            None => (calls, edge.failure),
        };
        if let Some(detail) = &edge.detail {
            calls = calls.saturating_add(detail.cancelled);
            if edge.attempts.is_some() {
                tries.1 = detail.attempt_failures;
            }
            self.cancelled = self.cancelled.saturating_add(count(detail.cancelled));
            self.client_errors = self
                .client_errors
                .saturating_add(count(detail.client_errors));
            self.open = self.open.saturating_add(count(detail.open));
            self.opened = self.opened.saturating_add(count(detail.opened));
            if detail.audit > 0 || detail.named.is_some() {
                let listed = |listed: &[(Arc<str>, u64)]| {
                    let listed = listed.iter();
                    listed.map(|(n, c)| (Arc::clone(n), count(*c))).collect()
                };
                let mut more = Rare {
                    audit: count(detail.audit),
                    ..Rare::default()
                };
                if let Some(named) = &detail.named {
                    more.reasons = listed(&named.reasons);
                    more.rules = named.rules.to_vec();
                    // The called side names routes; a caller that does makes them up.
                    if !edge.key.client {
                        more.routes = listed(&named.routes);
                    }
                }
                self.rare
                    .get_or_insert_default()
                    .take_in_within(&more, room);
            }
        }
        self.attempts = self.attempts.saturating_add(count(tries.0));
        self.attempt_failures = self.attempt_failures.saturating_add(count(tries.1));
        let open = edge.detail.as_ref().map_or(0, |detail| detail.open);
        // What is open has a security too, and may be all there is.
        let amount = count(calls.max(open));
        match edge.key.security {
            v1::Security::NotTold => {}
            v1::Security::Mtls => {
                self.secured.0 = self.secured.0.saturating_add(amount);
                self.secured.1 = self.secured.1.saturating_add(amount);
            }
            v1::Security::Plaintext => self.secured.1 = self.secured.1.saturating_add(amount),
        }
    }

    /// Adds what came later. What is open is open at the end, so it replaces.
    pub(crate) fn then(&mut self, later: &Self) {
        let add = |total: &mut u32, more: u32| *total = total.saturating_add(more);
        add(&mut self.success, later.success);
        add(&mut self.failure, later.failure);
        add(&mut self.cancelled, later.cancelled);
        add(&mut self.attempts, later.attempts);
        add(&mut self.attempt_failures, later.attempt_failures);
        add(&mut self.client_errors, later.client_errors);
        add(&mut self.opened, later.opened);
        add(&mut self.secured.0, later.secured.0);
        add(&mut self.secured.1, later.secured.1);
        self.open = later.open;
        // A pod that is gone had a port too.
        if later.own_port != 0 {
            self.own_port = later.own_port;
        }
        self.bytes.0 = self.bytes.0.saturating_add(later.bytes.0);
        self.bytes.1 = self.bytes.1.saturating_add(later.bytes.1);
        add_latency(&mut self.latency, later.latency.iter().copied());
        if let Some(later) = &later.rare {
            self.rare.get_or_insert_default().take_in(later);
        }
    }

    /// Share of the calls that went over mutual TLS; `None` where no proxy reports it.
    pub(crate) fn mtls(&self) -> Option<f64> {
        let (secured, amount) = self.secured;
        (amount > 0).then(|| f64::from(secured) / f64::from(amount))
    }

    /// Whether calls are among it that no rule allows.
    pub(crate) fn has_refused(&self) -> bool {
        let reasons = self.rare.iter().flat_map(|rare| &rare.reasons);
        let mut named = reasons.filter(|(_, calls)| *calls > 0);
        named.any(|(name, _)| Reason::UNALLOWED.iter().any(|one| one.as_str() == &**name))
    }

    /// How long requests took.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add(self.latency.iter().map(|count| u64::from(*count)));
        histogram
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| {
            let named = rare.reasons.iter().chain(&rare.routes);
            let named = named.map(|(name, _)| size_of::<(Arc<str>, u32)>() + name.len());
            size_of::<Rare>() + named.sum::<usize>() + rare.rules.len() * size_of::<ObjectKey>()
        });
        size_of::<Self>() + size_of_val(&*self.latency) + rare
    }
}

fn add_latency(total: &mut Box<[u32]>, more: impl Iterator<Item = u32> + Clone) {
    let length = more.clone().count();
    if total.len() < length {
        let mut longer = std::mem::take(total).into_vec();
        longer.resize(length, 0);
        *total = longer.into();
    }
    for (total, more) in total.iter_mut().zip(more) {
        *total = total.saturating_add(more);
    }
}

impl Rare {
    /// Adds more of it.
    pub(crate) fn take_in(&mut self, more: &Self) {
        let mut all = usize::MAX;
        self.take_in_within(more, &mut all);
    }

    /// The same with no more than `room` names that were not there, which it takes.
    fn take_in_within(&mut self, more: &Self, room: &mut usize) {
        self.audit = self.audit.saturating_add(more.audit);
        add_named(&mut self.reasons, &more.reasons, room);
        add_named(&mut self.routes, &more.routes, room);
        for rule in &more.rules {
            if self.rules.len() < MAX_RULES && *room > 0 && !self.rules.contains(rule) {
                self.rules.push(rule.clone());
                *room -= 1;
            }
        }
    }
}

fn add_named(total: &mut Vec<(Arc<str>, u32)>, more: &[(Arc<str>, u32)], room: &mut usize) {
    for (name, count) in more {
        let known = total.iter().position(|(total, _)| total == name);
        let at = known.unwrap_or_else(|| {
            let name = if total.len() < MAX_NAMES && *room > 0 {
                *room -= 1;
                name
            } else {
                &*OTHER_NAME
            };
            let known = total.iter().position(|(total, _)| total == name);
            known.unwrap_or_else(|| {
                total.push((Arc::clone(name), 0));
                total.len() - 1
            })
        });
        if let Some((_, total)) = total.get_mut(at) {
            *total = total.saturating_add(*count);
        }
    }
}
