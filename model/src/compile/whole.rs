//! Compiles a World from nothing, in the order in which its parts need each other.
//!
//! `after` is quicker, and must give the same result; tests compare the two.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    access, addresses, annotations, bindings, endpoints, external, faults, findings, gateways,
    members::Members, protocols, release_findings, releases, revocations, route_names, routes,
    service_routes::ServiceRoutesCompiler, slices, splits, traffic,
};
use crate::{
    model::{Defaults, Index, PodEntry, ServiceEntry},
    problem::Problems,
    world::{ObjectKey, World},
};

/// Compiles; never fails.
pub(super) fn compile(world: &World, defaults: &Defaults) -> (Index, Problems) {
    let mut findings = findings::Findings::default();
    let revocations = revocations::compile(world, defaults, &mut findings);
    let routes = routes::Routes::new(world, defaults, &mut findings);
    let (mut splits, claims) = splits::by_root(world, &routes, &mut findings);
    let pods_by_ip = addresses::pods_by_ip(world);
    let endpoints = slices::by_port(world, defaults, &pods_by_ip);
    let mut declared = protocols::declared_for_pods(world, &endpoints, &mut findings);

    let mut pods = BTreeMap::new();
    for key in world.pods.keys() {
        let entry = PodEntry {
            declared: declared.remove(key).unwrap_or_default(),
            ..PodEntry::default()
        };
        pods.insert(key.clone(), entry);
    }
    endpoints::note_services(world, &endpoints, &mut pods);
    let pods: BTreeMap<ObjectKey, Arc<PodEntry>> = pods
        .into_iter()
        .map(|(key, entry)| (key, Arc::new(entry)))
        .collect();
    let bindings = bindings::bindings(world, defaults, &mut findings);
    let members = Members::new(world);
    let named = access::Named {
        defaults,
        routes: &routes,
        bindings: &bindings,
        members: &members,
        protocols: protocols::Protocols { world, pods: &pods },
    };
    let targets = access::targets(world, &named, &endpoints, &mut findings);
    annotations::check_opaque_ports(world, &mut findings);
    annotations::check_proxies(world, &mut findings);
    let names = route_names::names(world, &routes, &mut findings);

    let mut services: BTreeMap<ObjectKey, Arc<ServiceEntry>> = world
        .services
        .iter()
        .map(|(key, facts)| {
            let ports = endpoints::ports((world, &revocations), key, facts, &endpoints, &pods);
            let splits = splits.remove(key).unwrap_or_default();
            let entry = releases::service_entry(world, key, facts, ports, splits);
            (key.clone(), Arc::new(entry))
        })
        .collect();

    let mut routed = ServiceRoutesCompiler::new(world, &mut services);
    let named = traffic::Named {
        world,
        defaults,
        routes: &routes,
        bindings: &bindings,
        members: &members,
        services: &services,
        pods: &pods,
    };
    let mut policies = traffic::policies(&named, &mut findings);
    faults::add(&named, &mut policies, &mut findings);
    let releases = release_findings::releases(
        world,
        &services,
        &pods,
        &claims,
        &mut policies,
        &mut findings,
    );
    routed.settle(&mut services, &policies);
    routed.report(&services, &claims, &mut findings);
    let gateways = gateways::gateways(world, defaults, &policies, &mut findings);
    let externals = external::externals(world, &gateways, &mut findings);
    let index = Index {
        pods_by_ip: Arc::new(pods_by_ip),
        services_by_ip: Arc::new(addresses::services_by_ip(world)),
        services_by_outer: Arc::new(addresses::services_by_outer(world)),
        machine_ips: Arc::new(external::machine_ips(world)),
        services,
        pods: Arc::new(pods),
        targets: Arc::new(targets),
        bindings: Arc::new(bindings),
        policies: Arc::new(policies),
        names: Arc::new(names),
        releases: Arc::new(releases),
        externals: Arc::new(externals),
        revocations: Arc::new(revocations),
        gateways: Arc::new(gateways),
        dependents: Arc::default(),
        running: Arc::default(),
        peers: Arc::default(),
        shared: Arc::default(),
        world: world.clone(),
        defaults: defaults.clone(),
    };
    (index, findings.finish())
}
