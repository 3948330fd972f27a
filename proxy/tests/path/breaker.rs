//! The breaker of a Service: when most calls fail, the proxy sends it nothing for a while.
//!
//! Claims: calls-2, calls-67

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use http_body_util::BodyExt;
use policy::name::ServiceId;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Cause, Causes, Fallback, FallbackTo, Retry, Timeouts};
use policy::traffic::endpoint::{Breaker, BreakerState};
use policy::traffic::set::Percent;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use wire::v1::{self, Protocol};

use super::answers::{
    App, LATER, OK, SILENCE, UNAVAILABLE, ask, limited, policy_of, served_by, sum, whole,
};
use super::ejection::grpc_app;
use super::shown::{Does, call, grpc, requests, serve};
use crate::support::{
    Pod, endpoint, endpoints, listening, pair, raw, resource, service, split, vip,
};

const STATE: &str = "weft_breaker_state";
const REQUESTS: &str = "weft_requests_total";
const ATTEMPTS: &str = "weft_attempts_total";
const OPEN: &str = "weft-reason: circuit-open";
const GRPC: &str = "content-type: application/grpc\r\n";

/// Opens when all of ten calls have failed.
const TEN: Breaker = Breaker {
    failure_percent: Percent::at_most(100),
    min_requests: 10,
    open_time: Duration::from_secs(60),
    ..Breaker::DEFAULT
};

fn breaker(breaker: Breaker) -> EffectivePolicy {
    EffectivePolicy {
        breaker: whole(breaker),
        ..EffectivePolicy::default()
    }
}

fn traffic_policy(name: &str, traffic: &EffectivePolicy) -> v1::Resource {
    resource(
        &wire::names::policy("shop", name, 80),
        v1::resource::Content::Policy(wire::convert::policy_message(traffic)),
    )
}

async fn one(answer: &'static str) -> (Pod, Pod, App) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, answer).await;
    served_by(&client, &server, &[&app]);
    (client, server, app)
}

async fn post(client: &Pod, times: usize) {
    for _ in 0..times {
        ask(client, "POST", "", "{}").await;
    }
}

#[tokio::test]
async fn ten_failures_open_breaker_with_503_for_one_backend() {
    let (client, server, app) = one(UNAVAILABLE).await;
    client.set(vec![policy_of(&breaker(TEN))]);
    post(&client, 9).await;
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 503);
    assert!(!answer.contains("weft-reason"), "the application's own");
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains(OPEN), "{answer}");
    assert!(answer.contains("TrafficPolicy shop/calls"), "{answer}");
    let (_, answer) = ask(&client, "POST", GRPC, "call").await;
    assert!(answer.contains("grpc-status: 14"), "{answer}");
    assert_eq!(app.request_count(), 10);
    let labels = ["service=\"shop/api\"", "backend=\"shop/api\""];
    assert_eq!(sum(&client, STATE, &labels), 2.0, "{}", client.metrics());
    let open = ["reason=\"circuit-open\""];
    assert_eq!(sum(&client, REQUESTS, &open), 2.0);
    assert_eq!(sum(&client, ATTEMPTS, &[]), 10.0, "these were none");
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
    // Another Service is called as before, and a policy that goes takes the breaker with it.
    let other = App::new(server.ip, OK).await;
    let there = endpoint(server.ip, other.port, Some("api"));
    client.set(vec![endpoints("v2", vec![there])]);
    let splits = vec![split("s", &[("v2", 1)])];
    client.set(service("api", vip().ip(), Protocol::Http1, splits));
    assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    assert!(ask(&client, "POST", "", "{}").await.1.contains(OPEN));
    client.replace(&wire::names::policy("shop", "api", 80), Vec::new());
    post(&client, 3).await;
    assert_eq!(app.request_count(), 13);
}

/// Opens when all of ten calls have taken 200 ms, which have two seconds.
fn hasty() -> EffectivePolicy {
    EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_secs(2)),
            backend_request: Some(Duration::from_millis(200)),
            ..Timeouts::DEFAULT
        }),
        ..breaker(TEN)
    }
}

#[tokio::test]
async fn unanswered_calls_open_breaker_while_still_waiting() {
    let (client, _server, app) = one(SILENCE).await;
    client.set(vec![policy_of(&hasty())]);
    let posts = join_all((0..10).map(|_| ask(&client, "POST", "", "{}")));
    let next = async {
        sleep(Duration::from_millis(1000)).await;
        ask(&client, "POST", "", "{}").await
    };
    let (posts, (status, answer)) = tokio::join!(posts, next);
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains(OPEN), "{answer}");
    assert!(posts.iter().all(|(status, _)| *status == 504));
    assert_eq!(app.request_count(), 10);
}

