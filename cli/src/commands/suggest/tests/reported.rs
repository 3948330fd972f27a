//! Suggestions follow the called side's report: a caller can report calls that no pod served, and
//! conceal that some were refused.
//!
//! Claims: observe-14, observe-7, observe-8

use crds::observe::Graph;
use serde_json::{Value, json};

use super::{Calls, IndexedGraph, edge, judged, ports, route, suggested};

/// Both sides reported it: the caller five calls that went well, the called side this.
fn both(to: &str, port: u16, server: &Value) -> Value {
    edge(
        "web",
        to,
        port,
        json!({"callerSilent": false, "server": server}),
    )
}

/// Why the only edge was skipped.
fn left_out(edge: &Value) -> String {
    let (objects, calls) = suggested(std::slice::from_ref(edge), false);
    assert_eq!(objects, [] as [Value; 0], "{edge}");
    let [left] = &calls.left[..] else {
        panic!("{edge}: {:?}", calls.left)
    };
    left.clone()
}

// Claims: observability-15
#[test]
fn calls_reported_only_by_caller_are_not_suggested() {
    let served = json!({"requests": 5, "failure": 0, "mtls": 1.0});
    let (honest, calls) = suggested(&[both("cart", 80, &served)], false);
    judged(&honest);
    assert_eq!((honest.len(), calls.words().count()), (2, 0), "{calls:?}");
    // The same as what the called side alone reported.
    let (alone, _) = suggested(&[edge("web", "cart", 80, json!({}))], false);
    assert_eq!(honest, alone);
    let under_way = json!({"requests": 0, "failure": 0, "open": 1});
    let (objects, _) = suggested(&[both("cart", 80, &under_way)], false);
    assert_eq!(objects, honest, "what is open is served");

    for (server, why) in [
        (json!(null), "reported by its caller alone: no called pod's"),
        (json!({"requests": 5, "failure": 5}), "served none of them"),
        (
            json!({"requests": 5, "failure": 3, "cancelled": 2}),
            "served none of them",
        ),
        (
            json!({"requests": 5, "failure": 0, "mtls": 0.0}),
            "no mutual TLS",
        ),
        (
            json!({"requests": 5, "failure": 0, "portUnknown": true}),
            "no Service says",
        ),
    ] {
        let left = left_out(&both("cart", 80, &server));
        assert!(left.contains(why), "{server}: {left}");
        // Beside what was served nothing of it is suggested either.
        let edges = [both("db", 5432, &server), both("cart", 80, &served)];
        assert_eq!(suggested(&edges, false).0, honest, "{server}");
    }
}

#[test]
fn minutes_reported_by_callers_alone_prove_nothing() {
    let with = |proven: bool| {
        let minute = json!({"start": "2026-11-02T09:40:00Z", "requests": 3, "mtls": 1.0,
            "proven": proven});
        let quiet = json!({"requests": 0, "success": 0, "quiet": true, "mtls": null,
            "callerSilent": false, "history": [minute]});
        edge("web", "cart", 80, quiet)
    };
    let left = left_out(&with(false));
    assert!(left.contains("reported by its caller alone"), "{left}");
    let (objects, calls) = suggested(&[with(true)], false);
    assert_eq!((objects.len(), calls.words().count()), (2, 0), "{calls:?}");
}

/// Calls by two Services that lead to one port are reported once by the called side, under either
/// Service.
#[test]
fn calls_reported_under_other_service_are_still_suggested() {
    let by_the_pods = json!({"service": "", "backend": "", "callerSilent": false});
    let other = |port| edge("web", "cart", port, by_the_pods.clone());
    let served = both("cart", 80, &json!({"requests": 9, "failure": 0}));
    let (alone, _) = suggested(std::slice::from_ref(&served), false);
    let (objects, calls) = suggested(&[other(8080), served.clone()], false);
    assert_eq!(objects, alone);
    assert_eq!(calls.words().count(), 0, "{calls:?}");
    // Another port of theirs is another thing.
    let (objects, calls) = suggested(&[other(9090), served], false);
    assert_eq!(objects, alone);
    assert_eq!(calls.left.len(), 1, "{calls:?}");
}

#[test]
fn service_of_other_namespace_does_not_determine_port() {
    for backend in ["bank/cart", "shop/cart"] {
        let by_service = json!({"service": "bank/cart", "backend": backend});
        let (objects, calls) = suggested(&[edge("web", "cart", 80, by_service)], false);
        let own = backend == "shop/cart";
        assert_eq!(objects.is_empty(), !own, "{backend}");
        let reported = calls
            .left
            .iter()
            .any(|one| one.contains("of another namespace"));
        assert_eq!(reported, !own, "{backend}: {:?}", calls.left);
    }
}

