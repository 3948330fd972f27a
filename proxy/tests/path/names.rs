//! The name under which the serving pod counts a request.
//!
//! Claims: observe-137

use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use super::counts::{reports, sum};
use crate::support::{Pod, get, pair, resource, rule, vip};

const REQUESTS: &str = "weft_requests_total";
const LATENCIES: &str = "weft_request_duration_seconds_count";

/// Names requests after these, each a group, a match and its path.
pub(super) fn routes(of: &[(&str, &str, &str)]) -> v1::Resource {
    let routes = of.iter().map(|(group, name, path)| v1::Route {
        origin: Some(v1::ObjectRef {
            kind: "HTTPRouteGroup".into(),
            namespace: "shop".into(),
            name: (*group).into(),
        }),
        http: Some(v1::HttpMatch {
            name: (*name).into(),
            path_regex: Some((*path).into()),
            ..v1::HttpMatch::default()
        }),
    });
    let content = v1::resource::Content::Routes(v1::Routes {
        routes: routes.collect(),
    });
    resource(wire::names::ROUTES, content)
}

fn named(pod: &Pod, name: &str) -> f64 {
    sum(pod, REQUESTS, &[&format!("route=\"{name}\"")])
}

#[tokio::test]
async fn request_counts_under_first_matching_name_even_refused() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    server.set(vec![routes(&[
        ("cart", "item", "/items/[0-9]+$"),
        ("cart", "items", "/items"),
        ("web", "more", "/items/more"),
    ])]);
    for path in [
        "/items/7",
        "/x/../items/8",
        "/items",
        "/items/more",
        "/else",
    ] {
        assert_eq!(
            get(client.call(vip()).await, path, "").await.0,
            200,
            "{path}"
        );
    }
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/items"]))]);
    assert_eq!(get(client.call(vip()).await, "/items/9", "").await.0, 200);
    server.set(vec![rule("t", "web", None, Some(&["/nothing"]))]);
    assert_eq!(get(client.call(vip()).await, "/items/9", "").await.0, 403);
    let page = server.metrics();
    assert_eq!(named(&server, "cart/item"), 4.0, "{page}");
    assert_eq!(named(&server, "cart/items"), 2.0, "{page}");
    assert_eq!(named(&server, "web/more"), 0.0, "the first one that fits");
    assert_eq!(
        sum(&server, REQUESTS, &["direction=\"inbound\""]),
        7.0,
        "{page}"
    );
    let refused = ["route=\"cart/item\"", "reason=\"not-allowed\""];
    assert_eq!(sum(&server, REQUESTS, &refused), 1.0, "{page}");
    assert_eq!(
        sum(&server, LATENCIES, &["route=\"cart/item\""]),
        4.0,
        "{page}"
    );
    // The caller's proxy does not use route names, and receives none.
    assert!(!client.metrics().contains("route="), "{}", client.metrics());
    assert!(seen.lock().iter().all(|head| !head.contains("cart/item")));
}

#[tokio::test]
async fn report_lists_edges_once_with_requests_per_route() {
    let (client, server, port, _) = pair(Protocol::Http1).await;
    server.set(vec![routes(&[("cart", "item", "/items/[0-9]+$")])]);
    for path in ["/items/7", "/items/8", "/else"] {
        assert_eq!(get(client.call(vip()).await, path, "").await.0, 200);
    }
    let reported = reports(&server).await;
    let edges: Vec<&v1::Edge> = reported.iter().flat_map(|report| &report.edges).collect();
    let requests: u64 = edges.iter().map(|edge| edge.success).sum();
    assert_eq!(requests, 3, "{reported:?}");
    let of = |name: &str| -> u64 {
        let routes = edges.iter().flat_map(|edge| &edge.routes);
        let named = routes.filter(|route| route.route == name);
        named.map(|route| route.requests).sum()
    };
    assert_eq!((of("cart/item"), of("")), (2, 1), "{reported:?}");
    let rows = || reported.iter().flat_map(|report| &report.routes);
    let served = |name: &str| -> u64 {
        let named = rows().filter(|row| row.route == name);
        named.map(|row| row.success).sum()
    };
    assert_eq!((served("cart/item"), served("")), (2, 1), "{reported:?}");
    let timed: u32 = rows().flat_map(|row| &row.latency).sum();
    assert_eq!(timed, 3);
    assert!(
        rows().all(|row| row.port == u32::from(port)),
        "{reported:?}"
    );
    for report in &reported {
        let mut ends: Vec<_> = report
            .edges
            .iter()
            .map(|edge| (&edge.identity, edge.protocol))
            .collect();
        ends.sort();
        let all = ends.len();
        ends.dedup();
        assert_eq!(ends.len(), all, "one edge, however many routes: {report:?}");
    }
}

#[tokio::test]
async fn route_names_vanish_with_resource_but_survive_invalid_update() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    assert_eq!(get(client.call(vip()).await, "/items", "").await.0, 200);
    assert!(
        !server.metrics().contains("route="),
        "no names were requested"
    );
    server.set(vec![routes(&[("cart", "items", "/items")])]);
    let nacks = server.try_set(vec![routes(&[("cart", "items", "/(")])]);
    assert!(
        nacks[0].reason.starts_with("routes[0].http.pathRegex"),
        "{nacks:?}"
    );
    assert_eq!(get(client.call(vip()).await, "/items", "").await.0, 200);
    assert_eq!(named(&server, "cart/items"), 1.0, "the former ones stay");
    server.set(vec![routes(&[("cart", "all", "/")])]);
    assert_eq!(get(client.call(vip()).await, "/items", "").await.0, 200);
    assert_eq!(
        (named(&server, "cart/items"), named(&server, "cart/all")),
        (1.0, 1.0)
    );
    server.replace(wire::names::ROUTES, Vec::new());
    assert_eq!(get(client.call(vip()).await, "/items", "").await.0, 200);
    assert_eq!(
        (named(&server, "cart/items"), named(&server, "cart/all")),
        (1.0, 1.0)
    );
    assert_eq!(sum(&server, REQUESTS, &["direction=\"inbound\""]), 4.0);
}