/// As successes, nine late answers would keep it closed.
#[tokio::test]
async fn late_response_is_one_breaker_failure_not_success() {
    let (client, _server, app) = one(LATER).await;
    client.set(vec![policy_of(&hasty())]);
    for posts in [9, 1] {
        let answers = join_all((0..posts).map(|_| ask(&client, "POST", "", "{}"))).await;
        assert!(
            answers.iter().all(|(status, _)| *status == 200),
            "{answers:?}"
        );
    }
    assert_eq!(app.request_count(), 10, "nine did not open it");
    let (_, answer) = ask(&client, "POST", "", "{}").await;
    assert!(answer.contains(OPEN), "{answer}");
}

#[tokio::test]
async fn breaker_stays_closed_without_policy_or_enough_failures() {
    let (client, server, bad) = one(UNAVAILABLE).await;
    post(&client, 100).await;
    assert_eq!(bad.request_count(), 100);
    let good = App::new(server.ip, OK).await;
    client.set(vec![policy_of(&breaker(TEN))]);
    post(&client, 9).await;
    served_by(&client, &server, &[&good]);
    post(&client, 1).await;
    served_by(&client, &server, &[&bad]);
    post(&client, 50).await;
    assert_eq!(bad.request_count(), 159, "not all of them failed");
    assert_eq!(sum(&client, STATE, &[]), 0.0);
}

#[tokio::test]
async fn a_probe_is_sent_once_whatever_retries_are_allowed() {
    let (client, server, app) = one(UNAVAILABLE).await;
    let other = App::new(server.ip, UNAVAILABLE).await;
    served_by(&client, &server, &[&app, &other]);
    let request_count = || app.request_count() + other.request_count();
    let quick = Breaker {
        open_time: Duration::from_secs(1),
        ..TEN
    };
    let all = Retry {
        attempts: 1,
        ..Retry::DEFAULT
    };
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(all),
        ..breaker(quick)
    })]);
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(), 2, "control: it is tried again");
    post(&client, 8).await;
    assert!(ask(&client, "POST", "", "{}").await.1.contains(OPEN));
    // As long as the one retry outside the budget takes to come back.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 503);
    assert!(!answer.contains("weft-reason"), "it was sent: {answer}");
    assert_eq!(request_count(), 11);
    assert!(ask(&client, "GET", "", "").await.1.contains(OPEN), "one");
    assert_eq!(request_count(), 11);
}

#[tokio::test]
async fn unconnected_probe_is_not_sent_elsewhere() {
    let (client, server, _app) = one(UNAVAILABLE).await;
    let mut closed = Vec::new();
    for _ in 0..3 {
        closed.push(TcpListener::bind((server.ip, 0)).await.unwrap());
    }
    let ports = closed.iter().map(|one| one.local_addr().unwrap().port());
    let dead = ports.map(|port| endpoint(server.ip, port, None)).collect();
    drop(closed);
    client.set(vec![endpoints("api", dead)]);
    let quick = Breaker {
        open_time: Duration::from_secs(1),
        ..TEN
    };
    client.set(vec![policy_of(&breaker(quick))]);
    post(&client, 1).await;
    assert_eq!(sum(&client, ATTEMPTS, &[]), 3.0, "control: it is moved on");
    post(&client, 3).await;
    assert!(ask(&client, "POST", "", "{}").await.1.contains(OPEN));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = sum(&client, ATTEMPTS, &[]);
    let (_, answer) = ask(&client, "POST", "", "{}").await;
    assert!(answer.contains("weft-reason: connect-failed"), "{answer}");
    assert_eq!(sum(&client, ATTEMPTS, &[]), before + 1.0);
}

#[tokio::test]
async fn forced_breaker_state_overrides_measured_failures() {
    let (client, _server, app) = one(OK).await;
    let with = |state| Breaker { state, ..TEN };
    client.set(vec![policy_of(&breaker(with(BreakerState::Open)))]);
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains(OPEN), "{answer}");
    assert_eq!(app.request_count(), 0);
    assert_eq!(sum(&client, STATE, &[]), 2.0);
    client.set(vec![policy_of(&breaker(with(BreakerState::Auto)))]);
    assert_eq!(ask(&client, "GET", "", "").await.0, 200);
    assert_eq!(sum(&client, STATE, &[]), 0.0);
    let (client, _server, app) = one(UNAVAILABLE).await;
    client.set(vec![policy_of(&breaker(with(BreakerState::Closed)))]);
    post(&client, 40).await;
    assert_eq!(app.request_count(), 40);
}

