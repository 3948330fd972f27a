//! Route tables: which rule decides about a call, and which backend it goes to.
//!
//! One kind of list serves every use: the rules of a Service's routes, sections of policies, names
//! of routes in metrics. The first rule that matches decides, and a call that matches no rule has a
//! result of its own.

pub mod cors;
pub mod edits;
pub mod names;

use std::sync::Arc;

use crate::http_match::{Description, HttpMatch, RequestFacts};
use crate::name::ServiceId;
use crate::origin::Origin;
use crate::reason::Reason;
use crate::route::edits::{Actions, Redirect};

/// Rules in order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<T> {
    pub rules: Vec<Rule<T>>,
    /// For a call that fits no rule.
    pub otherwise: T,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<T> {
    /// The object that sets it.
    pub origin: Origin,
    pub when: Match,
    pub then: T,
}

/// Which calls a rule speaks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Every request and every connection.
    Always,
    /// Requests that one of these describes; no request if there is none, and never
    /// opaque bytes.
    AnyOf(Vec<HttpMatch>),
}

impl Match {
    /// Every request, and no opaque bytes.
    #[must_use]
    pub fn every_request() -> Self {
        Self::AnyOf(vec![HttpMatch::as_described("", Description::default())])
    }

    /// `None` stands for opaque bytes.
    #[must_use]
    pub fn fits(&self, request: Option<&RequestFacts<'_>>) -> bool {
        match (self, request) {
            (Self::Always, _) => true,
            (Self::AnyOf(matches), Some(request)) => matches.iter().any(|one| one.matches(request)),
            (Self::AnyOf(_), None) => false,
        }
    }

    /// Whether it may fit a call of which only this is known: whether it is a request.
    #[must_use]
    pub const fn may_fit(&self, is_request: bool) -> bool {
        is_request || matches!(self, Self::Always)
    }
}

impl<T> Rule<T> {
    /// The same rule with something else to do.
    #[must_use]
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Rule<U> {
        Rule {
            origin: self.origin,
            when: self.when,
            then: make(self.then),
        }
    }
}

impl<T> Table<T> {
    /// What is done with every call.
    #[must_use]
    pub const fn only(otherwise: T) -> Self {
        Self {
            rules: Vec::new(),
            otherwise,
        }
    }

    /// The value of the first rule that fits, and whose rule it is; without one the
    /// default. `None` as request stands for opaque bytes.
    #[must_use]
    pub fn decide(&self, request: Option<&RequestFacts<'_>>) -> (&T, Option<&Origin>) {
        match self.first(request) {
            Some((_, rule)) => (&rule.then, Some(&rule.origin)),
            None => (&self.otherwise, None),
        }
    }

    /// The place of the rule that decides, for callers that keep a decision longer than a
    /// borrow; `None` where no rule fits.
    #[must_use]
    pub fn position(&self, request: Option<&RequestFacts<'_>>) -> Option<usize> {
        self.first(request).map(|(at, _)| at)
    }

    fn first(&self, request: Option<&RequestFacts<'_>>) -> Option<(usize, &Rule<T>)> {
        let mut rules = self.rules.iter().enumerate();
        rules.find(|(_, rule)| rule.when.fits(request))
    }
}

/// Where a call to a port of a Service goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// To the endpoints of the Service itself.
    Root,
    /// To one of these by weight; at least one has a weight.
    Split(Vec<Backend>),
    /// Nowhere.
    Refuse(Reason),
    /// Nowhere: the response names another place.
    Redirect(Arc<Redirect>),
}

/// A Service that takes a share of the calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    pub service: ServiceId,
    /// `namespace/name`, made once for metrics.
    pub label: Arc<str>,
    /// Of that Service. Backends of a TrafficSplit have the port that was called.
    pub port: u16,
    /// Share relative to the other backends; 0 takes nothing.
    pub weight: u32,
    /// Name of the endpoints resource.
    pub endpoints: Arc<str>,
    /// There is no such Service or port, or it may not be referred to. Its share of the calls is
    /// refused with [`Reason::InvalidBackend`].
    pub invalid: bool,
    /// What is done with the calls that it takes. `None`: nothing.
    pub actions: Option<Arc<Actions>>,
}

impl Backend {
    #[must_use]
    pub fn new(service: ServiceId, port: u16, weight: u32, endpoints: impl Into<Arc<str>>) -> Self {
        Self {
            label: service.to_string().into(),
            service,
            port,
            weight,
            endpoints: endpoints.into(),
            invalid: false,
            actions: None,
        }
    }

    /// A backend that keeps its share and serves nothing.
    #[must_use]
    pub fn invalid(service: ServiceId, port: u16, weight: u32) -> Self {
        Self {
            invalid: true,
            ..Self::new(service, port, weight, "")
        }
    }

    /// The same backend with something to do with its calls.
    #[must_use]
    pub fn with_actions(self, actions: Option<Arc<Actions>>) -> Self {
        Self { actions, ..self }
    }
}

impl Forward {
    /// A split over these backends. Without any weight no backend may take a call, which is a
    /// refusal and never a way back to the root.
    #[must_use]
    pub fn split(backends: Vec<Backend>) -> Self {
        if backends.iter().any(|backend| backend.weight > 0) {
            Self::Split(backends)
        } else {
            Self::Refuse(Reason::NoBackend)
        }
    }
}

/// The backend at `point`, which is uniform over all of `u64`; `None` when no backend has
/// a weight.
#[must_use]
pub fn choose(backends: &[Backend], point: u64) -> Option<&Backend> {
    let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    // Scales the point to 0..total without the bias of a remainder.
    let mut left = u64::try_from((u128::from(point) * u128::from(total)) >> 64).ok()?;
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let here = left < weight;
        left = left.saturating_sub(weight);
        here
    })
}

/// The backends that take calls, each with its part of them, which add up to 1.
pub fn shares(backends: &[Backend]) -> impl Iterator<Item = (&Backend, f64)> {
    let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    let taking = backends.iter().filter(|backend| backend.weight > 0);
    taking.map(move |backend| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "it takes two million backends to add up to 53 bits"
        )]
        let share = f64::from(backend.weight) / total as f64;
        (backend, share)
    })
}

#[cfg(test)]
mod tests;
