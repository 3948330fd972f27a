//! Requests that are never mirrored: calls made for a copy, and calls that no application has
//! seen. Also what copies change for other callers of the same pods.
//!
//! Claims: calls-53, calls-55

use std::time::{Duration, Instant};

use policy::name::ServiceId;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Causes, Downstream, Fallback, FallbackTo, Mirror};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use wire::v1::Protocol;

use super::answers::{
    App, OK, SILENCE, SLOW, UNAVAILABLE, ask, limited, policy_of, served_by, sum,
};
use super::dedicated::{dedicated, warm};
use super::mirrors::{MIRRORED, Shop, header, mirror, restrict_to_read_only};
use crate::support::{Pod, endpoint, endpoints, raw, service, vip};

const TRACE: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

fn for_any_caller() -> Mirror {
    Mirror {
        downstream: Downstream::Any,
        ..mirror()
    }
}

fn copies(pod: &Pod, outcome: &str) -> f64 {
    sum(pod, MIRRORED, &[&format!("outcome=\"{outcome}\"")])
}

/// Calls of `pod` to `api` go to the same application and are copied to `next`.
fn calls_as_the_client_does(shop: &Shop, pod: &Pod) {
    pod.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    served_by(pod, &shop.server, &[&shop.api]);
    let next = endpoint(shop.shadow.ip, shop.next.port, Some("api"));
    pod.set(vec![endpoints("next", vec![next])]);
    pod.set(vec![policy_of(&EffectivePolicy {
        mirror: limited(vec![for_any_caller()].into()),
        ..EffectivePolicy::default()
    })]);
}

async fn calls(pod: &Pod, headers: &str) {
    let (status, answer) = ask(pod, "GET", headers, "").await;
    assert_eq!(status, 200, "{answer}");
}

