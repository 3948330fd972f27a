//! Limits that the called pod's proxy enforces.
//!
//! Claims: calls-59, calls-71

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use policy::access::Source;
use policy::http_match::HttpMatch;
use policy::origin::Origin;
use policy::route::{Match, Rule, Table};
use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, RateLimit};
use policy::traffic::pod::{GuardPort, PodGuard};
use policy::traffic::{Scoped, Sources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::{self, Protocol};

use super::answers::{App, OK, ask, served_by, sum};
use crate::support::{
    Authority, Pod, endpoint, endpoints, get, id, listening, pair, resource, service, vip,
    workload_of_bytes,
};

const LIMITED: &str = "weft_rate_limited_total";

pub(super) fn limit(name: &str, requests: u32) -> RateLimit {
    RateLimit {
        name: name.into(),
        requests,
        // So long that no token comes back while a test runs.
        per: Duration::from_secs(3600),
        burst: requests,
        key: LimitKey::None,
        scope: LimitScope::Instance,
        mode: LimitMode::Enforce,
    }
}

pub(super) fn rule(limit: RateLimit) -> Rule<Option<Scoped<Arc<RateLimit>>>> {
    Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p").rule(&limit.name),
        when: Match::Always,
        then: Some(Scoped {
            sources: Sources::Everyone,
            section: Arc::new(limit),
        }),
    }
}

pub(super) fn guard(port: u16, rules: Vec<Rule<Option<Scoped<Arc<RateLimit>>>>>) -> v1::Resource {
    guarded(port, limits(rules))
}

fn limits(rules: Vec<Rule<Option<Scoped<Arc<RateLimit>>>>>) -> GuardPort {
    GuardPort {
        rate_limits: Table {
            rules,
            otherwise: None,
        },
        ..GuardPort::default()
    }
}

/// What policies say of requests to this port, for its pod.
pub(super) fn guarded(port: u16, port_guard: GuardPort) -> v1::Resource {
    guards([(port, port_guard)])
}

fn guards<const N: usize>(ports: [(u16, GuardPort); N]) -> v1::Resource {
    let guard = PodGuard {
        ports: BTreeMap::from(ports),
        read_only: None,
    };
    resource(
        wire::names::GUARD,
        v1::resource::Content::Guard((&guard).into()),
    )
}

async fn one() -> (Pod, Pod, App) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    served_by(&client, &server, &[&app]);
    (client, server, app)
}

#[tokio::test]
async fn requests_beyond_limit_get_429_unseen_and_unretried() {
    let (client, server, app) = one().await;
    server.set(vec![guard(app.port, vec![rule(limit("all", 3))])]);
    for _ in 0..3 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 200);
    }
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 429, "{answer}");
    assert!(answer.contains("weft-reason: limit"), "{answer}");
    assert!(answer.contains("retry-after: 1200"), "{answer}");
    let grpc = "content-type: application/grpc\r\n";
    let (_, answer) = ask(&client, "POST", grpc, "call").await;
    assert!(answer.contains("grpc-status: 8"), "{answer}");
    assert!(answer.contains("grpc-retry-pushback-ms: "), "{answer}");
    assert_eq!(app.request_count(), 3);
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
    let failed = ["success=\"false\""];
    assert_eq!(sum(&client, "weft_attempts_total", &failed), 0.0);
    assert_eq!(sum(&client, "weft_requests_total", &failed), 2.0);
    let labels = ["policy=\"shop/p\"", "limit=\"all\"", "mode=\"Enforce\""];
    assert_eq!(sum(&server, LIMITED, &labels), 2.0, "{}", server.metrics());
    // Without the policy all is as before.
    server.replace(wire::names::GUARD, Vec::new());
    assert_eq!(ask(&client, "GET", "", "").await.0, 200);
}

