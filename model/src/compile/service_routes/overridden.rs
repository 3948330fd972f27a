//! Reports TrafficSplits and CanaryReleases that have no effect because a route decides in their
//! place.
//!
//! They decide again as soon as the route goes, so nothing is taken from them. Proxies that cannot
//! carry out routes follow the split all the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::name::ObjectRef;

use crate::{
    compile::{
        findings::{Finding, Findings},
        releases::Claim,
    },
    model::{
        ServiceEntry,
        service_routes::{RoutedTable, ServiceRoutes},
    },
    problem::Reason,
    world::ObjectKey,
};

/// Where splits, and releases, name the Service.
const FIELD: &str = "spec.service";

pub(super) fn report(
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    claims: &[Claim<'_>],
    findings: &mut Findings,
) {
    for (key, entry) in services {
        let Some(routes) = &entry.routes else {
            continue;
        };
        let objects = overridden(key, entry, claims);
        if objects.is_empty() {
            continue;
        }
        let ServiceRoutes(ports) = &**routes;
        let mut all = entry.ports.keys();
        let all = all.all(|port| ports.get(port).is_some_and(|at| at.everyone.is_some()));
        let places = ports.iter();
        let places =
            places.flat_map(|(port, at)| at.tables().map(move |(of, table)| (*port, of, table)));
        let said = places.map(|(port, audience, table)| {
            let message = words(port, audience, table);
            if all {
                Finding::refuse(Reason::Overridden, FIELD, message)
            } else {
                Finding::warn(Reason::Overridden, FIELD, message)
            }
        });
        let said: Vec<Finding> = said.collect();
        for (object, generation) in objects {
            let mut about = findings.about(&object, generation);
            for finding in &said {
                about.found(finding);
            }
        }
    }
}

/// The splits and releases that lead the calls of a Service, with their generations.
fn overridden(
    service: &ObjectKey,
    entry: &ServiceEntry,
    claims: &[Claim<'_>],
) -> BTreeMap<ObjectRef, i64> {
    let splits = entry.splits.iter().map(|split| {
        let mut origins = split.origins.iter();
        let own = origins.find(|(object, _)| *object == split.origin);
        let generation = own.map_or(0, |(_, generation)| *generation);
        (split.origin.clone(), generation)
    });
    let releases = claims.iter().filter(|claim| claim.root == *service);
    let releases = releases.map(|claim| (claim.object.clone(), claim.facts.meta.generation));
    splits.chain(releases).collect()
}

fn words(port: u16, audience: &str, table: &RoutedTable) -> String {
    let origin = table.table.rules.last().map(|rule| &rule.origin);
    let route = origin.map_or_else(String::new, ToString::to_string);
    let callers = if audience.is_empty() {
        "callers".to_owned()
    } else {
        format!("callers of namespace {audience}")
    };
    format!(
        "{route} decides for {callers} at port {port}; delete it, or name other ports there, to \
         have this decide again"
    )
}
