//! The part of `make scale` about routes of the Gateway API: as many HTTPRoutes as Services, beside
//! all else, and how long one change of one of them takes.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::Result;
use serde_json::{Value, json};
use wire::v1;
use wire::v1::resource::Content;
use wire::v1::route_action::What;

use crate::api::Wanted;
use crate::bench::Bench;
use crate::cluster::{self, Size};
use crate::scale::{Figures, PROXIES, Planned, changed};

/// Measures with one route for each Service, each of which overrides the split of its Service.
/// The routes are gone at the end, for the sizes that follow.
pub(crate) async fn measure(bench: &Bench, size: &Size, turns: Range<usize>) -> Result<Figures> {
    bench.log_progress(&format!("making {} HTTPRoutes", size.services));
    bench.api.make((0..size.services).map(route)).await?;
    let figures = changed(bench, size, turns, reroute).await?;
    for service in 0..size.services {
        bench.api.delete(&path(service)).await?;
    }
    Ok(figures)
}

fn collection(service: usize) -> String {
    let namespace = cluster::namespace_of(service);
    format!("/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes")
}

fn path(service: usize) -> String {
    format!("{}/{}", collection(service), cluster::service_name(service))
}

fn route(service: usize) -> Wanted {
    let name = cluster::service_name(service);
    let parent = json!({"group": "", "kind": "Service", "name": name, "port": cluster::PORT});
    let spec = json!({"parentRefs": [parent], "rules": rules(service, 10)});
    Wanted {
        path: collection(service),
        object: json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name}, "spec": spec}),
        status: None,
    }
}

/// Of a small HTTP API: two paths, a version for testers, and all else between the Service and
/// its neighbour, which has this weight of 1000.
fn rules(service: usize, weight: u32) -> Value {
    let backend = |service: usize, weight: u32| json!({"name": cluster::service_name(service), "port": cluster::PORT, "weight": weight});
    // Services of even numbers and those behind them lie in one namespace.
    let (own, neighbour) = (service, service ^ 1);
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let tested = json!({"type": "RequestHeaderModifier",
        "requestHeaderModifier": {"set": [{"name": "x-tested", "value": "yes"}]}});
    json!([
        {"matches": [path("Exact", "/healthz"), path("PathPrefix", "/orders")], "backendRefs": [backend(own, 1)]},
        {"matches": [{"headers": [{"name": "x-tester", "value": "yes"}]}], "filters": [tested],
            "backendRefs": [backend(neighbour, 1)]},
        {"backendRefs": [backend(own, 1000 - weight), backend(neighbour, weight)]},
    ])
}

/// Another weight in the route of the Service that the proxy calls.
fn reroute(turn: usize) -> Planned {
    let service = turn % PROXIES;
    let wanted = u32::try_from(turn % 967).unwrap_or_default() + 20;
    let resource = wire::names::service(
        &cluster::namespace_of(service),
        &cluster::service_name(service),
        cluster::PORT,
    );
    let shows = move |resource: &v1::Resource| match &resource.content {
        Some(Content::RoutedService(routed)) => {
            let backends = routed
                .actions
                .iter()
                .filter_map(|action| match &action.what {
                    Some(What::Backends(all)) => Some(&all.backends),
                    _ => None,
                });
            let mut backends = backends.flatten();
            backends.any(|backend| backend.weight == wanted)
        }
        _ => false,
    };
    (
        path(service),
        json!({"spec": {"rules": rules(service, wanted)}}),
        resource,
        BTreeSet::from([service]),
        Box::new(shows),
    )
}
