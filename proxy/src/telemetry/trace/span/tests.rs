//! Names and values of spans.
//!
//! Claims: observe-101, observe-102

use http::Request;

use super::*;
use crate::telemetry::labels::Security;
use crate::telemetry::trace::otlp::Value;

fn call_ends(client: bool) -> CallEnds {
    if client {
        CallEnds::Outbound {
            service: "shop/cart".into(),
            port: 80,
            backend: "shop/cart-v2".into(),
            rule: Some(Origin::new("TrafficSplit", "shop", "cart")),
            pod: "shop/cart-v2-0".into(),
            security: Security::mtls,
        }
    } else {
        CallEnds::Inbound {
            port: 8080,
            caller: "shop/web".into(),
            at: None,
            security: Security::mtls,
        }
    }
}

fn ended(call_ends: &CallEnds) -> Ended<'_> {
    Ended {
        call_ends,
        status: 200,
        grpc: None,
        reason: None,
        cancelled: false,
        after: Duration::from_millis(250),
    }
}

const ONWARD: Onward = Onward {
    trace: 0x0102,
    span: 0x03,
    sampled: true,
};

fn started(request: http::request::Builder, paths: bool) -> Span {
    let parts = request.body(()).unwrap().into_parts().0;
    Span::of(&parts, Duration::from_secs(1), paths)
}

fn encoded(span: Span, ended: &Ended<'_>) -> otlp::Span {
    otlp::Span::decode(span.encode(ONWARD, ended).as_slice()).unwrap()
}

fn attributes(span: &otlp::Span) -> Vec<(String, String)> {
    let each = span.attributes.iter().map(|one| {
        let value = match one.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
        };
        (one.key.clone(), value)
    });
    each.collect()
}

fn value(span: &otlp::Span, key: &str) -> Option<String> {
    let found = attributes(span).into_iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value)
}

