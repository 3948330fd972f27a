//! Routes: what a rule makes of requests and responses, and what it answers itself, as both
//! applications see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use policy::http_match::{Description, HttpMatch, PathMatch};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::route::cors::{Allowed, Cors};
use policy::route::edits::{Actions, Edits, HeaderEdits, PathRewrite, Redirect, Rewrite, Scheme};
use policy::route::{Backend, Forward, Match, Rule, Table};
use tokio::io::AsyncWriteExt;
use wire::v1::resource::Content;
use wire::v1::{self, Protocol};

use super::answers::{App, OK, SILENCE, ask, sum};
use super::shown::{call, grpc};
use super::switching::{WEBSOCKET, head};
use crate::support::{Pod, endpoint, get, http_app, pair, raw, resource, service, vip};

/// Of the Service `v2`.
pub(super) const PORT: u16 = 8080;

/// Calls to `api` go by these rules from now on, else to `api` itself.
pub(super) fn route(client: &Pod, protocol: Protocol, rules: Vec<Rule<Forward>>) {
    let table = Table {
        rules,
        otherwise: Forward::Root,
    };
    let mut resources = service("api", vip().ip(), protocol, Vec::new());
    for one in &mut resources {
        if let Some(Content::Service(called)) = one.content.clone() {
            let routed = wire::convert::routed_service_message(called, &table);
            one.content = Some(Content::RoutedService(routed));
        }
    }
    client.set(resources);
}

/// What serves this port of a Service from now on.
pub(super) fn serves(client: &Pod, server: &Pod, (name, port): (&str, u16), app: u16) {
    let endpoints = v1::Endpoints {
        endpoints: vec![endpoint(server.ip, app, Some("api"))],
        ..v1::Endpoints::default()
    };
    let name = wire::names::endpoints("shop", name, port);
    client.set(vec![resource(&name, Content::Endpoints(endpoints))]);
}

/// A rule for requests below this path.
pub(super) fn below(path: &str, then: Forward) -> Rule<Forward> {
    let described = Description {
        path: Some(PathMatch::Prefix(path.to_owned())),
        ..Description::default()
    };
    Rule {
        origin: Origin::new("HTTPRoute", "shop", "web").rule(path),
        when: Match::AnyOf(vec![HttpMatch::as_described("", described)]),
        then,
    }
}

/// To `v2` at its own port, with these actions.
pub(super) fn to_v2(actions: Actions) -> Forward {
    let endpoints = wire::names::endpoints("shop", "v2", PORT);
    let backend = Backend::new(ServiceId::new("shop", "v2"), PORT, 1, endpoints);
    Forward::split(vec![backend.with_actions(Some(Arc::new(actions)))])
}

/// The last rule of every table.
fn no_route() -> Rule<Forward> {
    Rule {
        origin: Origin::new("HTTPRoute", "shop", "web"),
        when: Match::every_request(),
        then: Forward::Refuse(Reason::NoRoute),
    }
}

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )
}

/// Edits of both directions, of the host and of the path below `/v1`.
fn edits() -> Actions {
    let of_rule = Edits {
        request: HeaderEdits {
            set: vec![header("x-set", "rule")],
            add: vec![header("x-added", "rule")],
            remove: vec![HeaderName::from_static("x-gone")],
        },
        response: HeaderEdits {
            set: vec![header("x-answer", "rule")],
            ..HeaderEdits::default()
        },
        rewrite: Some(Rewrite {
            host: Some("internal.example".into()),
            path: Some(PathRewrite::Prefix {
                matched: "/v1".to_owned(),
                with: "/".to_owned(),
            }),
        }),
    };
    let of_backend = Edits {
        request: HeaderEdits {
            set: vec![header("x-set", "backend")],
            ..HeaderEdits::default()
        },
        response: HeaderEdits {
            set: vec![header("x-answer", "backend")],
            add: vec![header("x-more", "backend")],
            ..HeaderEdits::default()
        },
        rewrite: None,
    };
    Actions {
        edits: vec![of_rule, of_backend],
        ..Actions::default()
    }
}

/// A client whose calls below `/v1` go to the application `v2`, which answers so.
async fn v2(answer: &'static str, actions: Actions) -> (Pod, Pod, App) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, answer).await;
    serves(&client, &server, ("v2", PORT), app.port);
    let rules = vec![below("/v1", to_v2(actions)), no_route()];
    route(&client, Protocol::Http1, rules);
    (client, server, app)
}

#[tokio::test]
async fn rule_edits_request_before_and_response_after_backend() {
    let (client, _server, app) = v2(OK, edits()).await;
    let sent = "x-gone: 1\r\nx-set: mine\r\nx-added: mine\r\n";
    let (status, answer) = get(client.call(vip()).await, "/v1/items?x=1", sent).await;
    assert_eq!(status, 200, "{answer}");
    let head = app.heads().remove(0);
    assert!(head.starts_with("get /items?x=1 http/1.1\r\n"), "{head}");
    for line in [
        "host: internal.example",
        "x-set: backend",
        "x-added: mine",
        "x-added: rule",
    ] {
        assert!(head.lines().any(|one| one == line), "{line}: {head}");
    }
    assert!(
        !head.contains("x-gone") && !head.contains("x-set: mine"),
        "{head}"
    );
    assert!(answer.contains("x-answer: rule\r\n"), "{answer}");
    assert!(answer.contains("x-more: backend\r\n"), "{answer}");
    assert!(!answer.contains("x-answer: backend"), "{answer}");
}

