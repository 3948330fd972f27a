//! One kind of route decides at a port for an audience, and routes come before splits.

use super::*;

fn http() -> Value {
    http_route("h", "api", json!([rule_over(&[("v1", 1)])]))
}

fn tcp(name: &str, backend: &str) -> Value {
    gateway_tcp_route(name, "api", json!([rule_over(&[(backend, 1)])]))
}

#[test]
fn kinds_of_routes_decide_in_their_order() {
    let grpc = grpc_route("g", "api", json!([rule_over(&[("v2", 1)])]));
    let lower = cluster().with(tcp("t", "v2")).with(http());
    let conflicted = (false, "Conflicted");
    const TCP: &str = "TCPRoute.gateway.networking.k8s.io t";
    assert_eq!(accepted(&lower, "HTTPRoute h"), ACCEPTED);
    assert_eq!(accepted(&lower, TCP), conflicted);
    assert_eq!(shares(&request(&table(&lower), "/")), [share("v1", 1)]);

    let all = lower.with(grpc);
    assert_eq!(accepted(&all, "GRPCRoute g"), ACCEPTED);
    assert_eq!(accepted(&all, "HTTPRoute h"), conflicted);
    assert_eq!(accepted(&all, TCP), conflicted);
    let message = parent(&all, "HTTPRoute h").accepted.message;
    assert!(
        message.contains("GRPCRoute shop/g decides at port 80"),
        "{message}"
    );
    let origins = {
        let (model, _) = all.compile();
        let sent = resolved(&model, ("shop", "client"));
        sent.published(ROUTED).origins.clone()
    };
    assert_eq!(origins.len(), 1);
    assert_eq!(origins[0].0.to_string(), "GRPCRoute shop/g");
}

#[test]
fn oldest_tcp_route_decides_about_bytes_and_requests() {
    let mut db = service("api", "10.96.0.1", &[("tcp-db", 80)]);
    db["spec"]["ports"][0]["appProtocol"] = json!("tcp");
    let cluster = cluster()
        .with(db)
        .with(created(tcp("b", "v1"), 1))
        .with(created(tcp("a", "v2"), 2));
    let (forward, origin) = {
        let table = table(&cluster);
        let (forward, origin) = table.decide(None);
        (forward.clone(), origin.unwrap().to_string())
    };
    assert_eq!(shares(&forward), [share("v1", 1)]);
    assert_eq!(origin, "TCPRoute.gateway.networking.k8s.io shop/b");
    assert_eq!(shares(&request(&table(&cluster), "/")), [share("v1", 1)]);
    let younger = accepted(&cluster, "TCPRoute.gateway.networking.k8s.io a");
    assert_eq!(younger, (false, "Conflicted"));
    assert_eq!(
        accepted(&cluster, "TCPRoute.gateway.networking.k8s.io b"),
        ACCEPTED
    );
}

#[test]
fn split_is_overridden_where_a_route_decides_and_returns() {
    let both = [("http", 80), ("more", 81)];
    let before = cluster()
        .with(service("api", "10.96.0.1", &both))
        .with(split("s", "api", &[("v1", 1), ("v2", 1)]));
    let said = |cluster: &Cluster| {
        let (_, problems) = cluster.compile();
        let accepted = &report(&problems, "TrafficSplit s").accepted;
        let named = problems.list.iter();
        let named = named.filter(|one| one.reason == Reason::Overridden);
        let named: Vec<String> = named.map(|one| one.message.clone()).collect();
        (accepted.status, accepted.reason, named)
    };
    let (status, _, named) = said(&before);
    assert!(status && named.is_empty());

    let mut of_one = http();
    of_one["spec"]["parentRefs"][0]["port"] = json!(80);
    let (status, reason, named) = said(&before.clone().with(of_one));
    assert_eq!((status, reason, named.len()), (true, "Overridden", 1));
    let words = "HTTPRoute shop/h decides for callers at port 80";
    assert!(named[0].starts_with(words), "{named:?}");

    let all = before.clone().with(http());
    let (status, reason, named) = said(&all);
    assert_eq!((status, reason, named.len()), (false, "Overridden", 2));
    let (model, _) = all.compile();
    resolved(&model, ("shop", "client")).routed_service(ROUTED);
    let (model, _) = before.compile();
    let again = resolved(&model, ("shop", "client")).service(ROUTED);
    assert_eq!(again.splits.len(), 1);
}

#[test]
fn older_proxy_keeps_the_split_and_lacks_the_route() {
    let cluster = cluster()
        .with(split("s", "api", &[("v1", 1), ("v2", 1)]))
        .with(http());
    let (model, _) = cluster.compile();
    let names = BTreeSet::from([format!("destination/{API}")]);
    let older = Capabilities::named(&["extended-rule".to_owned()]);
    let set = model
        .resolve(&PodId::new("shop", "client"), &names, &older)
        .unwrap();
    let lacks = set.left_out.iter().map(|one| one.object.to_string());
    assert_eq!(lacks.collect::<Vec<_>>(), ["HTTPRoute shop/h"]);
    let sent = Resolved(set.resources);
    assert_eq!(sent.service(ROUTED).splits.len(), 1);
    for backend in ["api", "v1", "v2"] {
        sent.endpoints(&format!("endpoints/shop/{backend}:80"));
    }
    // The split is none of those that a newer proxy gets.
    let object = |kind, name: &str| crate::world::object(kind, &ObjectKey::new("shop", name));
    let through = format!("destination/{API}");
    let split = object(Kind::TrafficSplit, "s");
    assert!(!model.reaches(&split, "shop", &through));
    assert!(model.reaches(&object(Kind::HttpRoute, "h"), "shop", &through));
}
