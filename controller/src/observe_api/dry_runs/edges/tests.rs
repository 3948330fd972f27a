//! Which remembered calls a dry run lists, counts or hides.
//!
//! Claims: observe-109

use std::time::Duration;

use model::world::ObjectKey;
use serde_json::json;

use super::*;
use crate::testing::cluster::{group, shop, target};

/// What a Job that ran at night called.
fn edge(to: &str, service: Option<ObjectKey>) -> (EdgeKey, u64) {
    let node = |id: &str| NodeKey::parse(id).unwrap();
    let key = EdgeKey {
        from: node("shop/Job/nightly"),
        to: node(to),
        service,
        port: 80,
        backend: None,
        split: None,
        rule: None,
        protocol: Protocol::Http1,
        account: None,
    };
    (key, 1)
}

#[test]
fn absent_caller_is_listed_and_unevaluated_edges_are_counted() {
    let (model, _) = shop().compile();
    let outside = format!("{}/example.com", NodeKind::External.as_str());
    let edges = Edges {
        edges: vec![
            edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api"))),
            edge(&outside, None),
        ],
        pods: BTreeMap::new(),
    };
    let all = Scope {
        cluster: true,
        ..Scope::default()
    };
    let compared = |scope: &Scope, within: u64| {
        let until = Instant::now() + Duration::from_secs(within);
        edges.compared((&model, &model), scope, until)
    };
    let outcome = compared(&all, 60);
    assert_eq!((outcome.unknown, outcome.uncompared), (2, 0));
    let [listed] = &*outcome.changed else {
        panic!("{:?}", outcome.changed)
    };
    assert_eq!(listed.change, Change::Unknown);
    assert_eq!(listed.from, "shop/Job/nightly");
    let outcome = compared(&Scope::default(), 60);
    assert_eq!((outcome.unknown, outcome.changed), (0, Vec::new()));
    let outcome = compared(&all, 0);
    assert_eq!((outcome.unknown, outcome.uncompared), (0, 2));
}