#[tokio::test]
async fn edits_leave_framing_and_mesh_headers_alone() {
    let forbidden = HeaderEdits {
        set: vec![
            header("content-length", "99"),
            header("transfer-encoding", "chunked"),
            header("connection", "x-kept"),
            header("weft-client-id", "spiffe://evil"),
            header("weft-reason", "limit"),
        ],
        add: vec![header("content-length", "7")],
        remove: vec![HeaderName::from_static("content-length")],
    };
    let actions = Actions {
        edits: vec![Edits {
            request: forbidden.clone(),
            response: forbidden,
            rewrite: None,
        }],
        ..Actions::default()
    };
    let (client, _server, app) = v2(OK, actions).await;
    let mut stream = client.call(vip()).await;
    let request = b"POST /v1 HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\nx-kept: 1\r\n\
                    Content-Length: 5\r\n\r\nhello";
    let answer = raw(&mut stream, request, Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-length: 2\r\n"), "{answer}");
    assert!(!answer.contains("weft-reason"), "{answer}");
    assert_eq!(app.bodies(), ["hello"]);
    let head = app.heads().remove(0);
    assert!(head.contains("content-length: 5"), "{head}");
    assert!(head.contains("x-kept: 1"), "{head}");
    assert!(!head.contains("evil"), "{head}");
}

#[tokio::test]
async fn http2_request_is_rewritten_with_its_authority() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let (port, seen) = http_app(&server, "v2").await;
    serves(&client, &server, ("v2", PORT), port);
    let rules = vec![below("/v1", to_v2(edits())), no_route()];
    route(&client, Protocol::Http2, rules);
    let mut sender = grpc(&client).await;
    let request = Request::get("http://web.shop/v1/items?x=1");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-answer"], "rule");
    let line = seen.lock()[0].clone();
    assert!(
        line.contains(" http://internal.example/items?x=1 "),
        "{line}"
    );
}

#[tokio::test]
async fn grpc_call_goes_by_method_or_gets_12() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let (port, seen) = http_app(&server, "v2").await;
    serves(&client, &server, ("v2", PORT), port);
    let rules = vec![below("/a.B/C", to_v2(Actions::default())), no_route()];
    route(&client, Protocol::Http2, rules);
    let mut sender = grpc(&client).await;
    let answer = sender.send_request(call()).await.unwrap();
    assert_eq!(answer.headers()["x-app"], "v2");
    assert_eq!(seen.lock().len(), 1);
    let rules = vec![below("/a.B/D", to_v2(Actions::default())), no_route()];
    route(&client, Protocol::Http2, rules);
    let answer = sender.send_request(call()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "12");
    assert_eq!(answer.headers()["weft-reason"], "no-route");
    assert!(answer.into_body().collect().await.is_ok());
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn websocket_goes_by_rule_with_its_edits() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = tokio::net::TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serves(&client, &server, ("v2", PORT), port);
    let mut actions = edits();
    actions.edits[0].rewrite = Some(Rewrite {
        host: None,
        path: Some(PathRewrite::Full("/socket".to_owned())),
    });
    route(
        &client,
        Protocol::Http1,
        vec![below("/ws", to_v2(actions)), no_route()],
    );
    let mut caller = client.call(vip()).await;
    caller.write_all(WEBSOCKET).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    let request = head(&mut application).await.to_lowercase();
    assert!(request.starts_with("get /socket http/1.1\r\n"), "{request}");
    assert!(request.contains("x-set: backend\r\n"), "{request}");
    let switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\n\r\n";
    application.write_all(switched).await.unwrap();
    let answer = head(&mut caller).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("x-answer: rule\r\n"), "{answer}");
    application.write_all(b"hello\r\n\r\n").await.unwrap();
    assert_eq!(head(&mut caller).await, "hello\r\n\r\n");
}

