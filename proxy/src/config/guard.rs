//! The TrafficPolicies that this proxy enforces for requests to its own pod, and the state of their
//! rate limits.
//!
//! A new configuration keeps the buckets of the former one, limit by limit, so that a change
//! elsewhere in a policy fills none of them.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use parking_lot::Mutex;
use policy::access::Caller;
use policy::fault::Selection;
use policy::gateway::client_network;
use policy::http_match::RequestFacts;
use policy::limit::offered::Offered;
use policy::limit::{Buckets, Key, Rate, Refused, keys_of_each, take_all};
use policy::origin::Origin;
use policy::path::PathReadings;
use policy::route::{Match, Rule};
use policy::traffic::call::{TcpTarget, Timeouts};
use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, Priority, RateLimit};
use policy::traffic::pod::{GuardPort, PodGuard};
use policy::traffic::{Limited, Scoped, Whole, first};

use crate::config::overload::PortOverload;
use crate::config::shares::Shares;

/// By port of the application.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    ports: BTreeMap<u16, Arc<PortGuard>>,
    /// What the pod may open for opaque bytes, where it gets nothing but copies and may
    /// change nothing.
    read_only: Option<Vec<TcpTarget>>,
    /// No client can find out which keys share a bucket.
    seed: RandomState,
}

/// What holds at one port: this pod's own limits, the class of requests, how many of them the
/// application gets at once, and the timeout of those that came without one.
#[derive(Debug)]
pub(crate) struct PortGuard {
    timeouts: Limited<Timeouts>,
    limits: Limited<Arc<RateLimit>>,
    /// One for each rule, under one lock: a request takes of all that apply or of none.
    buckets: Mutex<Vec<Buckets>>,
    priority: Limited<Priority>,
    overload: Option<PortOverload>,
    groups: Whole<Selection>,
    seed: RandomState,
}

/// A request before admission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) caller: Caller<'a>,
    /// The client for which a Gateway passes it on.
    pub(crate) client: Option<IpAddr>,
    /// `None` for a connection of opaque bytes.
    pub(crate) request: Option<&'a RequestFacts<'a>>,
    /// It counts as fitting every route that it fits in one of these, or every route at all
    /// where rules cannot see them.
    pub(crate) path: PathReadings<'a>,
}

impl Arrival<'_> {
    fn may_fit(&self, when: &Match) -> bool {
        match (self.request, self.path) {
            (Some(_), PathReadings::Unknown) => true,
            (Some(request), PathReadings::Several(paths)) => {
                let mut read = paths.iter().map(|path| at(request, path));
                read.any(|request| when.fits(Some(&request)))
            }
            (request, _) => when.fits(request),
        }
    }
}

/// A limit that a request or connection exceeds.
#[derive(Debug)]
pub(crate) struct Exceeded {
    pub(crate) origin: Origin,
    pub(crate) refused: Refused,
}

/// What is to be counted beside a refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Noticed<'a> {
    /// This limit only counts, and would have refused.
    Audited(&'a Origin),
    /// A limit has more keys than places.
    Overflowed,
}

impl Guard {
    /// What `configured` makes of the guard before.
    pub(super) fn after(
        before: Option<&Self>,
        configured: &PodGuard,
        shares: &Shares,
        now: Instant,
    ) -> Self {
        let seed = before.map_or_else(RandomState::new, |before| before.seed.clone());
        let listed = configured.ports.iter();
        let listed =
            listed.map(|(port, configured)| (port, configured.rate_limits.clone(), configured));
        let listed: Vec<_> = listed.collect();
        let keyed: usize = listed.iter().map(|(_, limits, _)| with_keys(limits)).sum();
        let ports = listed.into_iter().map(|(port, limits, configured)| {
            let former = before.and_then(|before| before.ports.get(port));
            let overload = former.and_then(|former| former.overload.as_ref());
            let overload = PortOverload::after(overload, configured, now);
            let port_guard = match former {
                Some(former)
                    if former.is_as(&limits, configured)
                        && PortOverload::same(former.overload.as_ref(), overload.as_ref()) =>
                {
                    Arc::clone(former)
                }
                _ => Arc::new(PortGuard {
                    buckets: Mutex::new(taken_over(
                        former.map(|former| &**former),
                        &limits,
                        |origin, limit| rate(limit, shares.of(*port, origin)),
                        now,
                    )),
                    overload,
                    limits,
                    timeouts: configured.timeouts.clone(),
                    priority: configured.priority.clone(),
                    groups: configured.groups.clone(),
                    seed: seed.clone(),
                }),
            };
            for buckets in &mut *port_guard.buckets.lock() {
                buckets.set_most(keys_of_each(keyed));
            }
            (*port, port_guard)
        });
        Self {
            ports: ports.collect(),
            read_only: configured.read_only.clone(),
            seed,
        }
    }

