//! Calls that end at their deadline, and the deadline that the application receives.
//!
//! Claims: calls-17, calls-18, calls-42, calls-50

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use policy::http_match::HttpMatch;
use policy::route::Match;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Retry, Timeouts};
use policy::traffic::endpoint::{Breaker, BreakerState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::{self, Protocol};

use super::answers::{App, OK, SILENCE, ask, limited, policy_of, retries, served_by, sum, whole};
use super::leftover::answer;
use super::limits::guarded;
use super::shown::{Does, call, grpc, serve};
use crate::support::{Pod, endpoint, endpoints, get, pair, raw, resource, vip};

/// The head of an answer and two bytes of a hundred.
pub(super) const PARTIAL_RESPONSE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nab";
const GRPC: &str = "content-type: application/grpc\r\n";
pub(super) const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\n\r\n";

pub(super) async fn fleet<const N: usize>(answers: [&'static str; N]) -> (Pod, Pod, Vec<App>) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut apps = Vec::new();
    for answer in answers {
        apps.push(App::new(server.ip, answer).await);
    }
    served_by(&client, &server, &apps.iter().collect::<Vec<_>>());
    (client, server, apps)
}

pub(super) fn timeouts(request: Option<u64>, attempt: Option<u64>) -> EffectivePolicy {
    EffectivePolicy {
        timeouts: limited(Timeouts {
            request: request.map(Duration::from_millis),
            backend_request: attempt.map(Duration::from_millis),
            ..Timeouts::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

/// A pod's own address, where a request may name the headless Service `api` as its host.
pub(super) fn by_address(client: &Pod, server: &Pod, port: u16) -> std::net::SocketAddr {
    pod_at(client, server, port, Some("api"))
}

/// The same of a pod that runs under this account, or has no proxy.
fn pod_at(client: &Pod, server: &Pod, port: u16, account: Option<&str>) -> std::net::SocketAddr {
    let pod = v1::PodTarget {
        endpoint: Some(endpoint(server.ip, port, account)),
        protocol: Protocol::Http1 as i32,
        headless: vec![v1::Headless {
            service: wire::names::service("shop", "api", 80),
            hosts: vec!["api.shop".into()],
        }],
    };
    client.set(vec![resource(
        &wire::names::destination(server.ip, port),
        v1::resource::Content::Destination(v1::Destination {
            target: Some(v1::destination::Target::Pod(pod)),
        }),
    )]);
    std::net::SocketAddr::new(server.ip, port)
}

#[tokio::test]
async fn pod_call_gets_timeout_of_named_headless_service() {
    let (client, server, apps) = fleet([SILENCE]).await;
    let addr = by_address(&client, &server, apps[0].port);
    for (traffic, host, ends) in [
        (timeouts(Some(400), None), "api.shop:80", true),
        (timeouts(None, Some(400)), "api.shop", true),
        // Of which Service it is a call the caller's proxy does not know.
        (timeouts(Some(400), None), "10.0.0.1", false),
    ] {
        client.set(vec![policy_of(&traffic)]);
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = client.call(addr).await;
        let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(2)).await;
        let late = answer.starts_with("HTTP/1.1 504") && answer.contains("weft-reason: deadline");
        assert_eq!(late, ends, "{host}: {answer}");
    }
    assert_eq!(apps[0].request_count(), 3, "none was sent again");
}

#[tokio::test]
async fn call_by_pod_address_gets_pods_timeout() {
    let (client, server, apps) = fleet([SILENCE]).await;
    let addr = by_address(&client, &server, apps[0].port);
    server.set(vec![guarded(apps[0].port, timeouts(Some(300), None))]);
    let (ip, with_port) = (addr.ip().to_string(), addr.to_string());
    for (host, ends) in [
        (&*ip, true),
        (&*with_port, true),
        // The caller's proxy reports that the call used no name that it knows.
        ("api-0.elsewhere", true),
        ("10.0.0.1", true),
        // Its own proxy sets the timeout of the Service.
        ("api.shop", false),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = client.call(addr).await;
        // A call without a deadline is not waited for.
        let patience = Duration::from_secs(if ends { 10 } else { 1 });
        let answer = raw(&mut stream, request.as_bytes(), patience).await;
        let late = answer.starts_with("HTTP/1.1 504") && answer.contains("weft-reason: deadline");
        assert_eq!(late, ends, "{host}: {answer}");
    }
}

#[tokio::test]
async fn pod_destination_header_passes_only_between_two_proxies() {
    let said = |app: &App| header(app, "weft-destination");
    for account in [Some("api"), None] {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let app = App::new(server.ip, OK).await;
        let mut stream = client
            .call(pod_at(&client, &server, app.port, account))
            .await;
        let request = "GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(5)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{account:?}: {answer}");
        assert_eq!((app.request_count(), said(&app)), (1, None), "{account:?}");
    }
    // Nor does an application say it of its own call.
    let (client, server, apps) = fleet([SILENCE]).await;
    server.set(vec![guarded(apps[0].port, timeouts(Some(300), None))]);
    let named = ask(&client, "GET", "weft-destination: pod\r\n", "");
    let named = tokio::time::timeout(Duration::from_secs(1), named).await;
    assert!(named.is_err(), "it has all the time: {named:?}");
}

/// Waits until all requests of an application have been broken off.
pub(super) async fn broken_off(app: &App) {
    let started = Instant::now();
    while app.ended() == 0 {
        assert!(started.elapsed() < Duration::from_secs(2), "it works on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn header(app: &App, name: &str) -> Option<String> {
    let head = app.heads().last().cloned()?;
    let value = head.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim_start_matches(": ").to_owned())
}

#[tokio::test]
async fn policy_timeout_reaches_application_and_ends_its_call() {
    for method in ["GET", "POST"] {
        let (client, server, apps) = fleet([SILENCE]).await;
        client.set(vec![policy_of(&timeouts(Some(400), None))]);
        let started = Instant::now();
        let (status, answer) = ask(&client, method, "", "{}").await;
        let took = started.elapsed();
        assert_eq!(status, 504, "{answer}");
        assert!(answer.contains("weft-reason: deadline"), "{answer}");
        assert!((350..1500).contains(&took.as_millis()), "{took:?}");
        broken_off(&apps[0]).await;
        let left = header(&apps[0], "weft-timeout").unwrap();
        let left: u64 = left.strip_suffix("ms").unwrap().parse().unwrap();
        assert!((100..=400).contains(&left), "{left}");
        let labels = ["status=\"504\"", "reason=\"deadline\""];
        assert_eq!(sum(&client, "weft_requests_total", &labels), 1.0);
        drop(server);
    }
}

#[tokio::test]
async fn retries_stay_within_call_timeout() {
    let (client, _server, apps) = fleet([SILENCE, SILENCE, SILENCE, SILENCE]).await;
    let mut retry = Retry {
        attempts: 5,
        ..Retry::DEFAULT
    };
    retry.budget.min_per_second = 1000;
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(retry),
        ..timeouts(Some(700), Some(250))
    })]);
    let started = Instant::now();
    let (status, answer) = ask(&client, "GET", "", "").await;
    let took = started.elapsed();
    assert_eq!(status, 504, "{answer}");
    assert!((600..1500).contains(&took.as_millis()), "{took:?}");
    let request_count: usize = apps.iter().map(App::request_count).sum();
    assert!((2..=3).contains(&request_count), "{request_count}");
    assert!(retries(&client, "failure") >= 1.0, "{}", client.metrics());
}

#[tokio::test]
async fn response_unfinished_at_deadline_is_aborted() {
    let (client, _server, apps) = fleet([PARTIAL_RESPONSE]).await;
    client.set(vec![policy_of(&timeouts(Some(400), None))]);
    let started = Instant::now();
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    broken_off(&apps[0]).await;
    let labels = ["status=\"200\"", "reason=\"deadline\"", "success=\"false\""];
    assert_eq!(
        sum(&client, "weft_requests_total", &labels),
        1.0,
        "{}",
        client.metrics()
    );
}

#[tokio::test]
async fn unfinished_grpc_stream_reports_deadline_in_trailers() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let request_count = serve(listener, Does::Streams);
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, Some("api"))],
    )]);
    client.set(vec![policy_of(&timeouts(Some(400), None))]);
    let mut sender = grpc(&client).await;
    let started = Instant::now();
    let answer = sender.send_request(call()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = tokio::time::timeout(Duration::from_secs(5), answer.into_body().collect());
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "4");
    let took = started.elapsed();
    assert!((350..1500).contains(&took.as_millis()), "{took:?}");
    assert_eq!(request_count.load(Relaxed), 1);
    assert_eq!(
        sum(&client, "weft_requests_total", &["success=\"true\""]),
        0.0
    );
}