/// Callers of these names, the pod that they call, and its application.
async fn called_by<const N: usize>(names: [&str; N]) -> (Vec<Pod>, Pod, App) {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let app = App::new(server.ip, OK).await;
    let mut clients = Vec::new();
    for name in names {
        let client = Pod::new(&authority, name).await;
        client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        let one = endpoint(server.ip, app.port, Some("api"));
        client.set(vec![endpoints("api", vec![one])]);
        clients.push(client);
    }
    (clients, server, app)
}

/// How often these users of a caller were served, one request each, and the last answer.
async fn users(client: &Pod, users: std::ops::Range<usize>) -> (usize, String) {
    let (mut served, mut last) = (0, String::new());
    for user in users {
        let header = format!("x-user: user-{user}\r\n");
        let (status, answer) = ask(client, "GET", &header, "").await;
        served += usize::from(status == 200);
        last = answer;
    }
    (served, last)
}

#[tokio::test]
async fn invented_users_gain_nothing_harm_none_and_get_reason() {
    let (clients, server, app) = called_by(["greedy", "honest", "late"]).await;
    let [greedy, honest, late] = &clients[..] else {
        panic!("three callers");
    };
    let by_user = |name: &str| {
        rule(RateLimit {
            key: LimitKey::Header(http::HeaderName::from_static("x-user")),
            ..limit(name, 2)
        })
    };
    // Limits of another port leave this one few of the places that they share.
    let elsewhere = (0..400).map(|number| by_user(&format!("limit-{number}")));
    let keys_of_each = policy::limit::keys_of_each(401);
    server.set(vec![guards([
        (1, limits(elsewhere.collect())),
        (app.port, limits(vec![by_user("each")])),
    ])]);
    let reached = "is reached; a token is there";
    for (expected, expected_answer) in [(1, "200 OK"), (1, "200 OK"), (0, reached)] {
        let (served, answer) = users(greedy, 0..1).await;
        assert_eq!(served, expected);
        assert!(answer.contains(expected_answer), "{answer}");
    }
    assert_eq!(users(honest, 0..5).await.0, 5);
    let keys = ["limit=\"rate-limit-keys\""];
    assert_eq!(sum(&server, "weft_limit_reached_total", &keys), 0.0);

    let (served, answer) = users(greedy, 1..301).await;
    assert!(
        (keys_of_each..=2 * keys_of_each).contains(&served),
        "{served} of {keys_of_each}"
    );
    assert!(
        answer.contains("more keys than it has places for"),
        "{answer}"
    );
    assert!(answer.contains("weft-reason: limit"), "{answer}");
    assert!(sum(&server, "weft_limit_reached_total", &keys) > 0.0);
    assert_eq!(
        users(greedy, 0..1).await.0,
        0,
        "he has not forgotten himself"
    );

    for (caller, asking, expected) in [(honest, 0..5, 5), (honest, 5..10, 5), (late, 0..10, 10)] {
        assert_eq!(users(caller, asking).await.0, expected);
    }
    let (served, answer) = users(honest, 0..1).await;
    assert_eq!(served, 0);
    assert!(answer.contains(reached), "{answer}");
}

#[tokio::test]
async fn callers_have_own_buckets_and_outsiders_share_one() {
    let (clients, server, app) = called_by(["greedy", "honest"]).await;
    let [greedy, honest] = &clients[..] else {
        panic!("two callers");
    };
    let each = RateLimit {
        key: LimitKey::Caller,
        ..limit("each", 2)
    };
    server.set(vec![guard(app.port, vec![rule(each)])]);
    for expected in [200, 200, 429, 429] {
        assert_eq!(ask(greedy, "GET", "", "").await.0, expected);
    }
    assert_eq!(ask(honest, "GET", "", "").await.0, 200, "unharmed");
    for expected in [200, 200, 429] {
        let stream = server.plain(app.port).await;
        assert_eq!(get(stream, "/", "").await.0, expected);
    }
    assert_eq!(ask(honest, "GET", "", "").await.0, 200);
}

