//! What routes of a Gateway do: paths, redirects, CORS, mirrors and splits behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use policy::gateway::ListenerProtocol;
use policy::name::ServiceId;
use policy::route::Forward;
use policy::route::cors::{Allowed, Cors};
use policy::route::edits::{
    Actions, Edits, HeaderEdits, PathRewrite, Redirect, Rewrite, RuleMirror, Scheme,
};
use policy::share::Share;
use tokio::net::TcpListener;
use tokio::time::sleep;
use wire::v1::resource::Content;
use wire::v1::{self, Protocol};

use super::harness::{
    ACCOUNT, Certificate, Edge, SOON, all, answer, below, http, https, listener, routes, to,
    to_with,
};
use crate::answers::{App, OK};
use crate::support::{service, split, vip};

// Claims: gateways-3
#[tokio::test]
async fn path_is_matched_and_sent_on_in_one_reading() {
    let edge = Edge::ruled(vec![below("/public", to("api"))]).await;
    for (path, sent) in [
        ("/public/a", "/public/a"),
        ("/public/", "/public/"),
        ("/public/a?to=/../b%2F", "/public/a?to=/../b%2F"),
        ("//public///a", "/public/a"),
        ("/admin/../public/a", "/public/a"),
        ("/%70ublic/%2e/a", "/public/a"),
    ] {
        let (status, text) = edge.get("web.example", path).await;
        assert_eq!(status, 200, "{path}: {text}");
        let line = format!("api GET {sent} ");
        assert!(
            edge.last_seen().contains(&line),
            "{path}: {}",
            edge.last_seen()
        );
    }
    let served = edge.seen.lock().len();
    for (path, status) in [
        ("/public/../admin", 404),
        ("/public/%2e%2e/admin", 404),
        ("/public/%2E%2E%2Fadmin", 400),
        ("/public%2f..%2fadmin", 400),
        ("/public/..%5cadmin", 400),
        ("/public/%00", 400),
        ("/public/..;/admin", 400),
        ("/publicadmin", 404),
    ] {
        let (found, text) = edge.get("web.example", path).await;
        assert_eq!(found, status, "{path}: {text}");
    }
    assert_eq!(edge.seen.lock().len(), served, "none of these is sent on");
}

#[tokio::test]
async fn request_has_the_identity_of_the_gateway() {
    let edge = Edge::ruled(all()).await;
    assert_eq!(edge.get("web.example", "/").await.0, 200);
    let id = format!("id=spiffe://cluster.local/ns/shop/sa/{ACCOUNT} ");
    assert!(edge.last_seen().contains(&id), "{}", edge.last_seen());
    let metrics = edge.pod.metrics();
    let counted = |line: &str| line.starts_with("weft_requests_total") && line.contains("shop/api");
    assert!(metrics.lines().any(counted), "{metrics}");
}

#[tokio::test]
async fn refusal_names_nothing_of_the_mesh() {
    let edge = Edge::ruled(all()).await;
    let taken = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    edge.backend("api", Protocol::Http1, port);
    let (status, text) = edge.get("web.example", "/").await;
    assert_eq!(status, 503, "{text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("weft-reason: connect-failed"), "{text}");
    assert_eq!(body, "weft: connect-failed\n");
}

#[tokio::test]
async fn connect_is_refused_without_advice_about_services() {
    let edge = Edge::ruled(all()).await;
    let head = "CONNECT web.example:443 HTTP/1.1\r\nHost: web.example:443\r\n";
    let (status, text) = edge.ask(head).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("not served at a Gateway"), "{text}");
    assert!(!text.contains("tcp-"), "{text}");
}

#[tokio::test]
async fn redirect_names_the_port_of_the_listener() {
    let redirect = |scheme: Option<Scheme>, port: Option<u16>| {
        let redirect = Redirect {
            scheme,
            host: None,
            port,
            path: None,
            status: StatusCode::MOVED_PERMANENTLY,
            response: HeaderEdits::default(),
            cors: None,
        };
        Forward::Redirect(Arc::new(redirect))
    };
    let rules = || {
        let rules = vec![
            below("/same", redirect(None, None)),
            below("/https", redirect(Some(Scheme::Https), None)),
            below("/port", redirect(None, Some(8443))),
        ];
        vec![routes(None, rules)]
    };
    let certificate = Certificate::of(&["web.example"]);
    let edge = Edge::with(vec![
        http("http", None, rules()),
        listener("other", (8080, ListenerProtocol::Http), None, rules()),
        https("https", None, "web", rules()),
    ])
    .await;
    edge.pod.set(vec![certificate.resource("web")]);
    for (port, path, location) in [
        (80, "/same?a=b", "http://web.example/same?a=b"),
        (80, "/https", "https://web.example/https"),
        (80, "/port", "http://web.example:8443/port"),
        (8080, "/same", "http://web.example:8080/same"),
        (8080, "/https", "https://web.example/https"),
        (443, "/same", "https://web.example/same"),
        (443, "/port", "https://web.example:8443/port"),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: web.example\r\n");
        let (status, text) = if port == 443 {
            let tls = edge.tls(port, "web.example", &certificate).await.unwrap();
            answer(tls, &head).await
        } else {
            answer(edge.connect(port).await, &head).await
        };
        assert_eq!(status, 301, "{port} {path}: {text}");
        let line = format!("location: {location}\r\n");
        assert!(text.contains(&line), "{port} {path}: {text}");
    }
    // The only address that is known where a client names no host is that of the pod.
    let (status, text) = edge.ask("GET /same HTTP/1.0\r\n").await;
    assert_eq!(status, 400, "{text}");
    assert!(!text.contains(&edge.pod.ip.to_string()), "{text}");
}

