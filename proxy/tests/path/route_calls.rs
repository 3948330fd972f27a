//! Calls by the rules of routes: their times, retries and copies, the policies of the backend's own
//! port, and connections of bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::http_match::{Description, HttpMatch};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::edits::{Actions, RuleMirror, RuleRetry, RuleTimeouts};
use policy::route::{Backend, Forward, Match, Rule};
use policy::share::Share;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Timeouts;
use policy::traffic::endpoint::Breaker;
use policy::traffic::set::Percent;
use tokio::time::sleep;
use wire::v1::resource::Content;
use wire::v1::{self, Protocol};

use super::answers::{App, LATE, OK, SILENCE, UNAVAILABLE, ask, limited, policy_of, sum, whole};
use super::mirrors::{MIRRORED, echoed};
use super::routes::{PORT, below, route, serves, to_v2};
use super::tcp::echo;
use crate::support::{Pod, get, pair, resource, split, vip};

const SOON: Duration = Duration::from_secs(10);

/// A client whose calls go to the only endpoint of `v2`, which answers so.
async fn v2(answer: &'static str, actions: Actions) -> (Pod, Pod, App) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, answer).await;
    serves(&client, &server, ("v2", PORT), app.port);
    route(&client, Protocol::Http1, vec![below("/", to_v2(actions))]);
    (client, server, app)
}

fn times(request: Option<u64>, backend_request: Option<u64>) -> Actions {
    let timeouts = RuleTimeouts {
        request: request.map(Duration::from_millis),
        backend_request: backend_request.map(Duration::from_millis),
    };
    Actions {
        timeouts: Some(timeouts),
        ..Actions::default()
    }
}

fn retry(attempts: u8) -> Option<RuleRetry> {
    Some(RuleRetry {
        attempts,
        codes: vec![503],
        backoff: Some(Duration::from_millis(1)),
    })
}

#[tokio::test]
async fn rule_timeout_ends_call_with_504() {
    // One that limits attempts ends the last one too, and not only where no other end is near.
    for actions in [
        times(Some(1_000), None),
        times(None, Some(1_000)),
        times(Some(60_000), Some(1_000)),
    ] {
        let (client, _server, app) = v2(SILENCE, actions).await;
        let (status, answer) = ask(&client, "POST", "", "{}").await;
        assert_eq!(status, 504, "{answer}");
        assert!(answer.contains("weft-reason: deadline"), "{answer}");
        assert_eq!(app.request_count(), 1);
    }
}

#[tokio::test]
async fn zero_of_a_rule_lifts_the_policys_timeout() {
    let policy = policy_of(&EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_millis(50)),
            ..Timeouts::DEFAULT
        }),
        ..EffectivePolicy::default()
    });
    for (actions, status) in [(times(Some(0), None), 200), (Actions::default(), 504)] {
        let (client, _server, _app) = v2(LATE, actions).await;
        client.set(vec![policy.clone()]);
        let (found, answer) = ask(&client, "GET", "", "").await;
        assert_eq!(found, status, "{answer}");
    }
}

#[tokio::test]
async fn rule_retry_returns_to_the_only_endpoint() {
    let actions = Actions {
        retry: retry(3),
        ..Actions::default()
    };
    let (client, _server, app) = v2(UNAVAILABLE, actions).await;
    assert_eq!(ask(&client, "GET", "", "").await.0, 503);
    assert_eq!(app.request_count(), 4);
    assert_eq!(ask(&client, "POST", "", "{}").await.0, 503);
    assert_eq!(app.request_count(), 5, "it may not be sent twice");
    // A policy's retry goes elsewhere or nowhere.
    route(
        &client,
        Protocol::Http1,
        vec![below("/", to_v2(Actions::default()))],
    );
    assert_eq!(ask(&client, "GET", "", "").await.0, 503);
    assert_eq!(app.request_count(), 6);
}