    pub(crate) fn read_only(&self) -> Option<&[TcpTarget]> {
        self.read_only.as_deref()
    }

    pub(crate) fn port(&self, port: u16) -> Option<&Arc<PortGuard>> {
        self.ports.get(&port)
    }

    /// Calls `show` for each port whose limit of requests in flight was reported, where `next`
    /// has no limit any more.
    pub(super) fn ended_by(&self, next: Option<&Self>, show: impl Fn(u16, i64)) {
        for (port, current) in &self.ports {
            let next = next.and_then(|next| next.ports.get(port));
            let ends = next.is_none_or(|next| next.overload.is_none());
            if let (Some(overload), true) = (&current.overload, ends) {
                overload.end(|limit| show(*port, limit));
            }
        }
    }

    /// Whether a limit of this name, which all pods of the Service keep together, holds at a
    /// port.
    pub(super) fn has_shared(&self, port: u16, limit: &Origin) -> bool {
        let is_shared = |rule: &Rule<Option<Scoped<Arc<RateLimit>>>>| {
            let current = rule.then.as_ref().map(|scoped| scoped.section.scope);
            rule.origin == *limit && current == Some(LimitScope::Service)
        };
        let rules = self.ports.get(&port).map(|port| &port.limits.rules);
        rules.is_some_and(|rules| rules.iter().any(is_shared))
    }

    /// Whether it has a limit that all pods of a Service keep together.
    pub(super) fn has_any_shared(&self) -> bool {
        let rules = self.ports.values().flat_map(|port| &port.limits.rules);
        let mut sections = rules.filter_map(|rule| rule.then.as_ref());
        sections.any(|scoped| scoped.section.scope == LimitScope::Service)
    }

    /// What is offered to each of those, as far as that is known.
    pub(super) fn offered(&self, now: Instant) -> Vec<(u16, Origin, Offered)> {
        let mut all = Vec::new();
        for (port, current) in &self.ports {
            let mut buckets = current.buckets.lock();
            for (rule, buckets) in current.limits.rules.iter().zip(&mut *buckets) {
                if let Some(offered) = buckets.offered(now) {
                    all.push((*port, rule.origin.clone(), offered));
                }
            }
        }
        all
    }

    /// Shares are others now.
    pub(super) fn share(&self, shares: &Shares, now: Instant) {
        for (port, current) in &self.ports {
            let mut buckets = current.buckets.lock();
            for (rule, buckets) in current.limits.rules.iter().zip(&mut *buckets) {
                let Some(limit) = rule.then.as_ref().map(|scoped| &scoped.section) else {
                    continue;
                };
                if limit.scope == LimitScope::Service {
                    buckets.set_rate(now, rate(limit, shares.of(*port, &rule.origin)));
                }
            }
        }
    }
}

/// How fast the bucket of this pod fills: of what it keeps alone by the limit, of what all
/// keep together by its share.
fn rate(limit: &RateLimit, share: Option<u64>) -> Rate {
    match (limit.scope, share) {
        (LimitScope::Instance, _) => Rate::of(limit),
        (LimitScope::Service, Some(share)) => Rate::share(limit, share),
        (LimitScope::Service, None) => Rate::unshared(limit),
    }
}