// Claims: observability-15
#[test]
fn refused_calls_are_counted_from_either_side() {
    let server = json!({"requests": 8, "failure": 3,
        "refused": {"not-allowed": 2, "no-identity": 1, "connect-failed": 4}});
    let (objects, calls) = suggested(&[both("cart", 80, &server)], false);
    assert_eq!(
        calls.refused,
        [
            "deploy/web to deploy/cart port 80 of svc/cart: 3 of its calls in the last 300 s \
          (1 no-identity, 2 not-allowed)"
        ]
    );
    // The caller kept it to itself, and a rule for the port would let them pass.
    assert_eq!(objects, [] as [Value; 0]);
    assert!(calls.left[0].contains("3 of its calls were not allowed"));

    let nothing_else = json!({"success": 0, "failure": 5, "refused": {"not-allowed": 5}});
    let (_, calls) = suggested(&[edge("job", "cart", 80, nothing_else)], false);
    assert!(
        calls.refused[0]
            .starts_with("deploy/job to deploy/cart port 80 of svc/cart: 5 of its calls"),
        "{calls:?}"
    );

    let minute = json!({"start": "2026-11-02T09:40:00Z", "requests": 3, "mtls": 1.0,
        "proven": true, "refused": true});
    let earlier = json!({"history": [minute]});
    let (objects, calls) = suggested(&[edge("web", "cart", 80, earlier)], false);
    assert_eq!(objects, [] as [Value; 0]);
    assert!(
        calls.refused[0].ends_with("calls in 1 of the minutes before the last 300 s"),
        "{calls:?}"
    );
    let failed = json!({"success": 4, "failure": 1, "refused": {"connect-failed": 1}});
    let (objects, calls) = suggested(&[edge("web", "cart", 80, failed)], false);
    assert_eq!((objects.len(), calls.words().count()), (2, 0), "{calls:?}");
}

#[test]
fn truncated_history_skips_edge_but_empty_history_does_not() {
    let reported = |left_out: bool| {
        let more = json!({"history": [], "historyLeftOut": left_out,
            "routes": [{"route": "cart/read", "requests": 5}]});
        edge("web", "cart", 80, more)
    };
    for by_route in [false, true] {
        let (objects, calls) = suggested(&[reported(false)], by_route);
        judged(&objects);
        assert!(!objects.is_empty() && calls.left.is_empty(), "{calls:?}");
        let (objects, calls) = suggested(&[reported(true)], by_route);
        assert_eq!(objects, [] as [Value; 0]);
        let [left] = &calls.left[..] else {
            panic!("{:?}", calls.left)
        };
        for part in [
            "deploy/web to deploy/cart port 80",
            "no room",
            "--since 300s",
        ] {
            assert!(left.contains(part), "{left}");
        }
    }
}

/// Edges of `web` to `cart` that share what the called side counted.
fn sharing(edges: &[(&str, u16, Value)], sums: &Value) -> Vec<Value> {
    let edges = edges.iter().map(|(service, port, more)| {
        let shared = json!({"group": "cart", "edges": edges.len(), "sums": sums});
        let mut edge = edge("web", "cart", *port, more.clone());
        edge["id"] = json!(format!("{service}:{port}"));
        edge["service"] = json!(service);
        edge["backend"] = json!(service);
        edge["callerSilent"] = json!(false);
        edge["serverShared"] = shared;
        edge
    });
    edges.collect()
}

#[test]
fn edges_with_shared_server_report_are_suggested_together() {
    let (alone, _) = suggested(&[edge("web", "cart", 80, json!({}))], false);
    let by_two = [("shop/cart", 80, json!({})), ("", 8080, json!({}))];
    let served = json!({"requests": 10, "failure": 0, "mtls": 1.0});
    let (objects, calls) = suggested(&sharing(&by_two, &served), false);
    judged(&objects);
    assert_eq!(objects, alone);
    assert_eq!(calls.words().count(), 0, "{calls:?}");

    for (sums, why) in [
        (
            json!({"requests": 10, "failure": 10}),
            "served none of them",
        ),
        (
            json!({"requests": 10, "failure": 0, "portUnknown": true}),
            "no Service says",
        ),
    ] {
        let (objects, calls) = suggested(&sharing(&by_two, &sums), false);
        assert_eq!(objects, [] as [Value; 0], "{sums}");
        assert_eq!(calls.left.len(), 2, "{calls:?}");
        assert!(
            calls.left.iter().all(|left| left.contains(why)),
            "{calls:?}"
        );
    }
}

