//! Fallbacks for calls of which every attempt has failed.
//!
//! Claims: calls-52

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use policy::name::ServiceId;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{
    Cause, Causes, Fallback, FallbackResponse, FallbackTo, Retry, Timeouts,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use super::answers::{
    App, NOTHING, OK, SILENCE, UNAVAILABLE, ask, limited, policy_of, served_by, sum,
};
use super::shown::{Does, call, grpc, serve};
use super::tcp::echo;
use crate::support::{
    Authority, Pod, endpoint, endpoints, pair, raw, resource, service, split, vip,
};

const FALLBACKS: &str = "weft_fallbacks_total";
const ATTEMPTS: &str = "weft_attempts_total";
const REQUESTS: &str = "weft_requests_total";
const INSTEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nweft-degraded: forged\r\n\r\ninstead";
const GRPC: &str = "content-type: application/grpc\r\n";
const DEGRADED: &str = "weft-degraded: shop/spare\r\n";

/// `api`, and a Service `spare` that may answer in its place.
struct Shop {
    client: Pod,
    server: Pod,
    spare: App,
}

pub(super) fn to_spare() -> FallbackTo {
    FallbackTo::Service(ServiceId::new("shop", "spare"))
}

pub(super) fn fallback(to: FallbackTo, on: Causes) -> EffectivePolicy {
    EffectivePolicy {
        fallback: limited(Arc::new(Fallback { to, on })),
        // What is tried again is another matter.
        retry: limited(Retry {
            attempts: 0,
            ..Retry::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

impl Shop {
    async fn new(protocol: Protocol) -> Self {
        let (client, server, _, _) = pair(protocol).await;
        let spare = App::new(server.ip, INSTEAD).await;
        let there = endpoint(server.ip, spare.port, Some("api"));
        client.set(vec![endpoints("spare", vec![there])]);
        client.set(vec![policy_of(&fallback(to_spare(), Causes::ALL))]);
        Self {
            client,
            server,
            spare,
        }
    }

    async fn http() -> Self {
        Self::new(Protocol::Http1).await
    }

    /// `api` is served by an application that answers so.
    async fn answering(answer: &'static str) -> (Self, App) {
        let shop = Self::http().await;
        let app = App::new(shop.server.ip, answer).await;
        served_by(&shop.client, &shop.server, &[&app]);
        (shop, app)
    }

    /// `api` is served by a port without a listener.
    async fn out_of_order(self, meshed: bool) -> Self {
        let listener = TcpListener::bind((self.server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let there = endpoint(self.server.ip, port, meshed.then_some("api"));
        self.client.set(vec![endpoints("api", vec![there])]);
        self
    }

    fn counted(&self, when: Cause, outcome: &str) -> f64 {
        let when = format!("when=\"{}\"", when.as_str());
        let outcome = format!("outcome=\"{outcome}\"");
        let labels = [
            "service=\"shop/api\"",
            "fallback=\"shop/spare\"",
            &when,
            &outcome,
        ];
        sum(&self.client, FALLBACKS, &labels)
    }
}

/// What policies say of calls to `spare` itself.
fn policy_of_spare(traffic: &EffectivePolicy) -> v1::Resource {
    resource(
        &wire::names::policy("shop", "spare", 80),
        v1::resource::Content::Policy(wire::convert::policy_message(traffic)),
    )
}

#[tokio::test]
async fn undeliverable_call_uses_fallback_service_whatever_its_kind() {
    for (meshed, method, headers) in [
        (true, "POST", ""),
        (false, "POST", ""),
        (true, "GET", ""),
        (true, "POST", GRPC),
    ] {
        let shop = Shop::http().await.out_of_order(meshed).await;
        let (status, answer) = ask(&shop.client, method, headers, "pay 5").await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer.ends_with("instead"), "{answer}");
        assert!(answer.contains(DEGRADED), "{answer}");
        assert!(!answer.contains("forged"), "{answer}");
        assert_eq!(shop.spare.bodies(), ["pay 5"]);
        assert_eq!(shop.counted(Cause::Unreachable, "success"), 1.0);
        let served = ["backend=\"shop/spare\"", "success=\"true\""];
        assert_eq!(sum(&shop.client, REQUESTS, &served), 1.0);
        assert_eq!(sum(&shop.client, REQUESTS, &[]), 1.0, "it counts once");
        assert_eq!(sum(&shop.client, ATTEMPTS, &served), 1.0);
        let failed = ["backend=\"shop/api\"", "success=\"false\""];
        assert_eq!(sum(&shop.client, ATTEMPTS, &failed), 1.0);
    }
}

#[tokio::test]
async fn fallback_applies_only_with_policy_and_matching_failure() {
    let shop = Shop::http().await;
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 200);
    assert!(!answer.contains("weft-degraded"), "{answer}");
    let shop = shop.out_of_order(true).await;
    let others = Causes::of(&[Cause::Overload, Cause::Timeout, Cause::ServerError]);
    shop.client
        .set(vec![policy_of(&fallback(to_spare(), others))]);
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains("weft-reason: connect-failed"), "{answer}");
    shop.client
        .replace(&wire::names::policy("shop", "api", 80), Vec::new());
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 503);
    assert_eq!(shop.spare.request_count(), 0);
    assert_eq!(sum(&shop.client, FALLBACKS, &[]), 0.0);
}

#[tokio::test]
async fn service_without_endpoints_and_split_without_backends_fall_back() {
    let shop = Shop::http().await;
    shop.client.set(vec![endpoints("api", Vec::new())]);
    assert_eq!(ask(&shop.client, "POST", "", "{}").await.0, 200);
    let failed = ["backend=\"shop/api\"", "success=\"false\""];
    assert_eq!(sum(&shop.client, ATTEMPTS, &failed), 1.0, "as without");
    let splits = vec![split("s", &[("v2", 0)])];
    let split = service("api", vip().ip(), Protocol::Http1, splits);
    shop.client.set(split.clone());
    let (status, answer) = ask(&shop.client, "POST", "", "{}").await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(DEGRADED), "{answer}");
    assert_eq!(
        sum(&shop.client, ATTEMPTS, &failed),
        1.0,
        "no endpoint was chosen"
    );
    assert_eq!(shop.counted(Cause::Unreachable, "success"), 2.0);
    // What the other Service cannot answer either ends as it would have.
    shop.client.set(vec![endpoints("spare", Vec::new())]);
    let (status, answer) = ask(&shop.client, "POST", "", "{}").await;
    assert_eq!(status, 503);
    assert!(answer.contains("weft-reason: no-backend"), "{answer}");
    assert_eq!(shop.counted(Cause::Unreachable, "failure"), 1.0);
}

#[tokio::test]
async fn call_possibly_seen_falls_back_only_if_repeatable() {
    for (answer, status) in [(UNAVAILABLE, 503), (NOTHING, 502)] {
        for (method, headers, falls) in
            [("GET", "", true), ("POST", "", false), ("GET", GRPC, false)]
        {
            let (shop, app) = Shop::answering(answer).await;
            let (got, text) = ask(&shop.client, method, headers, "{}").await;
            if falls {
                assert_eq!(got, 200, "{text}");
                assert!(text.contains(DEGRADED), "{text}");
                assert_eq!(shop.counted(Cause::ServerError, "success"), 1.0);
            } else {
                assert!(headers == GRPC || got == status, "{text}");
                assert!(!text.contains("weft-degraded"), "{text}");
                assert_eq!(sum(&shop.client, FALLBACKS, &[]), 0.0);
            }
            assert_eq!(app.request_count(), 1, "{method} {headers}");
            assert_eq!(shop.spare.request_count(), usize::from(falls));
        }
    }
}

#[tokio::test]
async fn an_answer_below_500_stands() {
    let (shop, _app) = Shop::answering("HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 429);
    assert_eq!(shop.spare.request_count(), 0);
}

#[tokio::test]
async fn fallback_has_only_remaining_time_of_call() {
    let times = |request: Option<u64>, attempt: Option<u64>, to| EffectivePolicy {
        timeouts: limited(Timeouts {
            request: request.map(Duration::from_millis),
            backend_request: attempt.map(Duration::from_millis),
            ..Timeouts::DEFAULT
        }),
        ..fallback(to, Causes::ALL)
    };
    let (shop, _app) = Shop::answering(SILENCE).await;
    let started = Instant::now();
    shop.client
        .set(vec![policy_of(&times(None, Some(300), to_spare()))]);
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 200, "{answer}");
    assert!(started.elapsed() >= Duration::from_millis(250));
    assert_eq!(shop.counted(Cause::Timeout, "success"), 1.0);
    // The timeout of the whole call has passed.
    shop.client
        .set(vec![policy_of(&times(Some(300), None, to_spare()))]);
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 504, "{answer}");
    assert_eq!(shop.spare.request_count(), 1);
    assert_eq!(shop.counted(Cause::Timeout, "deadline"), 1.0);
    // The other Service receives the remaining time, and the proxy enforces it.
    let silent = App::new(shop.server.ip, SILENCE).await;
    let there = endpoint(shop.server.ip, silent.port, Some("api"));
    shop.client.set(vec![endpoints("spare", vec![there])]);
    shop.client
        .set(vec![policy_of(&times(Some(700), Some(300), to_spare()))]);
    let started = Instant::now();
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 504, "{answer}");
    let took = started.elapsed().as_millis();
    assert!((600..1500).contains(&took), "{took}");
    assert!(
        silent.heads()[0].contains("weft-timeout: "),
        "{:?}",
        silent.heads()
    );
}

