//! Resolves the rules of routes: which Services their backends are, whether a ReferenceGrant
//! permits them, and which actions apply. The same for routes of Services and of Gateways.
//!
//! A backend is a port of a Service, whose own routes and splits are not looked at. It may be of
//! the namespace of the route, or of its parent; a Service of another namespace has to be permitted
//! by a ReferenceGrant there. What is not there keeps its share of the calls, which are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::{
    conditions,
    grants::Grants,
    route::{BackendRef, BackendTarget, MirrorRef, Route, RouteRule, RuleFilters, Unresolved},
};
use policy::{
    name::ServiceId,
    reason,
    route::{
        Backend, Forward,
        edits::{Actions, Edits, RuleMirror},
    },
};

use super::parents::Candidate;
use crate::{
    compile::findings::Finding,
    model::published::{action_len, endpoints_name, match_len},
    problem::Reason,
    world::{ObjectKey, World},
};

/// By the place of a route among all, and the namespace of its parents.
pub(super) type ResolvedByParent = BTreeMap<(usize, Arc<str>), Resolved>;

/// A route's rules, as parents of one namespace have them.
#[derive(Debug, Default)]
pub(in crate::compile) struct Resolved {
    /// By place.
    pub(in crate::compile) rules: Vec<ResolvedRule>,
    /// References that lead nowhere.
    pub(in crate::compile) unresolved: Vec<Finding>,
    /// What it takes in resources.
    pub(in crate::compile) size: RouteSize,
}

/// Bytes that a route takes in the resource of each port that it is for, and at its callers.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::compile) struct RouteSize {
    /// Of matches, each with the route's name.
    pub(in crate::compile) matches: usize,
    /// Of what the rules do. It may be far more than the object itself: each backend is sent with
    /// the edits of its rule.
    pub(in crate::compile) actions: usize,
    /// Of the expressions of its matches, as callers' proxies hold them compiled.
    pub(in crate::compile) compiled: usize,
}

/// What becomes of calls that fit a rule.
#[derive(Debug)]
pub(in crate::compile) struct ResolvedRule {
    pub(in crate::compile) then: Forward,
    /// Services and their ports that calls or copies of them go to.
    pub(in crate::compile) leads_to: Vec<(ObjectKey, u16)>,
}

/// Resolves the rules of all routes.
pub(super) fn resolve(world: &World, candidates: &[Candidate<'_>]) -> ResolvedByParent {
    let mut resolved = ResolvedByParent::new();
    if candidates.is_empty() {
        return resolved;
    }
    let grants = Grants::new(world.grants.values().map(|facts| &*facts.grant));
    for (nth, candidate) in candidates.iter().enumerate() {
        for parent in &candidate.parents {
            let namespace = &parent.service.namespace;
            let at = (nth, Arc::clone(namespace));
            resolved
                .entry(at)
                .or_insert_with(|| of_route(world, &grants, candidate.route, namespace));
        }
    }
    resolved
}

/// Resolves the rules of one route, as parents of a namespace have them. Of that namespace it may
/// name any Service.
pub(in crate::compile) fn of_route(
    world: &World,
    grants: &Grants,
    route: &Route,
    parent_namespace: &str,
) -> Resolved {
    let mut resolving = Resolving {
        world,
        grants,
        route,
        parent_namespace,
        unresolved: Vec::new(),
    };
    let rules = route.rules.iter();
    let rules: Vec<_> = rules.map(|rule| resolving.rule(rule)).collect();
    Resolved {
        size: RouteSize::of(route, &rules),
        rules,
        unresolved: resolving.unresolved,
    }
}

impl RouteSize {
    fn of(route: &Route, resolved: &[ResolvedRule]) -> Self {
        let name = route.namespace.len() + route.name.len();
        let all = || route.rules.iter().flat_map(|rule| &rule.matches);
        let matches = all().map(|one| match_len(&one.http) + name);
        let compiled = all().map(|one| one.http.compiled_size());
        let actions = resolved.iter().map(|rule| action_len(&rule.then));
        Self {
            matches: matches.sum(),
            actions: actions.sum(),
            compiled: compiled.sum(),
        }
    }
}

struct Resolving<'a> {
    world: &'a World,
    grants: &'a Grants,
    route: &'a Route,
    parent_namespace: &'a str,
    unresolved: Vec<Finding>,
}