#[tokio::test]
async fn preflight_is_answered_without_the_application() {
    let cors = Cors {
        origins: vec!["https://shop.example".parse().unwrap()],
        credentials: false,
        methods: Allowed::Only(vec![http::Method::PUT]),
        headers: Allowed::Any,
        expose: Allowed::Only(Vec::new()),
        max_age: 5,
    };
    let actions = Actions {
        cors: Some(cors),
        ..Actions::default()
    };
    let edge = Edge::ruled(vec![below("/", to_with("api", Some(actions)))]).await;
    let (status, text) = edge
        .ask(
            "OPTIONS / HTTP/1.1\r\nHost: web.example\r\nOrigin: https://shop.example\r\n\
             Access-Control-Request-Method: PUT\r\n",
        )
        .await;
    assert_eq!(status, 204, "{text}");
    assert!(text.contains("access-control-allow-methods: PUT"), "{text}");
    assert!(edge.seen.lock().is_empty());
    let (status, text) = edge
        .ask("GET / HTTP/1.1\r\nHost: web.example\r\nOrigin: https://shop.example\r\n")
        .await;
    assert_eq!(status, 200, "{text}");
    let allowed = "access-control-allow-origin: https://shop.example";
    assert!(text.contains(allowed), "{text}");
}

#[tokio::test]
async fn backend_split_holds_behind_gateway_and_copies_are_made() {
    let copies = RuleMirror {
        service: ServiceId::new("shop", "copy"),
        port: 80,
        endpoints: wire::names::endpoints("shop", "copy", 80).into(),
        share: Share::ALL,
    };
    let actions = Actions {
        mirrors: vec![copies],
        ..Actions::default()
    };
    let edge = Edge::ruled(vec![below("/", to_with("api", Some(actions)))]).await;
    let (v2, copy) = (
        App::new(edge.server.ip, OK).await,
        App::new(edge.server.ip, OK).await,
    );
    edge.backend("v2", Protocol::Http1, v2.port);
    edge.backend("copy", Protocol::Http1, copy.port);
    let splits = vec![split("canary", &[("v2", 1)])];
    let mut resources = service("api", vip().ip(), Protocol::Http1, splits);
    resources.retain(|one| matches!(one.content, Some(Content::Service(_))));
    edge.pod.set(resources);
    let (status, text) = edge.get("web.example", "/a/../b").await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(v2.request_count(), 1);
    assert!(edge.seen.lock().is_empty());
    let started = Instant::now();
    while copy.request_count() == 0 {
        assert!(started.elapsed() < SOON, "no copy");
        sleep(Duration::from_millis(5)).await;
    }
    for app in [&v2, &copy] {
        assert!(
            app.heads()[0].starts_with("get /b http/1.1"),
            "{:?}",
            app.heads()
        );
    }
}

#[tokio::test]
async fn backend_split_decides_about_the_request_that_is_sent() {
    let edits = Edits {
        request: HeaderEdits {
            set: vec![(
                HeaderName::from_static("x-tier"),
                HeaderValue::from_static("gold"),
            )],
            ..HeaderEdits::default()
        },
        rewrite: Some(Rewrite {
            host: None,
            path: Some(PathRewrite::Prefix {
                matched: "/shop".to_owned(),
                with: "/".to_owned(),
            }),
        }),
        ..Edits::default()
    };
    let actions = Actions {
        edits: vec![edits],
        ..Actions::default()
    };
    let edge = Edge::ruled(vec![below("/shop", to_with("api", Some(actions)))]).await;
    let v2 = App::new(edge.server.ip, OK).await;
    edge.backend("v2", Protocol::Http1, v2.port);
    let mut items = split("items", &[("v2", 1)]);
    items.matches = Some(v1::HttpMatches {
        matches: vec![v1::HttpMatch {
            name: "items".to_owned(),
            path_regex: Some("/items".to_owned()),
            headers: vec![v1::HeaderMatch {
                name: "x-tier".to_owned(),
                regex: "gold".to_owned(),
                ..v1::HeaderMatch::default()
            }],
            ..v1::HttpMatch::default()
        }],
    });
    let mut resources = service("api", vip().ip(), Protocol::Detect, vec![items]);
    resources.retain(|one| matches!(one.content, Some(Content::Service(_))));
    edge.pod.set(resources);
    for (path, to_split) in [("/shop/items/7?a=b", 1), ("/shop/shop/items", 1)] {
        let (status, text) = edge.get("web.example", path).await;
        assert_eq!(status, 200, "{path}: {text}");
        assert_eq!(v2.request_count(), to_split, "{path}");
    }
    let heads = v2.heads();
    assert!(
        heads[0].starts_with("get /items/7?a=b http/1.1"),
        "{heads:?}"
    );
}