fn response_of(status: u16) -> FallbackTo {
    FallbackTo::Response(FallbackResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: vec![(
            HeaderName::from_static("content-type"),
            HeaderValue::from_static("application/json"),
        )],
        body: b"[]".as_slice().into(),
    })
}

#[tokio::test]
async fn static_fallback_response_is_immediate_and_counts_as_result() {
    let (shop, app) = Shop::answering(SILENCE).await;
    let timeouts = limited(Timeouts {
        request: Some(Duration::from_millis(300)),
        ..Timeouts::DEFAULT
    });
    shop.client.set(vec![policy_of(&EffectivePolicy {
        timeouts,
        ..fallback(response_of(200), Causes::ALL)
    })]);
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 200, "no time is needed for it: {answer}");
    for part in [
        "\r\ncontent-type: application/json\r\n",
        "\r\nweft-degraded: response\r\n",
        "\r\ncontent-length: 2\r\n",
        "\r\n\r\n[]",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert!(!answer.contains("weft-reason"), "{answer}");
    assert_eq!(app.request_count(), 1);
    let labels = ["service=\"shop/api\"", "success=\"true\"", "status=\"200\""];
    assert_eq!(sum(&shop.client, REQUESTS, &labels), 1.0);
    assert_eq!(sum(&shop.client, ATTEMPTS, &["success=\"true\""]), 0.0);
    assert_eq!(sum(&shop.client, ATTEMPTS, &["success=\"false\""]), 1.0);
    let labels = ["fallback=\"response\"", "when=\"Timeout\""];
    assert_eq!(sum(&shop.client, FALLBACKS, &labels), 1.0);
    let (status, answer) = ask(&shop.client, "HEAD", "", "").await;
    assert_eq!(status, 200);
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    for bodiless in [204, 205, 304] {
        let traffic = fallback(response_of(bodiless), Causes::ALL);
        shop.client
            .set(vec![endpoints("api", Vec::new()), policy_of(&traffic)]);
        let (status, answer) = ask(&shop.client, "GET", "", "").await;
        assert_eq!(status, bodiless, "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    // A call of gRPC gets what stands there, in whatever form that is.
    shop.client
        .set(vec![policy_of(&fallback(response_of(200), Causes::ALL))]);
    let grpc = "content-type: application/grpc\r\n";
    let (status, answer) = ask(&shop.client, "POST", grpc, "call").await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer.contains("\r\ncontent-type: application/json\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with("\r\n\r\n[]") && !answer.contains("grpc-status"),
        "{answer}"
    );
}

#[tokio::test]
async fn failed_fallback_keeps_original_response_without_chaining() {
    let (shop, _app) = Shop::answering(UNAVAILABLE).await;
    let third = App::new(shop.server.ip, OK).await;
    let there = endpoint(shop.server.ip, third.port, Some("api"));
    let to_third = FallbackTo::Service(ServiceId::new("shop", "third"));
    shop.client.set(vec![
        endpoints("third", vec![there]),
        policy_of_spare(&fallback(to_third, Causes::ALL)),
        endpoints("spare", Vec::new()),
    ]);
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 503);
    assert!(
        answer.ends_with("\r\n\r\nno"),
        "the application's own: {answer}"
    );
    assert!(!answer.contains("weft-degraded"), "{answer}");
    assert_eq!(shop.counted(Cause::ServerError, "failure"), 1.0);
    let labels = ["backend=\"shop/api\"", "status=\"503\""];
    assert_eq!(sum(&shop.client, REQUESTS, &labels), 1.0);
    // Its own error response is passed on: it gets one request.
    let bad = App::new(
        shop.server.ip,
        "HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad",
    )
    .await;
    let there = endpoint(shop.server.ip, bad.port, Some("api"));
    shop.client.set(vec![endpoints("spare", vec![there])]);
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 500);
    assert!(answer.contains(DEGRADED), "{answer}");
    assert_eq!((bad.request_count(), third.request_count()), (1, 0));
}