#[tokio::test]
async fn rule_retry_follows_an_attempt_that_took_too_long() {
    for request in [None, Some(30_000)] {
        let actions = Actions {
            retry: retry(1),
            ..times(request, Some(1_000))
        };
        let (client, _server, app) = v2(SILENCE, actions).await;
        let (status, answer) = ask(&client, "GET", "", "").await;
        assert_eq!(status, 504, "{answer}");
        assert_eq!(app.request_count(), 2, "{request:?}");
    }
}

#[tokio::test]
async fn rule_copies_any_method_once_to_another_port() {
    let mirror = RuleMirror {
        service: ServiceId::new("shop", "copy"),
        port: 81,
        endpoints: wire::names::endpoints("shop", "copy", 81).into(),
        share: Share::ALL,
    };
    let itself = RuleMirror {
        service: ServiceId::new("shop", "v2"),
        port: PORT,
        endpoints: wire::names::endpoints("shop", "v2", PORT).into(),
        share: Share::ALL,
    };
    let actions = Actions {
        mirrors: vec![mirror.clone(), mirror, itself],
        ..Actions::default()
    };
    let (client, server, app) = v2(OK, actions).await;
    let copy = App::new(server.ip, OK).await;
    serves(&client, &server, ("copy", 81), copy.port);
    assert_eq!(ask(&client, "POST", "", "pay").await.0, 200);
    let started = Instant::now();
    let labels = ["mirror=\"shop/copy\"", "outcome=\"success\""];
    while sum(&client, MIRRORED, &labels) < 1.0 {
        assert!(started.elapsed() < SOON, "{}", client.metrics());
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(copy.bodies(), ["pay"]);
    assert!(
        copy.heads()[0].contains("weft-shadow: true"),
        "{:?}",
        copy.heads()
    );
    assert_eq!(app.request_count(), 1, "what serves gets no copy");
    assert_eq!(sum(&client, MIRRORED, &[]), 1.0, "{}", client.metrics());
}

/// A breaker that opens when all of ten calls have failed.
fn ten_failures() -> EffectivePolicy {
    EffectivePolicy {
        breaker: whole(Breaker {
            failure_percent: Percent::at_most(100),
            min_requests: 10,
            open_time: Duration::from_secs(60),
            ..Breaker::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

#[tokio::test]
async fn backend_has_policy_and_breaker_of_its_own_port() {
    let (client, _server, app) = v2(UNAVAILABLE, Actions::default()).await;
    let breaker = ten_failures();
    let set = |port| {
        let name = wire::names::policy("shop", "v2", port);
        let policy = wire::convert::policy_message(&breaker);
        client.set(vec![resource(&name, Content::Policy(policy))]);
    };
    set(80);
    for _ in 0..20 {
        ask(&client, "POST", "", "{}").await;
    }
    assert_eq!(app.request_count(), 20, "it is of another port");
    set(PORT);
    let mut refused = 0;
    for _ in 0..20 {
        let (_, answer) = ask(&client, "POST", "", "{}").await;
        refused += usize::from(answer.contains("weft-reason: circuit-open"));
    }
    assert_eq!((refused, app.request_count()), (10, 30));
}

/// Another port of `api`, whose calls go to the same port of `v2`.
fn beside(client: &Pod) -> SocketAddr {
    let addr = SocketAddr::new(vip().ip(), PORT);
    let mut to_v2 = split("s", &[("v2", 1)]);
    to_v2.backends[0].endpoints = wire::names::endpoints("shop", "v2", PORT);
    let key = wire::names::service("shop", "api", PORT);
    let service = v1::Service {
        namespace: "shop".into(),
        name: "api".into(),
        port: PORT.into(),
        protocol: Protocol::Http1 as i32,
        splits: vec![to_v2],
        endpoints: wire::names::endpoints("shop", "api", PORT),
        ..v1::Service::default()
    };
    let target = Some(v1::destination::Target::Service(key.clone()));
    let there = wire::names::destination(addr.ip(), addr.port());
    client.set(vec![
        resource(&there, Content::Destination(v1::Destination { target })),
        resource(&key, Content::Service(service)),
    ]);
    addr
}

#[tokio::test]
async fn breaker_of_called_port_counts_no_calls_of_another() {
    let (client, _server, app) = v2(UNAVAILABLE, Actions::default()).await;
    let other = beside(&client);
    for port in [80, PORT] {
        let name = wire::names::policy("shop", "api", port);
        let policy = wire::convert::policy_message(&ten_failures());
        client.set(vec![resource(&name, Content::Policy(policy))]);
    }
    for _ in 0..20 {
        ask(&client, "POST", "", "{}").await;
    }
    assert_eq!(app.request_count(), 10);
    let (status, answer) = get(client.call(other).await, "/", "").await;
    assert_eq!(status, 503, "{answer}");
    assert!(!answer.contains("weft-reason"), "{answer}");
}

/// Which of the two Services took a connection of bytes.
async fn greeting(client: &Pod) -> String {
    let mut answer = echoed(client, vip()).await;
    answer.truncate(3);
    answer
}

#[tokio::test]
async fn tcp_weights_decide_for_each_connection() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let mut backends = Vec::new();
    for (name, banner, weight) in [("one", "one", 3), ("two", "two", 1), ("off", "off", 0)] {
        let port = echo(&server, banner).await;
        serves(&client, &server, (name, 5432), port);
        let endpoints = wire::names::endpoints("shop", name, 5432);
        backends.push(Backend::new(
            ServiceId::new("shop", name),
            5432,
            weight,
            endpoints,
        ));
    }
    let rule = Rule {
        origin: Origin::new("TCPRoute.gateway.networking.k8s.io", "shop", "db"),
        when: Match::Always,
        then: Forward::split(backends),
    };
    route(&client, Protocol::Opaque, vec![rule]);
    let mut taken = [0; 2];
    for _ in 0..100 {
        match greeting(&client).await.as_str() {
            "one" => taken[0] += 1,
            "two" => taken[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    // 5 sigma of a binomial with n = 100, p = 0.25.
    assert!((4..=46).contains(&taken[1]), "{taken:?}");
    assert_eq!(taken[0] + taken[1], 100);
}

#[tokio::test]
async fn opaque_bytes_go_to_the_service_of_http_routes() {
    let (client, server, _, _) = pair(Protocol::Detect).await;
    let port = echo(&server, "api").await;
    client.reaches(&server, port);
    let every = HttpMatch::as_described("", Description::default());
    let rule = Rule {
        when: Match::AnyOf(vec![every]),
        ..below("/", to_v2(Actions::default()))
    };
    route(&client, Protocol::Detect, vec![rule]);
    assert_eq!(greeting(&client).await, "api");
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("weft-reason: no-endpoint"), "{answer}");
}

#[tokio::test]
async fn attempts_count_at_the_backend_of_each_rule() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    serves(&client, &server, ("v2", PORT), app.port);
    let shared = Arc::new(Actions::default());
    let again = Forward::split(vec![
        Backend::new(
            ServiceId::new("shop", "v2"),
            PORT,
            1,
            wire::names::endpoints("shop", "v2", PORT),
        )
        .with_actions(Some(shared)),
    ]);
    let rules = vec![below("/a", again), below("/", to_v2(Actions::default()))];
    route(&client, Protocol::Http1, rules);
    for path in ["/a/x", "/b"] {
        let stream = client.call(vip()).await;
        assert_eq!(get(stream, path, "").await.0, 200);
    }
    let labels = ["service=\"shop/api\"", "backend=\"shop/v2\""];
    assert_eq!(
        sum(&client, "weft_attempts_total", &labels),
        2.0,
        "{}",
        client.metrics()
    );
}