/// By one Service all went well, by another one all was refused: a rule for the port of the pods
/// that both lead to would let that pass.
#[test]
fn refusal_on_one_edge_blocks_all_edges_to_port() {
    let went_well = ("shop/cart", 80, json!({}));
    let refused = json!({"requests": 4, "success": 0, "failure": 4,
        "refused": {"not-allowed": 4}});
    let refused = ("", 8080, refused);
    let sums = json!({"requests": 9, "failure": 4, "mtls": 1.0, "refused": {"not-allowed": 4}});
    let (objects, calls) = suggested(&sharing(&[went_well.clone(), refused], &sums), false);
    assert_eq!(objects, [] as [Value; 0]);
    let words =
        "deploy/web to deploy/cart port 8080: 4 of its calls in the last 300 s (4 not-allowed)";
    assert_eq!(calls.refused, [words]);
    let of_all = "deploy/web to deploy/cart port 80 of svc/cart: 4 of the calls of the 2 edges that \
                  lead there were not allowed";
    let is_reported = calls.left.iter().any(|left| left.starts_with(of_all));
    assert!(is_reported, "{calls:?}");

    // The callers did not report them: their edge is not known.
    let quiet = [went_well.clone(), ("", 8080, json!({}))];
    let (objects, calls) = suggested(&sharing(&quiet, &sums), false);
    assert_eq!(objects, [] as [Value; 0]);
    assert_eq!((calls.refused.len(), calls.left.len()), (2, 2), "{calls:?}");
    let unattributed = "4 calls of the 2 edges that lead to the same port";
    assert!(
        calls.refused.iter().all(|one| one.contains(unattributed)),
        "{calls:?}"
    );

    // Control: what failed otherwise keeps none out.
    let failed = json!({"requests": 9, "failure": 4, "mtls": 1.0,
        "refused": {"connect-failed": 4}});
    let (objects, calls) = suggested(&sharing(&quiet, &failed), false);
    assert_eq!((objects.len(), calls.words().count()), (2, 0), "{calls:?}");
}

/// Other workloads that call by that account reach the same port.
#[test]
fn shared_refusals_block_rules_of_same_account() {
    let account = json!(["spiffe://cluster.local/ns/shop/sa/shared"]);
    let by_account = json!({"identities": account});
    let quiet = [
        ("shop/cart", 80, by_account.clone()),
        ("", 8080, by_account),
    ];
    let reads = json!({"identities": account, "routes": [route("cart/read", 5, 0)]});
    for (reason, stands) in [("not-allowed", true), ("connect-failed", false)] {
        let sums = json!({"requests": 9, "failure": 4, "mtls": 1.0, "refused": {reason: 4}});
        let mut edges = sharing(&quiet, &sums);
        edges.push(edge("job", "cart", 80, reads.clone()));
        for by_route in [false, true] {
            let (objects, calls) = suggested(&edges, by_route);
            assert_eq!(objects.is_empty(), stands, "{reason}: {calls:?}");
            let job = calls.left.iter().find(|one| one.starts_with("deploy/job"));
            let why = "4 of the calls of the 2 edges";
            let is_reported = job.is_some_and(|job| job.contains(why));
            assert_eq!((is_reported, job.is_some()), (stands, stands), "{calls:?}");
        }
    }
}

#[test]
fn edges_with_shared_server_report_share_its_routes() {
    let by_route = |requests: u64| {
        let routes = json!({"routes": [{"route": "cart/read", "requests": requests}]});
        let edges = [("shop/cart", 80, routes.clone()), ("", 8080, routes)];
        sharing(
            &edges,
            &json!({"requests": requests, "failure": 0, "mtls": 1.0}),
        )
    };
    let (objects, calls) = suggested(&by_route(10), true);
    judged(&objects);
    assert_eq!(calls.words().count(), 0, "{calls:?}");
    // Half of what the callers report was served.
    let (objects, calls) = suggested(&by_route(5), true);
    assert!(!objects.is_empty());
    assert_eq!(calls.by_port.len(), 2, "{calls:?}");
    let why = "some called pods report no routes";
    assert!(
        calls.by_port.iter().all(|one| one.contains(why)),
        "{calls:?}"
    );
}

/// The graph of a namespace has no word of pods that are called elsewhere.
#[test]
fn edge_to_other_namespace_is_skipped_silently() {
    let node = |namespace: &str, name: &str| {
        json!({"id": format!("{namespace}/Deployment/{name}"), "kind": "Deployment",
            "namespace": namespace, "name": name,
            "accounts": [format!("spiffe://cluster.local/ns/{namespace}/sa/{name}")]})
    };
    for (to, left) in [("bank", 0), ("shop", 1)] {
        let to = format!("{to}/Deployment/cart");
        let unreported = json!({"to": to, "callerSilent": false});
        let graph = json!({
            "metadata": {"end": "2026-11-02T10:00:00Z", "windowSeconds": 300, "sides": true},
            "nodes": [node("shop", "web"), node("shop", "cart"), node("bank", "cart")],
            "edges": [edge("web", "cart", 80, unreported)],
        });
        let graph: Graph = serde_json::from_value(graph).unwrap();
        let traffic = IndexedGraph::of(graph);
        let edges = traffic.edges().iter();
        let calls = Calls::of(&traffic, edges, &ports(), Some("shop"), false);
        assert!(calls.facts.is_empty(), "{calls:?}");
        assert_eq!(calls.left.len(), left, "{calls:?}");
    }
}