async fn comes_to(pod: &Pod, outcome: &str, count: f64) {
    let started = Instant::now();
    while copies(pod, outcome) < count {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{}",
            pod.metrics()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(copies(pod, outcome), count, "{outcome}");
}

#[tokio::test]
async fn calls_made_for_mirrored_request_are_not_mirrored() {
    let shop = Shop::unrestricted(OK).await;
    shop.mirrors(vec![for_any_caller()]);
    let receiver = &shop.shadow;
    calls_as_the_client_does(&shop, receiver);
    // Control: no copy came to it until now.
    calls(receiver, "weft-shadow: true\r\n").await;
    comes_to(receiver, "success", 1.0).await;
    assert_eq!(header(&shop.api.heads()[0], "weft-shadow"), None);
    calls(&shop.client, TRACE).await;
    shop.until("success", 1.0).await;
    // The application marks its calls, by either of the headers that it received.
    let of_copy = format!("{TRACE}tracestate: a=b,weft=copy\r\n");
    for (shown, headers) in [(1.0, "weft-shadow: true\r\n"), (2.0, &*of_copy)] {
        calls(receiver, headers).await;
        assert_eq!(copies(receiver, "shadow"), shown, "{headers}");
        let head = shop.api.heads().pop().unwrap();
        assert_eq!(header(&head, "weft-shadow"), Some("true"), "{head}");
    }
    let head = shop.api.heads().pop().unwrap();
    assert_eq!(header(&head, "tracestate"), Some("weft=copy,a=b"), "{head}");
    // Or it marks nothing.
    for headers in ["", TRACE] {
        calls(receiver, headers).await;
        let head = shop.api.heads().pop().unwrap();
        assert_eq!(header(&head, "weft-shadow"), None, "{head}");
    }
    assert_eq!(copies(receiver, "shadow"), 4.0);
    assert_eq!(copies(receiver, "success"), 1.0);
    // Or that it is none.
    let of_call = format!("{TRACE}tracestate: weft=call\r\n");
    calls(receiver, &of_call).await;
    comes_to(receiver, "success", 2.0).await;
    // So does each called application, one after the other.
    calls_as_the_client_does(&shop, &shop.server);
    calls(&shop.server, "").await;
    assert_eq!(copies(&shop.server, "shadow"), 1.0);
    // And a caller's own calls are mirrored as before.
    calls(&shop.client, "").await;
    shop.until("success", 2.0).await;
}

async fn until_asked(app: &App, times: usize) {
    let started = Instant::now();
    while app.request_count() < times {
        assert!(started.elapsed() < Duration::from_secs(5), "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the application passes on by name of a request with this head.
fn context(head: &str) -> String {
    let name = header(head, "weft-context").expect("it has a name");
    format!("weft-context: {name}\r\n")
}

#[tokio::test]
async fn call_context_identifies_calls_made_for_mirrored_request() {
    let shop = Shop::unrestricted(SILENCE).await;
    shop.mirrors(vec![for_any_caller()]);
    let (receiver, next) = (&shop.shadow, &shop.next);
    calls(&shop.client, "").await;
    until_asked(next, 1).await;
    // Another one comes there that is no copy.
    shop.mirrors(Vec::new());
    served_by(&shop.client, receiver, &[next]);
    let mut caller = shop.client.call(vip()).await;
    let head = b"GET / HTTP/1.1\r\nHost: h\r\nweft-timeout: 60000ms\r\n\r\n";
    caller.write_all(head).await.unwrap();
    until_asked(next, 2).await;
    let [of_copy, of_call] = [&next.heads()[0], &next.heads()[1]].map(|head| context(head));

    calls_as_the_client_does(&shop, receiver);
    let taker = App::new(shop.server.ip, OK).await;
    let there = endpoint(shop.server.ip, taker.port, Some("api"));
    receiver.set(vec![endpoints("next", vec![there])]);
    calls(receiver, &of_copy).await;
    let head = shop.api.heads().pop().unwrap();
    assert_eq!(header(&head, "weft-shadow"), Some("true"), "{head}");
    assert_eq!(copies(receiver, "shadow"), 1.0);
    calls(receiver, &of_call).await;
    let head = shop.api.heads().pop().unwrap();
    assert_eq!(header(&head, "weft-shadow"), None, "{head}");
    comes_to(receiver, "success", 1.0).await;
    // Control: an unmarked call is not recognized.
    calls(receiver, "").await;
    assert_eq!(copies(receiver, "shadow"), 2.0);
}

#[tokio::test]
async fn unseen_or_fallback_served_call_is_not_mirrored() {
    let shop = Shop::new(OK).await;
    let listener = TcpListener::bind((shop.server.ip, 0)).await.unwrap();
    let closed_port = listener.local_addr().unwrap().port();
    drop(listener);
    for dead in [
        Vec::new(),
        vec![endpoint(shop.server.ip, closed_port, Some("api"))],
    ] {
        shop.client.set(vec![endpoints("api", dead)]);
        assert_eq!(ask(&shop.client, "GET", "", "").await.0, 503);
    }
    served_by(&shop.client, &shop.server, &[&shop.api]);
    let late = "weft-timeout: 0ms\r\n";
    assert_eq!(ask(&shop.client, "GET", late, "").await.0, 504);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(sum(&shop.client, MIRRORED, &[]), 0.0);
    // An application saw it, and `next` answers in its place.
    let to = FallbackTo::Service(ServiceId::new("shop", "next"));
    shop.client.set(vec![policy_of(&EffectivePolicy {
        mirror: limited(vec![mirror()].into()),
        fallback: limited(
            Fallback {
                to,
                on: Causes::ALL,
            }
            .into(),
        ),
        ..EffectivePolicy::default()
    })]);
    let failing = App::new(shop.server.ip, UNAVAILABLE).await;
    served_by(&shop.client, &shop.server, &[&failing]);
    let (status, answer) = ask(&shop.client, "GET", "", "").await;
    assert_eq!(status, 200, "{answer}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (sum(&shop.client, MIRRORED, &[]), shop.next.request_count()),
        (0.0, 1)
    );
    // Control.
    calls(&shop.client, "").await;
    served_by(&shop.client, &shop.server, &[&shop.api]);
    calls(&shop.client, "").await;
    shop.until("success", 1.0).await;
}

#[tokio::test]
async fn hanging_mirror_delays_no_call() {
    let shop = Shop::unrestricted(SILENCE).await;
    shop.mirrors(vec![for_any_caller()]);
    // Both are served by one pod.
    let next = App::new(shop.server.ip, SILENCE).await;
    let there = endpoint(shop.server.ip, next.port, Some("api"));
    let client = &shop.client;
    client.set(vec![endpoints("next", vec![there])]);
    let connections = dedicated(client, &shop.server);
    shop.mirrors(Vec::new());
    warm(client, &connections).await;
    shop.mirrors(vec![for_any_caller()]);
    calls(client, "").await;
    let started = Instant::now();
    while next.request_count() == 0 {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shop.mirrors(Vec::new());
    let before = connections.used().1;
    for _ in 0..5 {
        calls(client, "").await;
    }
    assert!(connections.used().1 > before, "{connections:?}");
}

#[tokio::test]
async fn unfinished_write_stops_when_pod_becomes_read_only() {
    const HEAD: &str =
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 6\r\n\r\n";
    let shop = Shop::unrestricted(OK).await;
    let pod = &shop.shadow;
    pod.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let slow = App::new(shop.server.ip, SLOW).await;
    served_by(pod, &shop.server, &[&slow]);
    let mut half = pod.call(vip()).await;
    half.write_all(format!("{HEAD}abc").as_bytes())
        .await
        .unwrap();
    // A completely sent request is answered.
    let mut whole = pod.call(vip()).await;
    let sent = format!("{HEAD}abcdef");
    whole.write_all(sent.as_bytes()).await.unwrap();
    let started = Instant::now();
    while slow.request_count() == 0 {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    restrict_to_read_only(pod, &[]);
    let answer = raw(&mut whole, b"", Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    half.write_all(b"def").await.unwrap();
    let mut answer = String::new();
    let read = timeout(Duration::from_secs(5), half.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("weft-reason: shadow-write"), "{answer}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(slow.request_count(), 1);
}