/// The shop, and the same where accounts of `web` may read items.
fn opened_for_reads() -> (Model, Model) {
    let reads = json!([{"name": "read", "pathRegex": "/items", "methods": ["GET"]}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    let after = shop()
        .with(group("routes", reads))
        .with(target("read", "api", &["web"], rules));
    (shop().compile().0, after.compile().0)
}

fn pods(names: &[&str]) -> Vec<PodId> {
    let names = names.iter();
    names.map(|name| PodId::new("shop", name)).collect()
}

// Claims: observe-110
#[test]
fn workload_opened_by_deletion_is_listed_without_calls() {
    let (closed, _) = {
        let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
        let read = target("read", "api", &["web"], rules);
        shop().with(read).compile()
    };
    let (open, _) = shop().compile();
    let node = |id: &str| NodeKey::parse(id).unwrap();
    let edges = Edges {
        edges: Vec::new(),
        pods: BTreeMap::from([
            (node("shop/Pod/client"), pods(&["client"])),
            (node("shop/Deployment/api"), pods(&["api-1", "api-2"])),
        ]),
    };
    let opened = |models: (&Model, &Model), namespaces: &[&str]| {
        let scope = Scope {
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
            ..Scope::default()
        };
        let until = Instant::now() + Duration::from_secs(60);
        let outcome = edges.compared(models, &scope, until);
        (outcome.opened, outcome.hidden_opened)
    };
    let api = vec!["shop/Deployment/api".to_owned()];
    assert_eq!(opened((&closed, &open), &["shop"]), (api, 0));
    assert_eq!(opened((&closed, &open), &["bank"]), (Vec::new(), 1));
    // Control: what is open stays open, and what is closed stays closed.
    for same in [&closed, &open] {
        assert_eq!(opened((same, same), &["shop"]), (Vec::new(), 0));
    }
    assert_eq!(opened((&open, &closed), &["shop"]), (Vec::new(), 0));
}

#[test]
fn mixed_edge_shows_pod_ports_and_counts_where_hidden() {
    let (before, after) = opened_for_reads();
    let node = |id: &str| NodeKey::parse(id).unwrap();
    let (mut called, last) = edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api")));
    called.from = node("shop/Pod/client");
    let own = EdgeKey {
        service: None,
        port: 8080,
        ..called.clone()
    };
    let edges = Edges {
        edges: vec![(called, last), (own, last)],
        pods: BTreeMap::from([
            (node("shop/Pod/client"), pods(&["client"])),
            (node("shop/Deployment/api"), pods(&["api-1", "api-2"])),
        ]),
    };
    let compared = |scope: &Scope| {
        let until = Instant::now() + Duration::from_secs(60);
        edges.compared((&before, &after), scope, until)
    };
    let outcome = compared(&Scope {
        cluster: true,
        ..Scope::default()
    });
    assert_eq!(
        (outcome.changed.len(), outcome.hidden_depends),
        (2, Some(0))
    );
    for edge in &outcome.changed {
        assert_eq!(edge.change, Change::Depends, "{edge:?}");
        assert_eq!(edge.pod_ports, [8080], "{edge:?}");
    }
    let outcome = compared(&Scope::default());
    let counts = (
        outcome.hidden,
        outcome.hidden_refused,
        outcome.hidden_depends,
    );
    assert_eq!(counts, (2, 0, Some(2)));
    assert!(outcome.changed.is_empty(), "{:?}", outcome.changed);
}

#[test]
fn ports_behind_service_need_permission_on_called_namespace() {
    let (before, after) = opened_for_reads();
    let node = |id: &str| NodeKey::parse(id).unwrap();
    let (mut called, last) = edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api")));
    called.from = node("bank/Pod/client");
    let own = EdgeKey {
        service: None,
        port: 8080,
        ..called.clone()
    };
    let edges = Edges {
        edges: vec![(called, last), (own, last)],
        pods: BTreeMap::from([
            (node("bank/Pod/client"), pods(&["client"])),
            (node("shop/Deployment/api"), pods(&["api-1", "api-2"])),
        ]),
    };
    let results = |namespaces: &[&str]| {
        let scope = Scope {
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
            ..Scope::default()
        };
        let until = Instant::now() + Duration::from_secs(60);
        let outcome = edges.compared((&before, &after), &scope, until);
        let changed = outcome.changed.into_iter();
        let ports: Vec<(u16, Vec<u16>)> = changed.map(|edge| (edge.port, edge.pod_ports)).collect();
        ports
    };
    // What was called by address is in `port` anyway.
    let bare: [(u16, Vec<u16>); 2] = [(80, Vec::new()), (8080, vec![8080])];
    assert_eq!(results(&["bank"]), bare);
    // Control: a user with the right to read both, or the called one alone.
    for namespaces in [&["bank", "shop"][..], &["shop"][..]] {
        let all: [(u16, Vec<u16>); 2] = [(80, vec![8080]), (8080, vec![8080])];
        assert_eq!(results(namespaces), all, "{namespaces:?}");
    }
}

#[test]
fn calls_are_evaluated_by_calling_account_despite_current_pods() {
    let (before, after) = opened_for_reads();
    let called = |from: &str, account: &str| {
        let (mut called, last) = edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api")));
        called.from = NodeKey::parse(from).unwrap();
        called.account = Some(ObjectKey::new("shop", account));
        (called, last)
    };
    let client = "shop/Pod/client";
    let pods = BTreeMap::from([
        (NodeKey::parse(client).unwrap(), pods(&["client"])),
        (
            NodeKey::parse("shop/Deployment/api").unwrap(),
            pods(&["api-1", "api-2"]),
        ),
    ]);
    for (from, account, expected) in [
        // As its pod still does.
        (client, "web", Change::Depends),
        // No pod calls by that any more.
        (client, "before", Change::Unknown),
        // No pod of it runs now, and its account is known all the same.
        ("shop/Job/nightly", "web", Change::Depends),
    ] {
        let edges = Edges {
            edges: vec![called(from, account)],
            pods: pods.clone(),
        };
        let all = Scope {
            cluster: true,
            ..Scope::default()
        };
        let until = Instant::now() + Duration::from_secs(60);
        let outcome = edges.compared((&before, &after), &all, until);
        let changes: Vec<Change> = outcome.changed.iter().map(|edge| edge.change).collect();
        assert_eq!(changes, [expected], "{from} {account}");
    }
}

/// How many rows there are, and how many edges are kept or unknown, of calls of these.
fn counts_of(called: Vec<EdgeKey>) -> (usize, u64, u64) {
    let (before, after) = opened_for_reads();
    let node = |id: &str| NodeKey::parse(id).unwrap();
    let edges = Edges {
        edges: called.into_iter().map(|key| (key, 1)).collect(),
        pods: BTreeMap::from([
            (node("shop/Pod/client"), pods(&["client"])),
            (node("shop/Deployment/api"), pods(&["api-1", "api-2"])),
        ]),
    };
    let all = Scope {
        cluster: true,
        ..Scope::default()
    };
    let until = Instant::now() + Duration::from_secs(60);
    let outcome = edges.compared((&before, &after), &all, until);
    (outcome.changed.len(), outcome.kept, outcome.unknown)
}

#[test]
fn proxy_ports_and_unknown_ports_make_no_row() {
    let by_address = |port: u16| {
        let (mut key, _) = edge("shop/Deployment/api", None);
        key.from = NodeKey::parse("shop/Pod/client").unwrap();
        key.port = port;
        key
    };
    assert_eq!(
        counts_of(vec![by_address(15190), by_address(15108)]),
        (0, 2, 0)
    );
    assert_eq!(counts_of(vec![by_address(0)]), (0, 0, 1));
    assert_eq!(counts_of(vec![by_address(8080)]), (1, 0, 0), "control");
    // Nor where nothing runs there now: then rows say that.
    let mut gone = by_address(15190);
    gone.from = NodeKey::parse("shop/Job/nightly").unwrap();
    assert_eq!(counts_of(vec![gone.clone()]), (0, 1, 0));
    gone.port = 8080;
    assert_eq!(counts_of(vec![gone]), (1, 0, 1), "control");
}

#[test]
fn edges_of_deleted_namespaces_make_no_row() {
    let called = |from: &str, to: &str| {
        let (mut key, _) = edge(to, None);
        key.from = NodeKey::parse(from).unwrap();
        key.port = 8080;
        // Its calls would be judged by the account, without a pod.
        key.account = Some(ObjectKey::new(key.from.namespace(), "web"));
        key
    };
    let from_there = called("before/Deployment/web", "shop/Deployment/api");
    let to_there = called("shop/Pod/client", "before/Deployment/api");
    assert_eq!(counts_of(vec![from_there, to_there]), (0, 0, 2));
    let inside = called("shop/Job/nightly", "shop/Deployment/api");
    assert_eq!(counts_of(vec![inside]), (1, 0, 0), "control");
}