#[tokio::test]
async fn upgraded_connection_and_started_stream_outlive_their_timeouts() {
    let (client, _server, apps) = fleet([SWITCHED]).await;
    client.set(vec![policy_of(&timeouts(Some(300), Some(300)))]);
    let mut stream = client.call(vip()).await;
    let ask = b"GET / HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(ask).await.unwrap();
        let mut answer = [0; 512];
        let count = stream.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 101"), "{count}");
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!((apps[0].request_count(), apps[0].ended()), (2, 0));

    let (client, _server, apps) = fleet([PARTIAL_RESPONSE]).await;
    client.set(vec![policy_of(&timeouts(None, Some(300)))]);
    let mut stream = client.call(vip()).await;
    let ask = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n";
    let answer = raw(&mut stream, ask, Duration::from_secs(1)).await;
    assert!(answer.ends_with("ab"), "{answer}");
    assert_eq!(
        (apps[0].request_count(), apps[0].ended()),
        (1, 0),
        "it goes on"
    );
}

#[tokio::test]
async fn grpc_timeout_needs_no_policy_and_shrinks_per_hop() {
    let (client, server, apps) = fleet([SILENCE]).await;
    let headers = format!("{GRPC}grpc-timeout: 400m\r\n");
    let started = Instant::now();
    let (_, answer) = ask(&client, "POST", &headers, "call").await;
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    assert!((350..1500).contains(&started.elapsed().as_millis()));
    broken_off(&apps[0]).await;
    let left = header(&apps[0], "grpc-timeout").unwrap();
    let left: u64 = left.strip_suffix('u').unwrap().parse().unwrap();
    assert!((200_000..400_000).contains(&left), "{left}");
    // An unreadable timeout sets none, and is counted.
    let quick = App::new(server.ip, OK).await;
    served_by(&client, &server, &[&quick]);
    let headers = format!("{GRPC}grpc-timeout: soon\r\n");
    ask(&client, "POST", &headers, "call").await;
    assert_eq!(quick.request_count(), 1);
    assert_eq!(sum(&client, "weft_unreadable_times_total", &[]), 1.0);
}