#[tokio::test]
async fn mesh_refusal_stands_when_fallback_admits_no_caller() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let server = Pod::new(&authority, "api").await;
    let closed = Pod::new(&authority, "api").await;
    closed.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    let spare = App::new(closed.ip, OK).await;
    let shop = Shop {
        client,
        server,
        spare,
    };
    let there = endpoint(closed.ip, shop.spare.port, Some("api"));
    shop.client
        .set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    shop.client.set(vec![endpoints("spare", vec![there])]);
    shop.client
        .set(vec![policy_of(&fallback(to_spare(), Causes::ALL))]);
    let shop = shop.out_of_order(true).await;
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains("weft-reason: connect-failed"), "{answer}");
    assert_eq!(shop.spare.request_count(), 0);
    assert_eq!(shop.counted(Cause::Unreachable, "failure"), 1.0);
    let labels = ["backend=\"shop/api\"", "reason=\"connect-failed\""];
    assert_eq!(sum(&shop.client, REQUESTS, &labels), 1.0);
}

#[tokio::test]
async fn unbuffered_body_is_not_sent_to_fallback() {
    let (shop, app) = Shop::answering(UNAVAILABLE).await;
    let body = "x".repeat(100 * 1024);
    let (status, answer) = ask(&shop.client, "GET", "", &body).await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(app.request_count(), 1);
    assert_eq!(shop.spare.request_count(), 0);
    assert_eq!(shop.counted(Cause::ServerError, "body"), 1.0);
    // What the policy holds needs none.
    shop.client
        .set(vec![policy_of(&fallback(response_of(203), Causes::ALL))]);
    assert_eq!(ask(&shop.client, "GET", "", &body).await.0, 203);
}