/// Limits whose keys take memory.
fn with_keys(limits: &Limited<Arc<RateLimit>>) -> usize {
    let sections = limits.rules.iter().filter_map(|rule| rule.then.as_ref());
    sections
        .filter(|scoped| scoped.section.key != LimitKey::None)
        .count()
}

/// Buckets for each rule: those of the same limit before, if it still counts by the same key.
fn taken_over(
    former: Option<&PortGuard>,
    limits: &Limited<Arc<RateLimit>>,
    rate: impl Fn(&Origin, &RateLimit) -> Rate,
    now: Instant,
) -> Vec<Buckets> {
    let mut current = former.map(|former| former.buckets.lock());
    let limits = limits.rules.iter().filter_map(|rule| {
        let limit = &rule.then.as_ref()?.section;
        let rate = rate(&rule.origin, limit);
        let mut fresh = Buckets::new(now, rate);
        fresh.meter(now, limit);
        let same = |other: &Rule<Option<Scoped<Arc<RateLimit>>>>| {
            let key = other.then.as_ref().map(|other| &other.section.key);
            other.origin == rule.origin && key == Some(&limit.key)
        };
        let at = former.and_then(|former| former.limits.rules.iter().position(same));
        let kept = match (at, &mut current) {
            (Some(at), Some(current)) => current.get_mut(at),
            _ => None,
        };
        Some(match kept {
            Some(kept) => {
                let mut kept = std::mem::replace(kept, fresh);
                kept.set_rate(now, rate);
                kept.meter(now, limit);
                kept
            }
            None => fresh,
        })
    });
    limits.collect()
}

impl PortGuard {
    /// Whether it is the same, apart from its `overload`.
    fn is_as(&self, limits: &Limited<Arc<RateLimit>>, configured: &GuardPort) -> bool {
        self.limits == *limits
            && self.timeouts == configured.timeouts
            && self.priority == configured.priority
            && self.groups == configured.groups
    }

