//! Which listener a request belongs to, by its host and by the server name of its connection, and
//! that routes of no other listener are for it.
//!
//! Claims: gateways-3

use policy::route::{Forward, Rule};

use super::harness::{Certificate, Edge, all, answer, below, http, https, routes, to};

fn only(path: &str) -> Vec<Rule<Forward>> {
    vec![below(path, to("api"))]
}

#[tokio::test]
async fn request_reaches_routes_of_its_own_listener_alone() {
    let edge = Edge::with(vec![
        http("every", None, vec![routes(None, only("/every"))]),
        http(
            "wild",
            Some("*.example.com"),
            vec![routes(None, only("/wild"))],
        ),
        http(
            "one",
            Some("abc.example.com"),
            vec![routes(None, only("/one"))],
        ),
    ])
    .await;
    for (host, served) in [
        ("other.example", "/every"),
        ("example.com", "/every"),
        ("10.1.2.3", "/every"),
        ("x.example.com", "/wild"),
        ("x.y.example.com:8080", "/wild"),
        ("abc.example.com", "/one"),
        ("ABC.example.com:80", "/one"),
    ] {
        for path in ["/every", "/wild", "/one"] {
            let (status, text) = edge.get(host, path).await;
            let expected = if path == served { 200 } else { 404 };
            assert_eq!(status, expected, "{host} {path}: {text}");
            assert_eq!(
                text.contains("weft-reason: no-route"),
                status == 404,
                "{text}"
            );
        }
    }
    // What no listener reads as a name is not served as if there were none: applications may be
    // less strict.
    for host in [
        "abc.example.com:80x",
        "abc.example.com..",
        "abc..example.com",
    ] {
        let (status, text) = edge.get(host, "/every").await;
        assert_eq!(status, 400, "{host}: {text}");
    }
    // The application gets the host as it came.
    let (_, text) = edge.get("ABC.example.com:80", "/one").await;
    assert!(text.contains("host=ABC.example.com:80 "), "{text}");
}

#[tokio::test]
async fn hosts_of_routes_narrow_a_listener() {
    let of_hosts = vec![
        routes(Some("a.example.com"), only("/a")),
        routes(Some("*.example.com"), only("/wild")),
    ];
    let edge = Edge::with(vec![http("wild", Some("*.example.com"), of_hosts)]).await;
    for (host, path, status) in [
        ("a.example.com", "/a", 200),
        // A host without a rule that fits is looked for among less specific ones.
        ("a.example.com", "/wild", 200),
        ("b.example.com", "/wild", 200),
        ("b.example.com", "/a", 404),
        // No listener is for these.
        ("example.com", "/wild", 404),
        ("other.example", "/wild", 404),
        ("10.1.2.3", "/wild", 404),
    ] {
        let (found, text) = edge.get(host, path).await;
        assert_eq!(found, status, "{host} {path}: {text}");
    }
}

#[tokio::test]
async fn request_for_another_listener_than_its_connection_is_misdirected() {
    let certificate = Certificate::of(&["one.example", "two.example", "three.example"]);
    let edge = Edge::with(vec![
        https("one", Some("one.example"), "web", vec![routes(None, all())]),
        https("two", Some("two.example"), "web", vec![routes(None, all())]),
        https(
            "every",
            None,
            "web",
            vec![routes(Some("known.example"), all())],
        ),
    ])
    .await;
    edge.pod.set(vec![certificate.resource("web")]);
    for (server, host, status) in [
        ("one.example", "one.example", 200),
        ("one.example", "ONE.example:443", 200),
        ("one.example", "two.example", 421),
        ("two.example", "one.example", 421),
        ("one.example", "known.example", 421),
        ("one.example", "10.1.2.3", 421),
        // A server name without a listener of its own has the one for every host.
        ("three.example", "known.example", 200),
        ("three.example", "three.example", 404),
        ("three.example", "one.example", 421),
    ] {
        let tls = edge.tls(443, server, &certificate).await.unwrap();
        let (found, text) = answer(tls, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n")).await;
        assert_eq!(found, status, "{server} {host}: {text}");
        assert_eq!(
            text.contains("weft-reason: misdirected"),
            status == 421,
            "{text}"
        );
    }
}