#[test]
fn span_describes_request_response_and_mesh_handling() {
    let request = || Request::get("/items/7?token=secret").header("host", "cart.shop:8080");
    let to_cart = call_ends(true);
    let mut span = started(request(), true).child_of(Some(0x99));
    span.attempt();
    span.attempt();
    let client = encoded(span, &ended(&to_cart));
    assert_eq!((client.name.as_str(), client.kind), ("GET", 3));
    assert_eq!(client.trace_id, [[0; 14].as_slice(), &[1, 2]].concat());
    assert_eq!(client.span_id, [0, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(client.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 0x99]);
    assert_eq!(client.end - client.start, 250_000_000);
    assert_eq!(client.status, None);
    let expected = [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/items/7"),
        ("server.address", "cart.shop"),
        ("server.port", "8080"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
        ("weft.service", "shop/cart"),
        ("weft.backend", "shop/cart-v2"),
        ("weft.peer", "shop/cart-v2-0"),
        ("weft.split", "TrafficSplit shop/cart"),
        ("weft.attempts", "2"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(attributes(&client), expected);

    let from_web = call_ends(false);
    let mut span = started(request(), false);
    span.decided_by(Some(&Origin::new("TrafficTarget", "shop", "cart-read")));
    let server = encoded(span, &ended(&from_web));
    assert_eq!((server.kind, server.parent_span_id.len()), (2, 0));
    assert_eq!(value(&server, "url.path"), None, "paths are off");
    let target = value(&server, "weft.target").unwrap();
    assert_eq!(target, "TrafficTarget shop/cart-read");
    assert_eq!(value(&server, "weft.attempts"), None);
}

#[test]
fn span_is_named_by_route_never_by_path() {
    let from_web = call_ends(false);
    let served = |request: http::request::Builder, route: &str| {
        let mut span = started(request, true);
        span.takes_route(&route.into());
        let span = encoded(span, &ended(&from_web));
        let route = value(&span, "http.route");
        (span.name, route)
    };
    let item = || Request::delete("/items/7");
    let route = Some("cart/item".to_owned());
    let named = ("DELETE cart/item".to_owned(), route.clone());
    assert_eq!(served(item(), "cart/item"), named);
    // None describes it.
    assert_eq!(served(item(), ""), ("DELETE".to_owned(), None));
    let own = Request::builder().method("BREW").uri("/items/7");
    let named = ("HTTP cart/item".to_owned(), route.clone());
    assert_eq!(served(own, "cart/item"), named);
    let grpc = Request::post("/shop.Cart/Add").header("content-type", "application/grpc");
    assert_eq!(
        served(grpc, "cart/item"),
        ("shop.Cart/Add".to_owned(), route)
    );
}

#[test]
fn who_is_to_blame_depends_on_the_side() {
    for (client, status, grpc, reason, expected) in [
        (true, 200, None, None, None),
        (true, 404, None, None, Some("404")),
        (false, 404, None, None, None),
        (false, 503, None, None, Some("503")),
        (true, 200, Some(5), None, Some("NOT_FOUND")),
        (false, 200, Some(5), None, None),
        (false, 200, Some(14), None, Some("UNAVAILABLE")),
        (true, 200, Some(0), None, None),
        (true, 200, Some(99), None, Some("99")),
        (
            true,
            503,
            None,
            Some(Reason::NoEndpoint),
            Some("no-endpoint"),
        ),
        (
            false,
            403,
            None,
            Some(Reason::NotAllowed),
            Some("not-allowed"),
        ),
    ] {
        let call_ends = call_ends(client);
        let ended = Ended {
            status,
            grpc,
            reason,
            ..ended(&call_ends)
        };
        let span = encoded(started(Request::get("/"), true), &ended);
        let case = format!("{client} {status} {grpc:?} {reason:?}");
        assert_eq!(value(&span, "error.type").as_deref(), expected, "{case}");
        assert_eq!(
            span.status.map(|span_status| span_status.code),
            expected.map(|_| 2),
            "{case}"
        );
    }
}

#[test]
fn span_of_departed_caller_is_cancelled_not_error() {
    let call_ends = call_ends(true);
    let left = Ended {
        status: 0,
        cancelled: true,
        ..ended(&call_ends)
    };
    let span = encoded(started(Request::get("/"), true), &left);
    assert_eq!(value(&span, "weft.reason").as_deref(), Some("cancelled"));
    assert_eq!(value(&span, "error.type"), None);
    assert_eq!(value(&span, "http.response.status_code"), None);
}

#[test]
fn grpc_span_is_named_by_method_without_path() {
    let call_ends = call_ends(true);
    let request = Request::post("http://cart:50051/shop.Cart/Add")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc+proto");
    let ended = Ended {
        grpc: Some(7),
        ..ended(&call_ends)
    };
    let span = encoded(started(request, false), &ended);
    assert_eq!(span.name, "shop.Cart/Add");
    for (key, expected) in [
        ("rpc.system.name", Some("grpc")),
        ("rpc.method", Some("shop.Cart/Add")),
        ("rpc.response.status_code", Some("PERMISSION_DENIED")),
        ("server.port", Some("50051")),
        ("url.path", None),
    ] {
        assert_eq!(value(&span, key).as_deref(), expected, "{key}");
    }
}

/// What a caller chooses: it takes bounded room, and no name of a span.
#[test]
fn a_span_is_small_whatever_was_asked() {
    let call_ends = call_ends(false);
    let long = "x".repeat(60_000);
    let request = Request::builder()
        .method(format!("M{long}").as_str())
        .uri(format!("/{long}"))
        .header("host", &long)
        .header("content-type", "application/grpc");
    let span = started(request, true).encode(ONWARD, &ended(&call_ends));
    assert!(span.len() < 2048, "{}", span.len());
    let span = encoded(
        started(Request::builder().method("BREW").uri("/"), true),
        &ended(&call_ends),
    );
    assert_eq!(span.name, "HTTP");
    assert_eq!(value(&span, "http.request.method").unwrap(), "_OTHER");
    assert_eq!(
        value(&span, "http.request.method_original").unwrap(),
        "BREW"
    );
    for (host, address, port) in [
        ("[fd00::1]:80", Some("fd00::1"), Some("80")),
        ("[fd00::1]", Some("fd00::1"), None),
        ("a:b", Some("a"), None),
        ("", None, None),
    ] {
        let request = Request::get("/").header("host", host);
        let span = encoded(started(request, true), &ended(&call_ends));
        assert_eq!(value(&span, "server.address").as_deref(), address, "{host}");
        assert_eq!(value(&span, "server.port").as_deref(), port, "{host}");
    }
}
