//! Finds where recorded calls may go by one Model; of these only the two ends are known, and no
//! request.

use std::collections::{BTreeMap, BTreeSet};

use policy::http_match::{HttpMatch, PathMatch};
use policy::reason::Reason;
use policy::route::{Forward, Match, Rule, shares};

use crate::model::{Audience, Index, PodId};
use crate::world::ObjectKey;

/// Of all calls, how many go to a Service: 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub service: ObjectKey,
    pub share: f64,
}

/// Where calls may go.
pub(super) struct Routing<'a> {
    service: Option<&'a ObjectKey>,
    port: u16,
    /// What proxies are sent of it, with all backends of a split.
    rules: Vec<Rule<Forward>>,
    /// Where calls go that no condition describes.
    unconditional: Forward,
    /// Some calls fit a condition.
    conditional: bool,
}

impl<'a> Routing<'a> {
    /// Of requests (`http`) or bytes to a port of a Service, or without one to the pods' own
    /// addresses, from callers of a namespace. `None`: there is no such Service, or no such port
    /// of it.
    pub(super) fn of(
        index: &Index,
        (service, port): (Option<&'a ObjectKey>, u16),
        http: bool,
        from: Option<&str>,
    ) -> Option<Self> {
        let Some(service) = service else {
            return Some(Self {
                service: None,
                port,
                rules: Vec::new(),
                unconditional: Forward::Root,
                conditional: false,
            });
        };
        let entry = index.services.get(service)?;
        let at = entry.ports.get(&port)?;
        let is_request = http && !at.protocol.is_opaque();
        let audience = from.map_or(Audience::Everyone, Audience::Namespace);
        let routed = entry.routed(port, audience);
        let mut rules: Vec<Rule<Forward>> = match routed {
            Some(routed) => routed.table.rules.clone(),
            None => {
                let splits = index.split_rules(entry, port);
                splits.map(|rule| rule.map(Forward::Split)).collect()
            }
        };
        rules.retain(|rule| rule.when.may_fit(is_request));
        let is_for_all = |rule: &Rule<Forward>| match routed {
            Some(_) if is_request => fits_every_request(&rule.when),
            _ => rule.when.fits(None),
        };
        let first = rules.iter().position(is_for_all);
        // Behind it no rule of a route is tried. Splits end with theirs.
        if let Some(first) = first {
            rules.truncate(first + 1);
        }
        let unconditional = first.and_then(|first| rules.get(first));
        let unconditional = match unconditional.map(|rule| &rule.then) {
            Some(Forward::Split(backends)) => Forward::split(backends.clone()),
            Some(other) => other.clone(),
            None => Forward::Root,
        };
        Some(Self {
            service: Some(service),
            port,
            conditional: rules.len() > usize::from(first.is_some()),
            rules,
            unconditional,
        })
    }

    /// Whether proxies are sent the same, whichever object it is from.
    pub(super) fn is_sent_as(&self, other: &Self) -> bool {
        let [own, others] = [self, other].map(|one| one.rules.iter().map(sent));
        own.eq(others)
    }

    /// Which requests go where depends on their content.
    pub(super) const fn is_conditional(&self) -> bool {
        self.conditional
    }

    /// Why calls that no condition describes go nowhere. That requests which fit no rule of a route
    /// do is no reason while others fit one.
    pub(super) fn dead(&self) -> Option<Reason> {
        match self.unconditional {
            Forward::Refuse(Reason::NoRoute) if self.conditional => None,
            Forward::Refuse(reason) => Some(reason),
            Forward::Root | Forward::Split(_) | Forward::Redirect(_) => None,
        }
    }

    /// By Service where calls go that no condition describes; none where they go nowhere.
    pub(super) fn shares(&self) -> Vec<Share> {
        match &self.unconditional {
            Forward::Root => {
                let whole = self.service.map(|service| Share {
                    service: service.clone(),
                    share: 1.0,
                });
                whole.into_iter().collect()
            }
            Forward::Split(backends) => {
                let shares = shares(backends).map(|(backend, share)| Share {
                    service: ObjectKey::from(&backend.service),
                    share,
                });
                shares.collect()
            }
            Forward::Refuse(_) | Forward::Redirect(_) => Vec::new(),
        }
    }

    /// The pods that calls may reach, each with its own port.
    pub(super) fn endpoints(&self, index: &Index) -> BTreeMap<PodId, u16> {
        let mut services: BTreeSet<(ObjectKey, u16)> = BTreeSet::new();
        for rule in &self.rules {
            if let Forward::Split(backends) = &rule.then {
                let taking = shares(backends).filter(|(backend, _)| !backend.invalid);
                services.extend(
                    taking.map(|(backend, _)| (ObjectKey::from(&backend.service), backend.port)),
                );
            }
        }
        if self.unconditional == Forward::Root {
            let root = self.service.cloned();
            services.extend(root.map(|service| (service, self.port)));
        }
        let pods = services.iter();
        pods.flat_map(|(service, port)| endpoints(index, service, *port))
            .collect()
    }
}

/// The pods behind a Service's port, each with its own port.
pub(super) fn endpoints(index: &Index, service: &ObjectKey, port: u16) -> BTreeMap<PodId, u16> {
    let at = index.backend(service);
    let at = at.and_then(|entry| entry.ports.get(&port));
    let candidates = at.into_iter().flat_map(|at| &at.candidates);
    let pods = candidates.filter_map(|one| Some((one.endpoint.pod.clone()?, one.endpoint.port)));
    pods.collect()
}

/// What proxies are sent of a rule beside whose it is.
fn sent(rule: &Rule<Forward>) -> (&Match, &Forward) {
    (&rule.when, &rule.then)
}

/// Whether it is plain that a rule of a route is for every request.
fn fits_every_request(when: &Match) -> bool {
    let is_every = |one: &HttpMatch| {
        let description = one.description();
        let every_path = match &description.path {
            None => true,
            Some(PathMatch::Prefix(path)) => path.trim_end_matches('/').is_empty(),
            Some(PathMatch::Open(_) | PathMatch::Exact(_) | PathMatch::Regex(_)) => false,
        };
        every_path
            && description.methods.is_empty()
            && description.headers.is_empty()
            && description.query.is_empty()
    };
    match when {
        Match::Always => true,
        Match::AnyOf(all) => all.iter().any(is_every),
    }
}
