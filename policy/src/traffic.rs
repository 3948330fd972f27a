//! TrafficPolicy: what a policy sets for calls, section by section, and which policy decides.
//!
//! A section is a plain value whose `DEFAULT` is what a user gets who writes it empty, so webhook,
//! controller, wire and proxy cannot differ in missing fields. What holds without any object is
//! different, and is in [`without_object`].
//!
//! From objects to a call, in five steps:
//!
//! 1. What an object sets by itself becomes a [`Policy`]; names of HTTPRouteGroups and of
//!    accounts are replaced by what they stand for.
//! 2. [`precedence::resolve`] makes one [`EffectivePolicy`] per Service port, and reports what
//!    lost. That is what travels to proxies: the same for every caller.
//! 3. Each proxy gets what concerns its side of it, [`EffectivePolicy::for_callers`] and
//!    [`EffectivePolicy::for_pods`]; what it does not carry out of that is known by [`part`].
//! 4. A caller's proxy keeps what its own workload may see of it, [`EffectivePolicy::seen_by`],
//!    once per configuration.
//! 5. For each request [`crate::route::Table::decide`] gives the section and the object
//!    that it came from. The server's proxy queries [`Scoped`] tables with the proven caller.
pub mod bounds;
pub mod call;
pub mod endpoint;
pub mod guard;
pub mod part;
pub mod precedence;
mod sent;
pub mod set;

use std::fmt;
use std::sync::Arc;

use crate::access::{Caller, Source};
use crate::fault::{Fault, Selection};
use crate::http_match::RequestFacts;
use crate::name::ServiceId;
use crate::origin::Origin;
use crate::route::{Match, Table};

use call::{Fallback, Mirror, Override, Retry, Sticky, Timeouts};
use endpoint::{Balance, Breaker, Ejection};
use guard::{Overload, Priority, RateLimit};

/// What a policy is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// One port of a Service, by the Service's number.
    Port(ServiceId, u16),
    Service(ServiceId),
    Namespace(Arc<str>),
    Mesh,
}

impl Target {
    #[must_use]
    pub fn covers(&self, service: &ServiceId, port: u16) -> bool {
        match self {
            Self::Port(named, number) => named == service && *number == port,
            Self::Service(named) => named == service,
            Self::Namespace(namespace) => *namespace == service.namespace,
            Self::Mesh => true,
        }
    }
}

/// Whose calls a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    Everyone,
    /// Callers that one of these admits; no caller if there is none.
    Only(Vec<Source>),
}

impl Sources {
    #[must_use]
    pub fn admits(&self, caller: Caller<'_>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(sources) => sources.iter().any(|source| source.admits(caller)),
        }
    }
}

/// One TrafficPolicy, read by itself: every section in it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub origin: Origin,
    /// Seconds since 1970; the older of two equals decides.
    pub created: i64,
    pub target: Target,
    /// Beats every policy without it. Has no effect beside another target than
    /// [`Target::Mesh`].
    pub enforce: bool,
    /// `AnyOf` with an empty list where no group of `routes` exists: it fits nothing.
    pub routes: Match,
    pub sources: Sources,
    pub sections: Sections,
}

impl Policy {
    /// Whether it is limited to some requests or callers. Such a policy sets nothing but
    /// [`Section::may_be_limited`].
    #[must_use]
    pub(crate) fn is_limited(&self) -> bool {
        self.routes != Match::Always || self.sources != Sources::Everyone
    }

    /// The sections that it sets where this is left of them. A limited one sets nothing of
    /// endpoints, whatever is written in it.
    pub fn says(&self, sections: &Sections) -> impl Iterator<Item = Section> {
        let limited = self.is_limited();
        let all = Section::ALL.into_iter();
        all.filter(move |section| sections.has(*section) && (section.may_be_limited() || !limited))
    }

    /// Whether it sets nothing at all: it is limited to requests or callers of which there are
    /// none, or has no section that can be used.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.routes == Match::AnyOf(Vec::new())
            || self.sources == Sources::Only(Vec::new())
            || self.says(&self.sections).next().is_none()
    }
}

/// The sections of one object; `None`: it does not set that one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    pub timeouts: Option<Timeouts>,
    pub retry: Option<Retry>,
    pub ejection: Option<Ejection>,
    pub breaker: Option<Breaker>,
    pub fallback: Option<Arc<Fallback>>,
    /// These add up, so an empty list sets as much as none.
    pub rate_limits: Vec<Arc<RateLimit>>,
    pub priority: Option<Priority>,
    pub overload: Option<Overload>,
    /// An empty list is an answer: no copies.
    pub mirror: Option<Arc<[Mirror]>>,
    pub balance: Option<Balance>,
    pub sticky: Option<Sticky>,
    /// An empty list is an answer: no overrides.
    pub overrides: Option<Arc<[Override]>>,
}

