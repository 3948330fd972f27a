//! Compiles routes of the Gateway API that have Services as parents: which of them decide at which
//! port for whose calls, and what is reported of each.
//!
//! Each route was read by itself before (`gateway_api`); here its parents and backends are looked
//! up (`parents`, `rules`), one kind of route decides at each port for each audience (`tables`),
//! TrafficPolicies that are enforced for the mesh take their part back (`settled`), and the same
//! results become conditions (`reports`, `overridden`).
//!
//! Routes decide before TrafficSplits. A split is compiled as if there were no route, since
//! proxies that cannot carry out routes get it.

mod overridden;
mod parents;
pub(super) mod reports;
pub(super) mod rules;
pub(super) mod settled;
pub(super) mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::{parents::Candidate, rules::ResolvedByParent, settled::Settled};
use super::{findings::Findings, releases::Claim};
use crate::{
    model::{ServiceEntry, traffic::Policies},
    world::{ObjectKey, World},
};

/// Routes with Services as parents.
pub(super) struct ServiceRoutesCompiler<'a> {
    candidates: Vec<Candidate<'a>>,
    /// What each refers to, by the namespace of its parents.
    resolved: ResolvedByParent,
    /// Parts that policies decide instead.
    settled: Vec<Settled>,
}

impl<'a> ServiceRoutesCompiler<'a> {
    /// Compiles the tables, and puts them into the Services.
    pub(super) fn new(
        world: &'a World,
        services: &mut BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    ) -> Self {
        let mut candidates = parents::candidates(world, services);
        let resolved = rules::resolve(world, &candidates);
        for (key, routes) in tables::tables(&mut candidates, &resolved) {
            // No Model has them yet, so nothing shares them.
            if let Some(entry) = services.get_mut(&key).and_then(Arc::get_mut) {
                entry.routes = Some(Arc::new(routes));
            }
        }
        Self {
            candidates,
            resolved,
            settled: Vec::new(),
        }
    }

    /// Takes out of the tables what policies decide that are enforced for the mesh.
    pub(super) fn settle(
        &mut self,
        services: &mut BTreeMap<ObjectKey, Arc<ServiceEntry>>,
        policies: &Policies,
    ) {
        if !self.candidates.is_empty() {
            self.settled = settled::settle(services, policies);
        }
    }

    /// Reports on routes, and on the splits and releases in whose place they decide.
    pub(super) fn report(
        &self,
        services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
        claims: &[Claim<'_>],
        findings: &mut Findings,
    ) {
        for (nth, candidate) in self.candidates.iter().enumerate() {
            reports::report((nth, candidate), &self.resolved, &self.settled, findings);
        }
        if !self.candidates.is_empty() {
            overridden::report(services, claims, findings);
        }
    }
}

/// Whether a Service that some route is for speaks something else at a port: then another kind of
/// route may decide there, or none.
pub(super) fn may_differ(
    world: &World,
    key: &ObjectKey,
    services: [&BTreeMap<ObjectKey, Arc<ServiceEntry>>; 2],
) -> bool {
    let [was, is] = services.map(|services| {
        let ports = services.get(key).into_iter().flat_map(|entry| &entry.ports);
        ports
            .map(|(port, at)| (*port, at.protocol))
            .collect::<Vec<_>>()
    });
    was != is && parents::is_parent(world, key)
}