#[tokio::test]
async fn request_without_a_rule_never_reaches_the_service_itself() {
    let (client, _server, _, seen) = pair(Protocol::Http1).await;
    let rules = vec![
        below("/broken", Forward::Refuse(Reason::InvalidRoute)),
        below("/empty", Forward::split(Vec::new())),
        no_route(),
    ];
    route(&client, Protocol::Http1, rules);
    for (path, status, reason) in [
        ("/", 404, "no-route"),
        ("/broken/x", 500, "invalid-route"),
        ("/empty", 503, "no-backend"),
    ] {
        let (found, answer) = get(client.call(vip()).await, path, "").await;
        assert_eq!(found, status, "{answer}");
        assert!(
            answer.contains(&format!("weft-reason: {reason}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("HTTPRoute shop/web"), "{answer}");
    }
    assert_eq!(seen.lock().len(), 0);
}

#[tokio::test]
async fn invalid_backend_keeps_its_share_and_answers_500() {
    let (client, _server, app) = v2(OK, Actions::default()).await;
    let Forward::Split(mut backends) = to_v2(Actions::default()) else {
        panic!("a split");
    };
    backends.push(Backend::invalid(ServiceId::new("shop", "none"), 80, 1));
    route(
        &client,
        Protocol::Http1,
        vec![below("/", Forward::split(backends))],
    );
    let mut refused = 0;
    for _ in 0..200 {
        let (status, answer) = ask(&client, "GET", "", "").await;
        if status == 500 {
            assert!(answer.contains("weft-reason: invalid-backend"), "{answer}");
            refused += 1;
        } else {
            assert_eq!(status, 200, "{answer}");
        }
    }
    // 5 sigma of a binomial with n = 200, p = 0.5.
    assert!((64..=136).contains(&refused), "{refused}");
    assert_eq!(app.request_count(), 200 - refused);
}

fn redirect(status: u16) -> Redirect {
    Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: StatusCode::from_u16(status).unwrap(),
        response: HeaderEdits::default(),
        cors: None,
    }
}

#[tokio::test]
async fn redirect_is_answered_without_any_backend() {
    let (client, _server, _, seen) = pair(Protocol::Http1).await;
    let to_https = Redirect {
        scheme: Some(Scheme::Https),
        host: Some("shop.example".into()),
        response: HeaderEdits {
            set: vec![header("x-answer", "rule")],
            ..HeaderEdits::default()
        },
        ..redirect(301)
    };
    let to_path = Redirect {
        path: Some(PathRewrite::Prefix {
            matched: "/old".to_owned(),
            with: "/new".to_owned(),
        }),
        ..redirect(302)
    };
    let to_port = Redirect {
        port: Some(8083),
        ..redirect(307)
    };
    let to = |one: &Redirect| Forward::Redirect(Arc::new(one.clone()));
    let rules = vec![
        below("/secure", to(&to_https)),
        below("/old", to(&to_path)),
        below("/port", to(&to_port)),
    ];
    route(&client, Protocol::Http1, rules);
    for (path, status, location) in [
        ("/secure?a=b", 301, "https://shop.example/secure?a=b"),
        ("/old/x?a=b", 302, "http://web.shop/new/x?a=b"),
        ("/port", 307, "http://web.shop:8083/port"),
    ] {
        let (found, answer) = get(client.call(vip()).await, path, "").await;
        assert_eq!(found, status, "{answer}");
        let line = format!("location: {location}\r\n");
        assert!(answer.contains(&line), "{answer}");
        assert_eq!(answer.contains("x-answer: rule"), status == 301, "{answer}");
    }
    assert_eq!(seen.lock().len(), 0);
    let redirected = sum(&client, "weft_requests_total", &["success=\"true\""]);
    assert_eq!(redirected, 3.0, "{}", client.metrics());
}

fn cors() -> Cors {
    Cors {
        origins: vec!["https://shop.example".parse().unwrap()],
        credentials: false,
        methods: Allowed::Only(vec![http::Method::PUT]),
        headers: Allowed::Any,
        expose: Allowed::Only(Vec::new()),
        max_age: 5,
    }
}

#[tokio::test]
async fn cors_preflight_is_answered_and_other_responses_are_readable() {
    const ORIGIN: &str = "origin: https://shop.example\r\n";
    const ALLOWED: &str = "access-control-allow-origin: https://shop.example\r\n";
    let with_cors = Actions {
        cors: Some(cors()),
        ..Actions::default()
    };
    let (client, server, app) = v2(OK, with_cors).await;
    let mut stream = client.call(vip()).await;
    let preflight = format!(
        "OPTIONS /v1 HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n{ORIGIN}\
         access-control-request-method: PUT\r\n\r\n"
    );
    let answer = raw(&mut stream, preflight.as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(answer.contains(ALLOWED), "{answer}");
    assert!(
        answer.contains("access-control-allow-methods: PUT\r\n"),
        "{answer}"
    );
    assert_eq!(app.request_count(), 0);
    let (_, answer) = get(client.call(vip()).await, "/v1", ORIGIN).await;
    assert!(answer.contains(ALLOWED), "{answer}");
    let (_, answer) = get(client.call(vip()).await, "/v1", "origin: https://evil\r\n").await;
    assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    let (_, answer) = get(client.call(vip()).await, "/v1", "").await;
    assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    assert_eq!(app.request_count(), 3);
    // A page may read why there is no response, too.
    let silent = App::new(server.ip, SILENCE).await;
    serves(&client, &server, ("v2", PORT), silent.port);
    let timed = "weft-timeout: 1000ms\r\n".to_owned() + ORIGIN;
    let (status, answer) = get(client.call(vip()).await, "/v1", &timed).await;
    assert_eq!(status, 504, "{answer}");
    assert!(answer.contains(ALLOWED), "{answer}");
}