    /// The class of a request by the policies, whether or not this port is ever overloaded: calls
    /// that are made for it take it over. One whose path can be read in several ways has the
    /// lowest class of them; where rules cannot see them it counts as fitting every route, and
    /// has the lowest class of all.
    pub(crate) fn class(
        &self,
        caller: Caller<'_>,
        request: &RequestFacts<'_>,
        path: PathReadings<'_>,
    ) -> Option<Priority> {
        let of = |request: &RequestFacts<'_>| {
            let fitting = first(&self.priority, caller, Some(request));
            fitting.map(|(priority, _)| *priority)
        };
        match path {
            PathReadings::One => return of(request),
            PathReadings::Several(paths) => {
                return Priority::lowest(paths.iter().map(|path| of(&at(request, path))));
            }
            PathReadings::Unknown => {}
        }
        let configured = self.priority.rules.iter().filter_map(|rule| {
            let scoped = rule.then.as_ref()?;
            let admits = scoped.sources.admits(caller);
            admits.then_some((rule.when == Match::Always, scoped.section))
        });
        // What holds for no route in particular holds as well.
        let plain = configured.clone().find(|(always, _)| *always);
        let plain = plain.map(|(_, section)| section);
        let lowest = configured.map(|(_, section)| section).min();
        lowest.map(|lowest| lowest.min(plain.unwrap_or_default()))
    }

    /// The overload section that a request passes before it goes to the application; `None`:
    /// none.
    pub(crate) const fn overload(&self) -> Option<&PortOverload> {
        self.overload.as_ref()
    }

    /// By which requests count in the groups of a FaultExperiment; `None`: no experiment checks
    /// this port.
    pub(crate) fn groups(&self) -> Option<Selection> {
        *self.groups.decide(None).0
    }

    /// Whether any request has a time here.
    pub(crate) fn has_times(&self) -> bool {
        !self.timeouts.rules.is_empty()
    }

    /// How long a request may take that no proxy has held to it before. One whose path can be
    /// read in several ways has the shortest time of them; where rules cannot see them it has
    /// that of all routes, as it has the tokens of all their limits.
    pub(crate) fn request_time(
        &self,
        caller: Caller<'_>,
        request: &RequestFacts<'_>,
        path: PathReadings<'_>,
    ) -> Option<Duration> {
        let of = |request: &RequestFacts<'_>| {
            let (timeouts, _) = first(&self.timeouts, caller, Some(request))?;
            timeouts.request
        };
        match path {
            PathReadings::One => of(request),
            PathReadings::Several(paths) => {
                let times = paths.iter().filter_map(|path| of(&at(request, path)));
                times.min()
            }
            PathReadings::Unknown => {
                let rules = self.timeouts.rules.iter();
                let sections = rules.filter_map(|rule| rule.then.as_ref());
                let admitting = sections.filter(|scoped| scoped.sources.admits(caller));
                admitting.filter_map(|scoped| scoped.section.request).min()
            }
        }
    }

    /// Takes a token of every limit that applies, or none of any. `noticed` gets what else is to
    /// be counted.
    pub(crate) fn admit(
        &self,
        now: Instant,
        arrival: &Arrival<'_>,
        mut noticed: impl FnMut(Noticed<'_>),
    ) -> Result<(), Exceeded> {
        let keys = |mode: LimitMode| {
            let rules = self.limits.rules.iter().enumerate();
            rules.filter_map(move |(at, rule)| {
                let scoped = rule.then.as_ref()?;
                let applies = scoped.section.mode == mode
                    && scoped.sources.admits(arrival.caller)
                    && arrival.may_fit(&rule.when);
                applies.then(|| (at, self.key(&scoped.section.key, arrival)))
            })
        };
        let mut buckets = self.buckets.lock();
        let taken = take_all(&mut buckets, now, keys(LimitMode::Enforce));
        // What is refused anyway would not come to a limit that is on trial.
        if taken.is_ok() {
            for one in keys(LimitMode::Audit) {
                if take_all(&mut buckets, now, std::iter::once(one)).is_err() {
                    noticed(Noticed::Audited(&self.limits.rules[one.0].origin));
                }
            }
        }
        if buckets
            .iter_mut()
            .map(Buckets::take_overflowed)
            .sum::<u64>()
            > 0
        {
            noticed(Noticed::Overflowed);
        }
        drop(buckets);
        taken.map_err(|refused| Exceeded {
            origin: self.limits.rules[refused.limit].origin.clone(),
            refused,
        })
    }

    fn key(&self, key: &LimitKey, arrival: &Arrival<'_>) -> Key {
        let caller = || match arrival.caller {
            Caller::Mesh { id, .. } => self.seed.hash_one(id.as_str()),
            Caller::Outside => self.seed.hash_one(()),
        };
        match key {
            LimitKey::None => Key::All,
            LimitKey::Caller => Key::Caller(caller()),
            LimitKey::ClientAddress => match arrival.client {
                Some(client) => Key::Header {
                    caller: caller(),
                    value: self.seed.hash_one(client_network(client)),
                },
                None => Key::Caller(caller()),
            },
            LimitKey::Header(name) => Key::Header {
                caller: caller(),
                value: self.value(arrival.request.map(|request| request.headers), name),
            },
        }
    }

    /// All without the header share a bucket of their caller: that of no value.
    fn value(&self, headers: Option<&HeaderMap>, name: &http::HeaderName) -> u64 {
        let headers = headers.into_iter();
        let values = headers.flat_map(|headers| headers.get_all(name).iter());
        let values: Vec<&[u8]> = values.map(http::HeaderValue::as_bytes).collect();
        self.seed.hash_one(values)
    }
}

/// The request with another path.
const fn at<'a>(request: &RequestFacts<'a>, path: &'a str) -> RequestFacts<'a> {
    RequestFacts {
        method: request.method,
        path,
        query: request.query,
        headers: request.headers,
    }
}

#[cfg(test)]
mod tests;
