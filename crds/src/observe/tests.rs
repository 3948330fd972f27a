//! What clients rely on: paths, verbs, and how leniently which side reads.

use serde_json::json;

use super::{Explanation, ExplanationVerdict, Graph, NodeKind, Protocol, Resource};

#[test]
fn nothing_is_offered_that_mirrors_watch_or_namespaces_delete() {
    for resource in Resource::ALL {
        let verbs = resource.verbs();
        assert!(!verbs.contains(&"watch"), "{resource:?}");
        assert!(
            !verbs.iter().any(|verb| verb.starts_with("delete")),
            "{resource:?}"
        );
        assert!(!verbs.is_empty());
    }
}

#[test]
fn paths_are_what_the_api_server_passes_on() {
    assert_eq!(
        Resource::Graphs.path(Some("shop"), Some(super::LIVE)),
        "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live"
    );
    assert_eq!(
        Resource::Proxies.path(None, None),
        "/apis/observe.weft.dev/v1alpha1/proxies"
    );
}

#[test]
fn client_reads_the_graph_of_a_newer_controller() {
    let newer = json!({
        "metadata": {"end": "2026-11-02T09:00:00Z", "complete": true, "colour": "blue"},
        "nodes": [{"id": "shop/Widget/web", "kind": "Widget", "name": "web", "new": 1}],
        "edges": [{"id": "a", "protocol": "http3", "requests": 4}],
    });
    let graph: Graph = serde_json::from_value(newer).unwrap();
    assert!(graph.metadata.complete);
    assert_eq!(graph.nodes[0].kind, NodeKind::Unknown);
    assert_eq!(graph.edges[0].protocol, Protocol::Unknown);
    assert_eq!(graph.edges[0].requests, 4);
    let verdict: ExplanationVerdict = serde_json::from_value(json!("Perhaps")).unwrap();
    assert_eq!(verdict, ExplanationVerdict::Unknown);
}

#[test]
fn misspelt_question_is_refused_and_names_the_field() {
    let query = json!({"spec": {"from": {"outside": true}, "to": {"kind": "Service", "name": "cart"}, "methd": "PUT"}});
    let error = serde_json::from_value::<Explanation>(query).unwrap_err();
    assert!(error.to_string().contains("methd"), "{error}");
}

#[test]
fn edge_numbers_are_serialized_even_when_zero() {
    let graph = Graph {
        edges: vec![super::Edge::default()],
        ..Graph::default()
    };
    let edge = &serde_json::to_value(&graph).unwrap()["edges"][0];
    for name in [
        "requests",
        "success",
        "failure",
        "cancelled",
        "attempts",
        "open",
        "sent",
    ] {
        assert_eq!(edge[name], json!(0), "{name}");
    }
    assert!(edge.get("ms").is_none() && edge.get("quiet").is_none());
}