#[tokio::test]
async fn limit_applies_per_route_and_source_without_charging_refusals() {
    let (client, server, app) = one().await;
    let mut reads = rule(limit("reads", 1));
    reads.when = Match::AnyOf(vec![
        HttpMatch::new("reads", None, &["GET"], &[] as &[(&str, &str)]).unwrap(),
    ]);
    let mut others = rule(limit("others", 1));
    others.then.as_mut().unwrap().sources = Sources::Only(vec![Source::Identity(id("absent"))]);
    let both = rule(limit("both", 3));
    server.set(vec![guard(app.port, vec![reads, others, both])]);
    assert_eq!(ask(&client, "GET", "", "").await.0, 200);
    // Refused by one limit, it takes nothing of the other.
    for _ in 0..5 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 429);
    }
    for expected in [200, 200, 429] {
        assert_eq!(ask(&client, "POST", "", "{}").await.0, expected);
    }
    assert_eq!(app.request_count(), 3);
}

#[tokio::test]
async fn audit_counts_and_lets_through() {
    let (client, server, app) = one().await;
    let audit = RateLimit {
        mode: LimitMode::Audit,
        ..limit("soon", 1)
    };
    server.set(vec![guard(app.port, vec![rule(audit)])]);
    for _ in 0..4 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 200);
    }
    assert_eq!(sum(&server, LIMITED, &["mode=\"Audit\""]), 3.0);
}

/// Sends the first line of each connection back, and counts them.
fn echoing(listener: TcpListener) -> Arc<AtomicUsize> {
    let accepted = Arc::new(AtomicUsize::new(0));
    let log = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            log.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                let mut line = [0; 6];
                let _ = stream.read_exact(&mut line).await;
                let _ = stream.write_all(&line).await;
            });
        }
    });
    accepted
}

/// How many of four connections of opaque bytes are answered.
async fn answered(client: &Pod) -> usize {
    let mut answered = 0;
    for _ in 0..4 {
        let mut stream = client.call(vip()).await;
        let sent = stream.write_all(b"hello\n").await;
        let mut buffer = [0; 6];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await;
        let came = sent.is_ok() && matches!(read, Ok(Ok(count)) if count > 0);
        answered += usize::from(came);
    }
    answered
}

#[tokio::test]
async fn opaque_connections_count_once_and_close_beyond_limit() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let listener = listening(&client, &server).await;
    let port = listener.local_addr().unwrap().port();
    echoing(listener);
    server.set(vec![guard(port, vec![rule(limit("few", 2))])]);
    assert_eq!(answered(&client).await, 2, "{}", server.metrics());
    assert_eq!(sum(&server, LIMITED, &["mode=\"Enforce\""]), 2.0);
}

#[tokio::test]
async fn declared_opaque_bytes_are_decided_once_before_connecting() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let listener = listening(&client, &server).await;
    let port = listener.local_addr().unwrap().port();
    let accepted = echoing(listener);
    server.set(vec![
        workload_of_bytes("api", port),
        guard(port, vec![rule(limit("few", 2))]),
    ]);
    assert_eq!(answered(&client).await, 2, "{}", server.metrics());
    assert_eq!(accepted.load(Relaxed), 2, "no other connection is accepted");
    // Both sides know why, and each refusal is one.
    for (pod, side) in [(&client, "outbound"), (&server, "inbound")] {
        let side = format!("direction=\"{side}\"");
        let labels = [&*side, "reason=\"limit\""];
        let refused = sum(pod, "weft_tcp_connections_total", &labels);
        assert_eq!(refused, 2.0, "{}", pod.metrics());
    }
    // A limit is no failure of the backend.
    let failed = sum(&client, "weft_attempts_total", &["success=\"false\""]);
    assert_eq!(failed, 0.0, "{}", client.metrics());
    assert_eq!(sum(&server, LIMITED, &["mode=\"Enforce\""]), 2.0);
}