impl Sections {
    #[must_use]
    pub fn has(&self, section: Section) -> bool {
        match section {
            Section::Timeouts => self.timeouts.is_some(),
            Section::Retry => self.retry.is_some(),
            Section::Ejection => self.ejection.is_some(),
            Section::Breaker => self.breaker.is_some(),
            Section::Fallback => self.fallback.is_some(),
            Section::RateLimits => !self.rate_limits.is_empty(),
            Section::Priority => self.priority.is_some(),
            Section::Overload => self.overload.is_some(),
            Section::Mirror => self.mirror.is_some(),
            Section::Balance => self.balance.is_some(),
            Section::Sticky => self.sticky.is_some(),
            Section::Overrides => self.overrides.is_some(),
        }
    }
}

/// Which part of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    Timeouts,
    Retry,
    Ejection,
    Breaker,
    Fallback,
    RateLimits,
    Priority,
    Overload,
    Mirror,
    Balance,
    Sticky,
    Overrides,
}

impl Section {
    pub const ALL: [Self; 12] = [
        Self::Timeouts,
        Self::Retry,
        Self::Ejection,
        Self::Breaker,
        Self::Fallback,
        Self::RateLimits,
        Self::Priority,
        Self::Overload,
        Self::Mirror,
        Self::Balance,
        Self::Sticky,
        Self::Overrides,
    ];

    /// The field of the object's spec.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeouts => "timeouts",
            Self::Retry => "retry",
            Self::Ejection => "ejection",
            Self::Breaker => "breaker",
            Self::Fallback => "fallback",
            Self::RateLimits => "rateLimits",
            Self::Priority => "priority",
            Self::Overload => "overload",
            Self::Mirror => "mirror",
            Self::Balance => "balance",
            Self::Sticky => "sticky",
            Self::Overrides => "overrides",
        }
    }

    /// Whether `routes` and `sources` may stand beside it. The others describe endpoints,
    /// or where all calls go, and have no meaning for some requests alone.
    #[must_use]
    pub const fn may_be_limited(self) -> bool {
        matches!(
            self,
            Self::Timeouts
                | Self::Retry
                | Self::Fallback
                | Self::RateLimits
                | Self::Priority
                | Self::Mirror
        )
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A section, and for whose calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scoped<T> {
    pub sources: Sources,
    pub section: T,
}

/// Rules of a section that `routes` and `sources` may limit, in order of precedence.
pub type Limited<T> = Table<Option<Scoped<T>>>;

/// A section that is taken as a whole: at most one rule, which always fits.
pub type Whole<T> = Table<Option<T>>;

/// What policies say of one Service port: the winners of every section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectivePolicy {
    pub timeouts: Limited<Timeouts>,
    pub retry: Limited<Retry>,
    pub fallback: Limited<Arc<Fallback>>,
    pub mirror: Limited<Arc<[Mirror]>>,
    pub priority: Limited<Priority>,
    /// Every rule that fits counts, not the first alone: see [`every`].
    pub rate_limits: Limited<Arc<RateLimit>>,
    pub ejection: Whole<Ejection>,
    pub breaker: Whole<Breaker>,
    pub balance: Whole<Balance>,
    pub overload: Whole<Overload>,
    pub sticky: Whole<Sticky>,
    pub overrides: Whole<Arc<[Override]>>,
    /// Of FaultExperiments, which have the rules of a policy and none of its objects: no section
    /// of a TrafficPolicy sets it.
    pub fault: Limited<Arc<Fault>>,
    /// The same: by which calls a pod counts them apart.
    pub groups: Whole<Selection>,
}

impl Default for EffectivePolicy {
    fn default() -> Self {
        Self {
            timeouts: Table::only(None),
            retry: Table::only(None),
            fallback: Table::only(None),
            mirror: Table::only(None),
            priority: Table::only(None),
            rate_limits: Table::only(None),
            ejection: Table::only(None),
            breaker: Table::only(None),
            balance: Table::only(None),
            overload: Table::only(None),
            sticky: Table::only(None),
            overrides: Table::only(None),
            fault: Table::only(None),
            groups: Table::only(None),
        }
    }
}

/// What one workload, as a caller, has to know of a Service port. No rule in it depends on
/// the caller any more, so a request costs one `decide` per section and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerPolicy {
    pub timeouts: Table<Option<Timeouts>>,
    pub retry: Table<Option<Retry>>,
    pub fallback: Table<Option<Arc<Fallback>>>,
    pub mirror: Table<Option<Arc<[Mirror]>>>,
    /// For what the caller holds back itself; the called pod's proxy decides by its own.
    pub priority: Table<Option<Priority>>,
    pub ejection: Whole<Ejection>,
    pub breaker: Whole<Breaker>,
    pub balance: Whole<Balance>,
    pub sticky: Whole<Sticky>,
    pub overrides: Whole<Arc<[Override]>>,
    pub fault: Table<Option<Arc<Fault>>>,
}

