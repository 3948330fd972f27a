//! Removes `timeouts` and `retry` from the rules of routes where a TrafficPolicy decides them that
//! is enforced for the mesh.
//!
//! Elsewhere a rule's own beat those of every policy. Decided here and not in proxies, so that the
//! status shows what is in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use policy::{
    origin::Origin,
    route::{Backend, Forward, Rule, edits::Actions},
};

use super::rules::Resolved;
use crate::{
    compile::findings::Finding,
    model::{
        ServiceEntry,
        service_routes::{RoutedTable, ServiceRoutes},
        traffic::{Policies, PortPolicies},
    },
    problem::Reason,
    world::ObjectKey,
};

/// A part of a rule that a policy decides instead, at some port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Settled {
    pub(super) service: ObjectKey,
    /// The route.
    pub(super) route: Origin,
    /// Which of its rules.
    pub(super) rule: u32,
    /// `timeouts` or `retry`.
    pub(super) part: &'static str,
    /// The policy.
    pub(super) by: Origin,
}

/// What is enforced at one port.
struct Enforced {
    timeouts: Option<Origin>,
    retry: Option<Origin>,
}

/// Changes the tables, and returns what was taken out.
pub(super) fn settle(
    services: &mut BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    policies: &Policies,
) -> Vec<Settled> {
    let mut settled = Vec::new();
    for (key, entry) in services {
        if entry.routes.is_none() || policies.ports_of(key).next().is_none() {
            continue;
        }
        // No Model has them yet, so nothing shares them.
        let routes = Arc::get_mut(entry).and_then(|entry| entry.routes.as_mut());
        let Some(ServiceRoutes(ports)) = routes.and_then(Arc::get_mut) else {
            continue;
        };
        for (port, at) in ports {
            let Some(enforced) = policies.of(key, *port).map(|port| Enforced::of(port)) else {
                continue;
            };
            if enforced.timeouts.is_none() && enforced.retry.is_none() {
                continue;
            }
            for table in at.tables_mut() {
                if enforced.beats(table) {
                    enforced.settle(key, Arc::make_mut(table), &mut settled);
                }
            }
        }
    }
    settled.sort();
    settled.dedup();
    settled
}

/// The same for a route of Gateways, for each of its backends by the policies of that one. Returns
/// what is to be said of the route.
pub(in crate::compile) fn settle_route(
    resolved: &mut Resolved,
    counting: usize,
    policies: &Policies,
) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    if policies.is_empty() {
        return Vec::new();
    }
    for (nth, rule) in resolved.rules.iter_mut().take(counting).enumerate() {
        let Forward::Split(backends) = &mut rule.then else {
            continue;
        };
        for backend in backends {
            let Some(actions) = &backend.actions else {
                continue;
            };
            let key = ObjectKey::from(&backend.service);
            let Some(port) = policies.of(&key, backend.port) else {
                continue;
            };
            let enforced = Enforced::of(port);
            for (part, by) in enforced.beaten(actions) {
                found.insert((nth, part, key.clone(), by.clone()));
            }
            backend.actions = enforced.left_of(actions);
        }
    }
    let found = found.into_iter().map(|(nth, part, service, by)| {
        let message = format!(
            "{by}, which is enforced for the mesh, decides this for calls to Service {service}"
        );
        let field = format!("spec.rules[{nth}].{part}");
        Finding::warn(Reason::PartlyOverridden, &field, message)
    });
    found.collect()
}

impl Enforced {
    fn of(port: &PortPolicies) -> Self {
        let traffic = &port.traffic;
        Self {
            timeouts: enforced(&traffic.timeouts.rules, port),
            retry: enforced(&traffic.retry.rules, port),
        }
    }

    /// Whether a part of some rule is decided instead. Most tables stay as other ports have them.
    fn beats(&self, table: &RoutedTable) -> bool {
        let rules = table.table.rules.iter();
        let mut backends = rules.flat_map(|rule| backends(&rule.then));
        backends.any(|backend| {
            let actions = backend.actions.as_deref();
            actions.is_some_and(|actions| self.beaten(actions).next().is_some())
        })
    }

    fn settle(&self, service: &ObjectKey, table: &mut RoutedTable, settled: &mut Vec<Settled>) {
        // Rules share what they do; each with what is left of it. The first is kept, so that its
        // address stays its own.
        let mut done: HashMap<*const Actions, (Arc<Actions>, Option<Arc<Actions>>)> =
            HashMap::new();
        for (rule, place) in table.table.rules.iter_mut().zip(&table.places) {
            let Forward::Split(backends) = &mut rule.then else {
                continue;
            };
            let place = place.as_ref().map_or(0, |place| place.rule);
            for backend in backends {
                let Some(actions) = backend.actions.take() else {
                    continue;
                };
                for (part, by) in self.beaten(&actions) {
                    settled.push(Settled {
                        service: service.clone(),
                        route: rule.origin.clone(),
                        rule: place,
                        part,
                        by: by.clone(),
                    });
                }
                let (_, left) = done.entry(Arc::as_ptr(&actions)).or_insert_with(|| {
                    let left = self.left_of(&actions);
                    (actions, left)
                });
                backend.actions.clone_from(left);
            }
        }
    }

    /// The parts that are decided instead.
    fn beaten(&self, actions: &Actions) -> impl Iterator<Item = (&'static str, &Origin)> {
        let timeouts = self
            .timeouts
            .as_ref()
            .filter(|_| actions.timeouts.is_some());
        let retry = self.retry.as_ref().filter(|_| actions.retry.is_some());
        let timeouts = timeouts.map(|by| ("timeouts", by));
        timeouts.into_iter().chain(retry.map(|by| ("retry", by)))
    }

    fn left_of(&self, actions: &Arc<Actions>) -> Option<Arc<Actions>> {
        if self.beaten(actions).next().is_none() {
            return Some(Arc::clone(actions));
        }
        let mut left = Actions::clone(actions);
        left.timeouts = left.timeouts.filter(|_| self.timeouts.is_none());
        left.retry = left.retry.filter(|_| self.retry.is_none());
        (left != Actions::default()).then(|| Arc::new(left))
    }
}

fn backends(then: &Forward) -> &[Backend] {
    match then {
        Forward::Split(backends) => backends,
        Forward::Root | Forward::Refuse(_) | Forward::Redirect(_) => &[],
    }
}

/// The policy that is enforced for the mesh and decides about some calls at least.
fn enforced<T>(rules: &[Rule<T>], port: &PortPolicies) -> Option<Origin> {
    let is_enforced = |origin: &Origin| {
        let rank = port.ranks.get(origin);
        rank.is_some_and(|rank| rank.is_enforced())
    };
    let mut origins = rules.iter().map(|rule| &rule.origin);
    origins.find(|origin| is_enforced(origin)).cloned()
}