impl Resolving<'_> {
    fn rule(&mut self, rule: &RouteRule) -> ResolvedRule {
        let nowhere = |then| ResolvedRule {
            then,
            leads_to: Vec::new(),
        };
        if rule.broken.is_some() {
            return nowhere(Forward::Refuse(reason::Reason::InvalidRoute));
        }
        if let Some(redirect) = &rule.filters.redirect {
            return nowhere(Forward::Redirect(Arc::new(redirect.clone())));
        }
        if rule.backends.is_empty() {
            return nowhere(Forward::Refuse(reason::Reason::InvalidBackend));
        }
        let mut leads_to = Vec::new();
        let mirrors = self.mirrors(&rule.filters.mirrors, &mut leads_to);
        let whole = Actions {
            edits: edits(&[&rule.filters.edits]),
            cors: rule.filters.cors.clone(),
            mirrors,
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
        };
        let shared = some(whole.clone());
        let backends = rule.backends.iter();
        let backends = backends.map(|backend| {
            let own = RuleFilters::default() != backend.filters;
            let actions = if own {
                self.actions(rule, &whole, backend, &mut leads_to)
            } else {
                shared.clone()
            };
            self.backend(backend, &mut leads_to).with_actions(actions)
        });
        let backends = backends.collect();
        ResolvedRule {
            then: Forward::split(backends),
            leads_to,
        }
    }

    /// What is done with the calls that a backend with filters of its own takes.
    fn actions(
        &mut self,
        rule: &RouteRule,
        whole: &Actions,
        backend: &BackendRef,
        leads_to: &mut Vec<(ObjectKey, u16)>,
    ) -> Option<Arc<Actions>> {
        let mut actions = Actions {
            edits: edits(&[&rule.filters.edits, &backend.filters.edits]),
            ..whole.clone()
        };
        let mirrors = self.mirrors(&backend.filters.mirrors, leads_to);
        actions.mirrors.extend(mirrors);
        some(actions)
    }

    fn backend(&mut self, backend: &BackendRef, leads_to: &mut Vec<(ObjectKey, u16)>) -> Backend {
        let target = &backend.target;
        match self.target(target) {
            Ok((key, port)) => {
                let endpoints = endpoints_name(&key, port);
                let service = ServiceId::new(key.namespace.clone(), key.name.clone());
                leads_to.push((key, port));
                Backend::new(service, port, backend.weight, endpoints)
            }
            Err(why) => {
                self.note(why);
                let service = ServiceId::new(target.namespace.clone(), target.name.clone());
                Backend::invalid(service, target.port.unwrap_or(0), backend.weight)
            }
        }
    }

    /// The mirrors that lead somewhere.
    fn mirrors(
        &mut self,
        written: &[MirrorRef],
        leads_to: &mut Vec<(ObjectKey, u16)>,
    ) -> Vec<RuleMirror> {
        let mut mirrors = Vec::new();
        for mirror in written {
            match self.target(&mirror.target) {
                Ok((key, port)) => {
                    mirrors.push(RuleMirror {
                        service: ServiceId::new(key.namespace.clone(), key.name.clone()),
                        port,
                        endpoints: endpoints_name(&key, port).into(),
                        share: mirror.share,
                    });
                    leads_to.push((key, port));
                }
                Err(why) => self.note(why),
            }
        }
        mirrors
    }

    /// The Service port that is meant, if it is there and may be named. Whether it may is looked at
    /// first: of a namespace that permits nothing, nothing is said.
    fn target(&self, target: &BackendTarget) -> Result<(ObjectKey, u16), Unresolved> {
        let (service, port) = target.service()?;
        let unresolved = |reason, message| Unresolved {
            reason,
            path: target.path.clone(),
            message,
        };
        let route = self.route;
        let is_permitted = *service.namespace == *self.parent_namespace
            || self.grants.allows(route.kind, &route.namespace, &service);
        if !is_permitted {
            let message = format!(
                "no ReferenceGrant of namespace {} permits {} of namespace {} to name Service {}; \
                 make one there",
                service.namespace,
                route.kind.word(),
                route.namespace,
                service.name
            );
            return Err(unresolved(conditions::Reason::RefNotPermitted, message));
        }
        let found = ObjectKey::from(&service);
        let missing = match self.world.services.get(&found) {
            None => Some(format!("there is no Service {service}")),
            Some(facts) if facts.external_name.is_some() => Some(format!(
                "Service {service} is of type ExternalName, so it has no endpoints; name another \
                 Service"
            )),
            Some(facts) if !facts.ports.iter().any(|one| one.number == port) => Some(format!(
                "Service {service} has no port {port}; name a port of the Service, not of its pods"
            )),
            Some(_) => None,
        };
        match missing {
            Some(message) => Err(unresolved(conditions::Reason::BackendNotFound, message)),
            None => Ok((found, port)),
        }
    }

    fn note(&mut self, why: Unresolved) {
        let reason = match why.reason {
            conditions::Reason::InvalidKind => Reason::InvalidKind,
            conditions::Reason::RefNotPermitted => Reason::RefNotPermitted,
            _ => Reason::BackendNotFound,
        };
        let finding = Finding::unresolved(reason, &why.path, why.message);
        self.unresolved.push(finding);
    }
}

/// Those that change something.
fn edits(all: &[&Edits]) -> Vec<Edits> {
    let nothing = Edits::default();
    let all = all.iter().filter(|edits| ***edits != nothing);
    all.map(|edits| (*edits).clone()).collect()
}

fn some(actions: Actions) -> Option<Arc<Actions>> {
    (actions != Actions::default()).then(|| Arc::new(actions))
}