#[tokio::test]
async fn open_breaker_uses_fallback_for_every_method() {
    let (client, server, app) = one(UNAVAILABLE).await;
    let spare = App::new(server.ip, OK).await;
    let there = endpoint(server.ip, spare.port, Some("api"));
    client.set(vec![endpoints("spare", vec![there])]);
    client.set(vec![policy_of(&EffectivePolicy {
        fallback: limited(Arc::new(Fallback {
            to: FallbackTo::Service(ServiceId::new("shop", "spare")),
            on: Causes::of(&[Cause::CircuitOpen]),
        })),
        ..breaker(TEN)
    })]);
    post(&client, 10).await;
    assert_eq!(spare.request_count(), 0);
    for headers in ["", GRPC] {
        let (status, answer) = ask(&client, "POST", headers, "pay 5").await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("weft-degraded: shop/spare"), "{answer}");
    }
    assert_eq!((app.request_count(), spare.request_count()), (10, 2));
    let labels = ["when=\"CircuitOpen\"", "outcome=\"success\""];
    assert_eq!(sum(&client, "weft_fallbacks_total", &labels), 2.0);
    // The other Service may have a breaker of its own.
    let open = Breaker {
        state: BreakerState::Open,
        ..TEN
    };
    client.set(vec![traffic_policy("spare", &breaker(open))]);
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 503);
    assert!(answer.contains(OPEN), "{answer}");
    assert_eq!(spare.request_count(), 2);
}

/// `api` is split to `v1` and `v2`, which answer so.
async fn splits(answers: [&'static str; 2]) -> (Pod, Pod, [App; 2]) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let [v1, v2] = answers;
    let apps = [App::new(server.ip, v1).await, App::new(server.ip, v2).await];
    for (name, app) in ["v1", "v2"].into_iter().zip(&apps) {
        let there = endpoint(server.ip, app.port, Some("api"));
        client.set(vec![endpoints(name, vec![there])]);
    }
    let both = vec![split("s", &[("v1", 1), ("v2", 1)])];
    client.set(service("api", vip().ip(), Protocol::Http1, both));
    (client, server, apps)
}

#[tokio::test]
async fn split_backends_have_own_breakers_and_prevailing_policies() {
    let (client, _server, apps) = splits([UNAVAILABLE, OK]).await;
    client.set(vec![policy_of(&breaker(TEN))]);
    let [bad, good] = &apps;
    let mut open = 0;
    for _ in 0..100 {
        let (_, answer) = ask(&client, "POST", "", "{}").await;
        open += usize::from(answer.contains(OPEN));
    }
    assert_eq!(bad.request_count(), 10);
    assert_eq!(good.request_count() + open, 90);
    assert!(
        good.request_count() > 20 && open > 5,
        "a share stays a share"
    );
    let labels = ["service=\"shop/api\"", "backend=\"shop/v1\""];
    assert_eq!(sum(&client, STATE, &labels), 2.0);
    let closed = Breaker {
        state: BreakerState::Closed,
        ..TEN
    };
    client.set(vec![traffic_policy("v1", &breaker(closed))]);
    post(&client, 40).await;
    assert!(bad.request_count() > 10, "its own policy says so");
}

#[tokio::test]
async fn failed_opaque_connections_open_breaker_for_further_ones() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let closed = TcpListener::bind((server.ip, 0)).await.unwrap();
    client.reaches(&server, closed.local_addr().unwrap().port());
    drop(closed);
    client.set(vec![policy_of(&breaker(TEN))]);
    let counted = |reason: &str| {
        let reason = format!("reason=\"{reason}\"");
        sum(&client, "weft_tcp_connections_total", &[&reason])
    };
    for _ in 0..12 {
        let mut stream = client.call(vip()).await;
        raw(&mut stream, b"\0", Duration::from_secs(5)).await;
    }
    assert_eq!(counted("connect-failed"), 10.0, "{}", client.metrics());
    assert_eq!(counted("circuit-open"), 2.0, "{}", client.metrics());
}