impl Default for CallerPolicy {
    fn default() -> Self {
        Self {
            timeouts: Table::only(None),
            retry: Table::only(None),
            fallback: Table::only(None),
            mirror: Table::only(None),
            priority: Table::only(None),
            ejection: Table::only(None),
            breaker: Table::only(None),
            balance: Table::only(None),
            sticky: Table::only(None),
            overrides: Table::only(None),
            fault: Table::only(None),
        }
    }
}

impl EffectivePolicy {
    /// What the proxy of `caller` keeps of it. Made once per configuration.
    #[must_use]
    pub fn seen_by(&self, caller: Caller<'_>) -> CallerPolicy {
        CallerPolicy {
            timeouts: seen_by(&self.timeouts, caller),
            retry: seen_by(&self.retry, caller),
            fallback: seen_by(&self.fallback, caller),
            mirror: seen_by(&self.mirror, caller),
            priority: seen_by(&self.priority, caller),
            ejection: self.ejection.clone(),
            breaker: self.breaker.clone(),
            balance: self.balance.clone(),
            sticky: self.sticky.clone(),
            overrides: self.overrides.clone(),
            fault: seen_by(&self.fault, caller),
        }
    }
}

fn seen_by<T: Clone>(limited: &Limited<T>, caller: Caller<'_>) -> Table<Option<T>> {
    let own = limited.rules.iter().filter_map(|rule| {
        let scoped = rule.then.as_ref()?;
        scoped.sources.admits(caller).then(|| {
            let section = scoped.section.clone();
            rule.clone().map(|_| Some(section))
        })
    });
    Table {
        rules: own.collect(),
        otherwise: None,
    }
}

/// The first rule that fits the request and admits the caller, for the server's proxy. It
/// skips rules for other callers, which [`Table::decide`] could not.
#[must_use]
pub fn first<'a, T>(
    limited: &'a Limited<T>,
    caller: Caller<'_>,
    request: Option<&RequestFacts<'_>>,
) -> Option<(&'a T, &'a Origin)> {
    every(limited, caller, request).next()
}

/// Every rule that fits the request and admits the caller, in order of precedence.
/// `None` as request stands for a connection of opaque bytes.
pub fn every<'a, T>(
    limited: &'a Limited<T>,
    caller: Caller<'_>,
    request: Option<&RequestFacts<'_>>,
) -> impl Iterator<Item = (&'a T, &'a Origin)> {
    limited.rules.iter().filter_map(move |rule| {
        let scoped = rule.then.as_ref()?;
        let fits = scoped.sources.admits(caller) && rule.when.fits(request);
        fits.then_some((&scoped.section, &rule.origin))
    })
}

/// What decides about the endpoints of a backend: the Service that serves, else the one
/// that was called. Where no split chose, both are the same.
#[must_use]
pub fn serving_or_root<'a, T>(
    serving: &'a Whole<T>,
    root: &'a Whole<T>,
) -> Option<(&'a T, &'a Origin)> {
    let decided = |whole: &'a Whole<T>| match whole.decide(None) {
        (Some(section), Some(origin)) => Some((section, origin)),
        _ => None,
    };
    decided(serving).or_else(|| decided(root))
}

pub mod pod {
    //! What the proxy in front of a pod does with requests, by port of the container.

    use std::collections::BTreeMap;

    use super::EffectivePolicy;
    use super::call::TcpTarget;

    /// All that policies say of requests to one pod.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct PodGuard {
        /// By port of the container.
        pub ports: BTreeMap<u16, GuardPort>,
        /// What a pod that gets nothing but copies may open for opaque bytes; `None` for
        /// every other pod.
        pub read_only: Option<Vec<TcpTarget>>,
    }

    /// Of a [`EffectivePolicy`], what concerns the pod that serves: timeouts for callers outside the
    /// mesh, limits, priority, overload, groups.
    pub type GuardPort = EffectivePolicy;
}

pub mod without_object {
    //! What holds for calls to a Service without any TrafficPolicy.
    //!
    //! Where a table decides `None`, these are used for retries, ejection and warm-up. Every
    //! other section has no effect until a policy sets it.

    use crate::traffic::call::Retry;
    use crate::traffic::endpoint::{Balance, Ejection};

    pub static RETRY: Retry = Retry::DEFAULT;
    pub static EJECTION: Ejection = Ejection::DEFAULT;
    /// Where clients choose the pod, and no object ejects any.
    pub static EJECTION_OFF: Ejection = Ejection {
        consecutive_failures: 0,
        ..Ejection::DEFAULT
    };
    pub static BALANCE: Balance = Balance::DEFAULT;
}

#[cfg(test)]
mod tests;