#[tokio::test]
async fn expired_grpc_call_reports_deadline_despite_open_breaker() {
    let (client, _server, apps) = fleet([OK]).await;
    client.set(vec![policy_of(&EffectivePolicy {
        breaker: whole(Breaker {
            state: BreakerState::Open,
            ..Breaker::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    for (time, says) in [
        ("grpc-timeout: 1n\r\n", ["grpc-status: 4", "deadline"]),
        ("", ["grpc-status: 14", "circuit-open"]),
    ] {
        let (_, answer) = ask(&client, "POST", &format!("{GRPC}{time}"), "call").await;
        assert!(says.iter().all(|part| answer.contains(part)), "{answer}");
    }
    assert_eq!(apps[0].request_count(), 0);
}

#[tokio::test]
async fn application_may_shorten_but_not_extend_its_call() {
    let (client, _server, apps) = fleet([SILENCE]).await;
    let (status, answer) = ask(&client, "GET", "weft-timeout: 300ms\r\n", "").await;
    assert_eq!(status, 504, "{answer}");
    assert!(answer.contains("weft-reason: deadline"), "{answer}");
    assert_eq!(apps[0].request_count(), 1);
    // No longer than the policy's timeout.
    client.set(vec![policy_of(&timeouts(Some(300), None))]);
    let started = Instant::now();
    ask(&client, "GET", "weft-timeout: 60000ms\r\n", "").await;
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn outside_caller_sets_no_timeout_except_grpc_timeout() {
    let (_client, server, apps) = fleet([OK, SILENCE]).await;
    for header in [
        "weft-timeout: 0ms\r\n",
        "weft_timeout: 0ms\r\n",
        "grpc-timeout: 1n\r\n",
    ] {
        let (status, answer) = get(server.plain(apps[0].port).await, "/", header).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert!(apps[0].heads().iter().all(|head| !head.contains("weft")));
    let grpc = format!("{GRPC}grpc-timeout: 300m\r\n");
    let (_, answer) = get(server.plain(apps[1].port).await, "/", &grpc).await;
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    broken_off(&apps[1]).await;
}

#[tokio::test]
async fn outside_caller_gets_policy_timeout_and_meshed_its_own() {
    let (client, server, apps) = fleet([SILENCE]).await;
    server.set(vec![guarded(apps[0].port, timeouts(Some(300), None))]);
    let started = Instant::now();
    let (status, answer) = get(server.plain(apps[0].port).await, "/", "").await;
    assert_eq!(status, 504, "{answer}");
    assert!(answer.contains("weft-reason: deadline"), "{answer}");
    assert!((250..1500).contains(&started.elapsed().as_millis()));
    broken_off(&apps[0]).await;
    // Whose own proxy is asked for it.
    let started = Instant::now();
    let (status, _) = ask(&client, "GET", "weft-timeout: 900ms\r\n", "").await;
    assert_eq!(status, 504);
    assert!(started.elapsed() > Duration::from_millis(800));
}

#[tokio::test]
async fn outside_request_gets_timeout_of_its_normalized_path() {
    let (_client, server, apps) = fleet([SILENCE]).await;
    let mut said = timeouts(Some(300), None);
    let slow = HttpMatch::new("slow", Some("/slow"), &["GET"], &[] as &[(&str, &str)]);
    said.timeouts.rules[0].when = Match::AnyOf(vec![slow.unwrap()]);
    server.set(vec![guarded(apps[0].port, said)]);
    // Rules cannot see how the last one is read, so it has no more time than any other.
    for path in ["/slow", "/a/../slow", "/%73low", "/%2fslow", "/a%5cb"] {
        let started = Instant::now();
        let (status, answer) = get(server.plain(apps[0].port).await, path, "").await;
        assert_eq!(status, 504, "{path}: {answer}");
        assert!(
            (250..1500).contains(&started.elapsed().as_millis()),
            "{path}"
        );
    }
    let other = get(server.plain(apps[0].port).await, "/slow/../other", "");
    let other = tokio::time::timeout(Duration::from_secs(1), other).await;
    assert!(other.is_err(), "it has all the time: {other:?}");
}

#[tokio::test]
async fn what_has_no_time_left_reaches_no_application() {
    let (client, _server, apps) = fleet([OK]).await;
    let (status, answer) = ask(&client, "GET", "weft-timeout: 0ms\r\n", "").await;
    assert_eq!(status, 504, "{answer}");
    assert_eq!(apps[0].request_count(), 0);
    assert_eq!(ask(&client, "GET", "", "").await.0, 200, "the next one");
    assert_eq!(header(&apps[0], "weft-timeout"), None, "no timeout was set");
}

/// The peer proxy gives up a little sooner, so that its answer comes when the time is over
/// here as well.
#[tokio::test]
async fn expired_call_and_next_one_get_complete_responses() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let silent = App::new(server.ip, SILENCE).await;
    served_by(&client, &server, &[&silent]);
    let mut stream = client.call(vip()).await;
    for round in 0..60 {
        let request = "GET / HTTP/1.1\r\nHost: web.shop\r\nweft-timeout: 20ms\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        let answer = answer.unwrap_or_else(|what| panic!("round {round}: {what}"));
        assert!(
            answer.starts_with("HTTP/1.1 504"),
            "round {round}: {answer}"
        );
        assert!(
            answer.ends_with("the time of this request is over\n"),
            "{answer}"
        );
    }
}

/// The head of an answer that is no gRPC comes in the moment in which its call is over.
#[tokio::test]
async fn expired_grpc_call_gets_grpc_status_whatever_responds() {
    const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n";
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.read_u8().await.unwrap();
                stream.write_all(PAGE).await.unwrap();
                // The one thread of this test: a waiter sees head and timeout together.
                std::thread::sleep(Duration::from_millis(150));
                std::future::pending::<()>().await;
            });
        }
    });
    // By one proxy each: of two, one would tell it for both.
    let there = endpoint(server.ip, port, None);
    client.set(vec![endpoints("api", vec![there])]);
    let headers = format!("{GRPC}grpc-timeout: 100m\r\n");
    let outside = get(server.plain(port).await, "/", &headers).await;
    let refusals = [outside, ask(&client, "POST", &headers, "").await].map(|(status, answer)| {
        let code = answer.contains("grpc-status: 4");
        (status, code && answer.contains("weft-reason: deadline"))
    });
    assert_eq!(refusals, [(200, true); 2]);
    let (status, answer) = ask(&client, "POST", "weft-timeout: 100ms\r\n", "").await;
    assert_eq!(status, 504, "{answer}");
}

/// An application that receives more time than remains works on after its caller has left.
#[tokio::test]
async fn passed_timeout_is_what_remains_after_connecting() {
    let (client, server, apps) = fleet([OK]).await;
    server.late.store(1000, Relaxed);
    let (status, answer) = ask(&client, "GET", "weft-timeout: 9000ms\r\n", "").await;
    assert_eq!(status, 200, "{answer}");
    let timeout_header = header(&apps[0], "weft-timeout").unwrap();
    let timeout_header: u32 = timeout_header.strip_suffix("ms").unwrap().parse().unwrap();
    assert!(
        timeout_header <= 8000,
        "{timeout_header} ms, of which one second was over"
    );
}