#[tokio::test]
async fn grpc_over_http2_falls_back_only_if_undelivered() {
    let shop = Shop::new(Protocol::Http2).await;
    let serves = async |name: &str, does| {
        let listener = TcpListener::bind((shop.server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let there = endpoint(shop.server.ip, port, Some("api"));
        shop.client.set(vec![endpoints(name, vec![there])]);
        serve(listener, does)
    };
    let spare = serves("spare", Does::Answers).await;
    shop.client.set(vec![endpoints("api", Vec::new())]);
    let mut sender = grpc(&shop.client).await;
    let answer = sender.send_request(call()).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "0");
    assert_eq!(answer.headers()["weft-degraded"], "shop/spare");
    let api = serves("api", Does::AsksForTime).await;
    let answer = sender.send_request(call()).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(!answer.headers().contains_key("weft-degraded"));
    assert_eq!((spare.load(Relaxed), api.load(Relaxed)), (1, 1));
}

#[tokio::test]
async fn undeliverable_opaque_bytes_go_to_fallback_service() {
    for protocol in [Protocol::Opaque, Protocol::Detect] {
        let shop = Shop::new(protocol).await.out_of_order(true).await;
        let echo = TcpListener::bind((shop.server.ip, 0)).await.unwrap();
        let port = echo.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        let there = endpoint(shop.server.ip, port, Some("api"));
        shop.client.set(vec![endpoints("spare", vec![there])]);
        let mut stream = shop.client.call(vip()).await;
        stream.write_all(b"\0binary").await.unwrap();
        stream.shutdown().await.unwrap();
        let back = raw(&mut stream, b"", Duration::from_secs(5)).await;
        assert_eq!(back, "\0binary", "{protocol:?}");
        assert_eq!(shop.counted(Cause::Unreachable, "success"), 1.0);
        let labels = ["backend=\"shop/spare\"", "reason=\"\""];
        let served = sum(&shop.client, "weft_tcp_connections_total", &labels);
        assert_eq!(served, 1.0, "{}", shop.client.metrics());
    }
}

#[tokio::test]
async fn opaque_bytes_on_fallback_end_at_idle_timeout() {
    let shop = Shop::new(Protocol::Opaque).await.out_of_order(true).await;
    shop.client.set(vec![policy_of(&EffectivePolicy {
        timeouts: limited(Timeouts {
            idle: Some(Duration::from_millis(600)),
            ..Timeouts::DEFAULT
        }),
        ..fallback(to_spare(), Causes::ALL)
    })]);
    let port = echo(&shop.server, "").await;
    let there = endpoint(shop.server.ip, port, Some("api"));
    shop.client.set(vec![endpoints("spare", vec![there])]);
    let mut stream = shop.client.call(vip()).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        stream.write_all(b"\0").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
    }
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    end.expect("it must have been closed").ok();
}
