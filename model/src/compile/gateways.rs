//! Compiles Gateways: which of their listeners are served, which routes attach to each, and what is
//! reported of all of them.
//!
//! Each object was read by itself before (`gateway_api`), which decides about listeners and
//! attachment; here Gateways of Weft are found (`own`), routes are attached (`attached`) and brought
//! into the tables of listeners (`tables`), and the same results become conditions (`reports`).
//!
//! A backend is a Service: its splits are looked at when a call goes there, and its own routes are
//! not.

mod attached;
mod own;
mod reports;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use gateway_api::grants::Grants;
use policy::gateway::{Gateway, Listener, ListenerProtocol, target_port};
use policy::name::Kind;

use self::{attached::Candidate, own::OwnGateway, tables::ListenerTables};
use super::{
    findings::Findings,
    service_routes::{
        rules::{self, Resolved},
        settled::settle_route,
    },
};
use crate::{
    model::{
        Defaults,
        gateways::{CompiledGateway, Gateways},
        published::certificate_name,
        traffic::Policies,
    },
    world::{World, named, object},
};

/// All Gateways that are served. Also reports on them, on their classes, and on their routes.
pub(super) fn gateways(
    world: &World,
    defaults: &Defaults,
    policies: &Policies,
    findings: &mut Findings,
) -> Gateways {
    let Some(namespaces) = &defaults.gateway_namespaces else {
        return Gateways::default();
    };
    reports::classes(world, findings);
    let grants = Grants::new(world.grants.values().map(|facts| &*facts.grant));
    let own = own::gateways(world, &grants, namespaces);
    let mut candidates = attached::candidates(world, &own);
    let resolved = candidates.iter_mut().map(|one| {
        let mut resolved = rules::of_route(world, &grants, one.route, &one.key.namespace);
        one.overridden = settle_route(&mut resolved, one.counting(), policies);
        resolved
    });
    let resolved: Vec<Resolved> = resolved.collect();
    attached::settle_kinds(&own, &mut candidates);
    let tables = tables::tables(&own, &mut candidates, &resolved);
    let all = (candidates.as_slice(), resolved.as_slice());
    reports::report(&own, all, findings);
    let served = own.iter().enumerate();
    let served = served.filter(|(_, one)| one.refused.is_none());
    let compiled = served.map(|(nth, one)| {
        let compiled = compiled((nth, one), all, &tables);
        (one.key.clone(), Arc::new(compiled))
    });
    Gateways(compiled.collect())
}

/// What one Gateway serves.
fn compiled(
    (nth, own): (usize, &OwnGateway<'_>),
    (candidates, resolved): (&[Candidate<'_>], &[Resolved]),
    tables: &ListenerTables,
) -> CompiledGateway {
    let this = object(Kind::Gateway, own.key);
    let mut origins = vec![(this.clone(), own.facts.meta.generation)];
    let (mut leads_to, mut certificates) = (BTreeSet::new(), BTreeMap::new());
    let (mut listeners, mut places) = (Vec::new(), Vec::new());
    for (place, written) in own.facts.spec.listeners.iter().enumerate() {
        let Some(protocol) = own.keeps_hosts(place) else {
            continue;
        };
        let Some(target_port) = target_port(written.port) else {
            continue;
        };
        let mut listener = Listener {
            name: written.name.clone(),
            port: written.port,
            target_port,
            protocol,
            hostname: written.hostname.clone(),
            certificates: Vec::new(),
            routes: Vec::new(),
        };
        let mut placed = Vec::new();
        if own.states[place].refused.is_none() {
            for (secret, fingerprint) in &own.certificates[place].usable {
                listener.certificates.push(certificate_name(secret).into());
                certificates.insert(secret.clone(), Arc::clone(fingerprint));
            }
            if let Some(made) = tables.get(&(nth, place)) {
                listener.routes.clone_from(&made.hosts);
                placed.clone_from(&made.places);
                for route in &made.routes {
                    let candidate = &candidates[*route];
                    origins.push((candidate.object(), candidate.meta.generation));
                    let counting = candidate.counting();
                    let rules = resolved[*route].rules.iter().take(counting);
                    leads_to.extend(rules.flat_map(|rule| rule.leads_to.iter().cloned()));
                }
            }
        }
        listeners.push(listener);
        places.push(placed);
    }
    origins.sort();
    origins.dedup();
    CompiledGateway {
        gateway: Gateway {
            origin: named(&this),
            listeners,
        },
        places,
        origins,
        leads_to,
        certificates,
        encoded: OnceLock::new(),
    }
}

impl OwnGateway<'_> {
    /// The protocol of a listener that the Gateway's pods hold. One that cannot be served keeps its
    /// hosts where another one has its port: else these would fall to that one's routes.
    fn keeps_hosts(&self, place: usize) -> Option<ListenerProtocol> {
        let listeners = &self.facts.spec.listeners;
        let listener = &listeners[place];
        let is_served = |place: usize| self.states[place].refused.is_none();
        let is_open = is_served(place) || {
            let mut others = listeners.iter().enumerate();
            others.any(|(other, one)| one.port == listener.port && is_served(other))
        };
        listener.served.filter(|_| is_open)
    }
}