#[tokio::test]
async fn what_grpc_says_in_trailers_opens_it_too() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    client.set(vec![policy_of(&breaker(TEN))]);
    for (status, sent) in [("0", 15), ("14", 10)] {
        let (port, request_count) = grpc_app(&server, &[("grpc-status", status)]).await;
        let name = format!("g{status}");
        let there = endpoint(server.ip, port, Some("api"));
        client.set(vec![endpoints(&name, vec![there])]);
        let splits = vec![split("s", &[(&name, 1)])];
        client.set(service("api", vip().ip(), Protocol::Http2, splits));
        let mut sender = grpc(&client).await;
        for _ in 0..15 {
            let answer = sender.send_request(call()).await.unwrap();
            answer.into_body().collect().await.unwrap();
        }
        assert_eq!(request_count.load(Relaxed), sent, "{status}");
    }
}

/// Streams that end when their server does say nothing of the one that comes after it.
#[tokio::test]
async fn long_streams_ending_with_server_fail_no_breaker() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    client.set(vec![policy_of(&breaker(TEN))]);
    let listener = listening(&client, &server).await;
    let app = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(requests(stream, Does::Streams, Arc::default()));
        }
    });
    let mut sender = grpc(&client).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(sender.send_request(call()).await.unwrap());
    }
    sleep(Duration::from_millis(1500)).await;
    app.abort();
    for stream in open {
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.into_body().collect());
        let _how = ended.await.expect("its server is gone");
    }
    let next = serve(listening(&client, &server).await, Does::Streams);
    let answer = sender.send_request(call()).await.unwrap();
    assert!(!answer.headers().contains_key("weft-reason"), "{answer:?}");
    assert_eq!(next.load(Relaxed), 1);
    assert_eq!(sum(&client, STATE, &[]), 0.0, "{}", client.metrics());
}

#[tokio::test]
async fn probes_that_are_streams_close_it_without_an_end() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let quick = Breaker {
        open_time: Duration::from_secs(1),
        ..TEN
    };
    client.set(vec![policy_of(&breaker(quick))]);
    let (port, _) = grpc_app(&server, &[("grpc-status", "14")]).await;
    client.reaches(&server, port);
    let mut sender = grpc(&client).await;
    for _ in 0..10 {
        let answer = sender.send_request(call()).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(sum(&client, STATE, &[]), 2.0, "{}", client.metrics());
    let _asked = serve(listening(&client, &server).await, Does::Streams);
    let mut open = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    while sum(&client, STATE, &[]) == 2.0 {
        open.push(sender.send_request(call()).await.unwrap());
        assert!(Instant::now() < until, "all of them work");
        sleep(Duration::from_millis(100)).await;
    }
}

/// As clients open some ahead of what they will ask, and others to see whether they can.
#[tokio::test]
async fn silent_connections_are_no_breaker_successes() {
    let (client, server, _, _) = pair(Protocol::Detect).await;
    let app = App::new(server.ip, UNAVAILABLE).await;
    served_by(&client, &server, &[&app]);
    client.set(vec![policy_of(&breaker(TEN))]);
    post(&client, 9).await;
    let before = app.ended();
    let silent = client.call(vip()).await;
    sleep(Duration::from_millis(500)).await;
    drop(silent);
    let until = Instant::now() + Duration::from_secs(10);
    while app.ended() == before {
        assert!(Instant::now() < until, "it was led to the application");
        sleep(Duration::from_millis(10)).await;
    }
    post(&client, 1).await;
    let (_, answer) = ask(&client, "POST", "", "{}").await;
    assert!(answer.contains(OPEN), "ten of ten have failed: {answer}");
    assert_eq!(app.request_count(), 10);
}

/// An open connection then shows nothing of the Service's present state.
#[tokio::test]
async fn preopened_connection_does_not_probe_opened_breaker() {
    let (client, server, _, _) = pair(Protocol::Detect).await;
    let quick = Breaker {
        open_time: Duration::from_secs(1),
        ..TEN
    };
    client.set(vec![policy_of(&breaker(quick))]);
    let listener = listening(&client, &server).await;
    let mut silent = client.call(vip()).await;
    let _opened_ahead = listener.accept().await.unwrap();
    let app = App::on(listener, UNAVAILABLE);
    post(&client, 10).await;
    assert_eq!(sum(&client, STATE, &[]), 2.0, "{}", client.metrics());
    sleep(Duration::from_millis(1100)).await;
    raw(&mut silent, b"\0", Duration::from_secs(5)).await;
    let refused = ["reason=\"circuit-open\""];
    let connections = sum(&client, "weft_tcp_connections_total", &refused);
    assert_eq!(connections, 1.0, "{}", client.metrics());
    // Nor has it taken the place of one.
    let (_, answer) = ask(&client, "POST", "", "{}").await;
    assert!(!answer.contains(OPEN), "{answer}");
    assert_eq!(app.request_count(), 11);
}
