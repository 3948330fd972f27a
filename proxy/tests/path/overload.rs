//! Overload protection: requests that a pod's proxy keeps from an application without room for
//! them.
//!
//! Claims: calls-69

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::http_match::HttpMatch;
use policy::route::Match;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Retry;
use policy::traffic::guard::{Overload, OverloadMode, Priority};
use policy::traffic::pod::{GuardPort, PodGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wire::v1::{self, Protocol};

use super::answers::{App, OK, SILENCE, ask, limited, policy_of, retries, served_by, sum, whole};
use super::deadlines::{PARTIAL_RESPONSE, SWITCHED};
use super::mirrors::header;
use crate::support::{Authority, Pod, endpoint, endpoints, get, pair, resource, service, vip};

const SHED: &str = "weft_shed_total";
const GRPC: &str = "content-type: application/grpc\r\n";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

pub(super) const fn cap(most: u32) -> Overload {
    Overload {
        max_concurrency: Some(most),
        ..Overload::DEFAULT
    }
}

pub(super) fn guard_port(overload: Overload) -> GuardPort {
    GuardPort {
        overload: whole(overload),
        ..GuardPort::default()
    }
}

pub(super) fn guard<const N: usize>(ports: [(u16, GuardPort); N]) -> v1::Resource {
    let guard = PodGuard {
        ports: BTreeMap::from(ports),
        read_only: None,
    };
    resource(
        wire::names::GUARD,
        v1::resource::Content::Guard((&guard).into()),
    )
}

fn of_class(class: &str) -> String {
    format!("priority=\"{class}\"")
}

/// Requests that were shed as this class.
fn shed(server: &Pod, class: Priority) -> f64 {
    sum(server, SHED, &[&of_class(class.as_str())])
}

async fn one(answer: &'static str) -> (Pod, Pod, App) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, answer).await;
    served_by(&client, &server, &[&app]);
    (client, server, app)
}

/// Requests that the application has, one after the other, and their callers' connections.
pub(super) async fn calls_in_flight(
    client: &Pod,
    app: &App,
    headers: &str,
    count: usize,
) -> Vec<TcpStream> {
    let mut callers = Vec::new();
    for _ in 0..count {
        let before = app.request_count();
        let mut stream = client.call(vip()).await;
        let request = format!("GET / HTTP/1.1\r\nHost: web.shop\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let started = Instant::now();
        while app.request_count() == before {
            assert!(started.elapsed() < Duration::from_secs(5), "it never came");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        callers.push(stream);
    }
    callers
}

#[tokio::test]
async fn request_beyond_application_capacity_gets_503_unseen() {
    let (client, server, app) = one(SILENCE).await;
    server.set(vec![guard([(app.port, guard_port(cap(2)))])]);
    let _held = calls_in_flight(&client, &app, "", 2).await;
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("weft-reason: overload"), "{answer}");
    assert!(answer.contains("TrafficPolicy shop/calls"), "{answer}");
    let (_, answer) = ask(&client, "POST", GRPC, "call").await;
    assert!(answer.contains("grpc-status: 14"), "{answer}");
    assert_eq!(app.request_count(), 2);
    let port = format!("port=\"{}\"", app.port);
    let normal = of_class("Normal");
    assert_eq!(sum(&server, SHED, &[&port, &normal]), 2.0);
    let labels = ["reason=\"overload\""];
    for pod in [&client, &server] {
        assert_eq!(sum(pod, "weft_requests_total", &labels), 2.0);
    }
    let failed = ["success=\"false\""];
    assert_eq!(sum(&client, "weft_attempts_total", &failed), 2.0);
    assert_eq!(sum(&client, "weft_ejections_total", &[]), 0.0);
    // Without another endpoint a move costs no retry.
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
    // Without the policy every request is admitted, whatever is in flight.
    server.replace(wire::names::GUARD, Vec::new());
    let _more = calls_in_flight(&client, &app, "", 2).await;
    assert_eq!(app.request_count(), 4);
}

#[tokio::test]
async fn request_or_upgrade_is_in_flight_until_response_head() {
    let (client, server, app) = one(PARTIAL_RESPONSE).await;
    server.set(vec![guard([(app.port, guard_port(cap(1)))])]);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = client.call(vip()).await;
        let request = b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        open.push(stream);
    }
    let (client, server, app) = one(SILENCE).await;
    server.set(vec![guard([(app.port, guard_port(cap(1)))])]);
    // An upgrade counts like any other request until its response.
    let _upgrade = calls_in_flight(&client, &app, WEBSOCKET, 1).await;
    assert_eq!(ask(&client, "GET", "", "").await.0, 503, "it is full");
    assert_eq!(ask(&client, "GET", WEBSOCKET, "").await.0, 503);
    assert_eq!(sum(&server, SHED, &[]), 2.0);
    let (client, server, app) = one(SWITCHED).await;
    server.set(vec![guard([(app.port, guard_port(cap(1)))])]);
    for _ in 0..3 {
        let mut stream = client.call(vip()).await;
        let request = format!("GET / HTTP/1.1\r\nHost: web.shop\r\n{WEBSOCKET}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        open.push(stream);
    }
}

#[tokio::test]
async fn audit_counts_what_it_would_shed_and_disabled_nothing() {
    for (mode, counted) in [(OverloadMode::Audit, 2.0), (OverloadMode::Off, 0.0)] {
        let (client, server, app) = one(SILENCE).await;
        let overload = Overload { mode, ..cap(1) };
        server.set(vec![guard([(app.port, guard_port(overload))])]);
        let _held = calls_in_flight(&client, &app, "", 3).await;
        assert_eq!(sum(&server, SHED, &[]), counted, "{mode:?}");
    }
}

/// The caller that occupies a full application.
type Other = (Pod, Vec<TcpStream>);

/// A client and two applications of a server: `full` has the one request that it may have,
/// of another client, so that this one knows nothing against it.
async fn beside_a_full_one(other: &'static str) -> (Pod, Pod, App, App, Other) {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let full = App::new(server.ip, SILENCE).await;
    let other = App::new(server.ip, other).await;
    let of_full = (full.port, guard_port(cap(1)));
    server.set(vec![guard([of_full, (other.port, guard_port(cap(1)))])]);
    let client = async || {
        let client = Pod::new(&authority, "web").await;
        client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        client
    };
    let first = client().await;
    served_by(&first, &server, &[&full]);
    let calls_in_flight = calls_in_flight(&first, &full, "", 1).await;
    let client = client().await;
    served_by(&client, &server, &[&full, &other]);
    (client, server, full, other, (first, calls_in_flight))
}

#[tokio::test]
async fn any_method_moves_to_endpoint_with_room() {
    let (client, server, full, other, _first) = beside_a_full_one(OK).await;
    let mut posts = 0;
    while sum(&server, SHED, &[]) == 0.0 {
        let (status, answer) = ask(&client, "POST", "", "pay 5").await;
        assert_eq!(status, 200, "{answer}");
        posts += 1;
        // What the first handshake took is forgotten within this time.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(posts < 500, "the full one must be asked");
    }
    assert_eq!((full.request_count(), other.request_count()), (1, posts));
    assert_eq!(other.bodies().last().unwrap(), "pay 5");
    assert_eq!(retries(&client, "success"), 1.0, "{}", client.metrics());
    assert_eq!(sum(&client, "weft_ejections_total", &[]), 0.0);
}

#[tokio::test]
async fn overload_move_is_single_and_needs_retry_budget() {
    let (client, server, full, other, _first) = beside_a_full_one(SILENCE).await;
    served_by(&client, &server, &[&other]);
    let _caller_of_other = calls_in_flight(&client, &other, "", 1).await;
    served_by(&client, &server, &[&full, &other]);
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("weft-reason: overload"), "{answer}");
    let classes = || {
        (
            shed(&server, Priority::Normal),
            shed(&server, Priority::Sheddable),
        )
    };
    assert_eq!(classes(), (1.0, 1.0), "a retry counts one class lower");
    assert_eq!(retries(&client, "failure"), 1.0);
    // One retry a second is outside the budget.
    ask(&client, "POST", "", "{}").await;
    assert_eq!(classes(), (2.0, 1.0));
    assert_eq!(retries(&client, "budget"), 1.0);
    let none = Retry {
        attempts: 0,
        ..Retry::DEFAULT
    };
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(none),
        ..EffectivePolicy::default()
    })]);
    ask(&client, "POST", "", "{}").await;
    assert_eq!(classes(), (3.0, 1.0));
    assert_eq!(retries(&client, "budget"), 1.0, "not asked for");
}

#[tokio::test]
async fn application_lowers_call_priority_but_outsiders_cannot() {
    use Priority::{Critical, Normal, Sheddable};
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let app = App::new(server.ip, SILENCE).await;
    let client = || async {
        let client = Pod::new(&authority, "web").await;
        client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        let there = endpoint(server.ip, app.port, Some("api"));
        client.set(vec![endpoints("api", vec![there])]);
        client
    };
    server.set(vec![guard([(app.port, guard_port(cap(1)))])]);
    let _held = calls_in_flight(&client().await, &app, "", 1).await;
    for (policy, header, class) in [
        (None, "", Normal),
        (None, "weft-priority: Sheddable\r\n", Sheddable),
        (None, "weft-priority: Critical\r\n", Normal),
        (None, "weft-attempt: 2\r\n", Normal),
        (Some(Critical), "", Critical),
        (Some(Critical), "weft-priority: Normal\r\n", Normal),
        (Some(Sheddable), "weft-priority: Normal\r\n", Sheddable),
    ] {
        let port_guard = GuardPort {
            priority: policy.map_or_else(|| GuardPort::default().priority, limited),
            ..guard_port(cap(1))
        };
        server.set(vec![guard([(app.port, port_guard)])]);
        let before = shed(&server, class);
        // One that no proxy of the mesh holds back.
        let (status, _) = ask(&client().await, "GET", header, "").await;
        assert_eq!(status, 503);
        assert_eq!(shed(&server, class), before + 1.0, "{policy:?} {header}");
    }
    for header in ["weft-priority: Sheddable\r\n", "weft-attempt: 2\r\n"] {
        let before = shed(&server, Sheddable);
        let port_guard = GuardPort {
            priority: limited(Critical),
            ..guard_port(cap(1))
        };
        server.set(vec![guard([(app.port, port_guard)])]);
        let critical = shed(&server, Critical);
        let (status, _) = get(server.plain(app.port).await, "/", header).await;
        assert_eq!(status, 503);
        assert_eq!(shed(&server, Sheddable), before, "{header}");
        assert_eq!(shed(&server, Critical), critical + 1.0, "{header}");
    }
}

#[tokio::test]
async fn calls_inherit_priority_without_own_overload_limit() {
    let authority = Authority::new();
    let pod = |account| Pod::new(&authority, account);
    let (client, server, next) = (pod("web").await, pod("api").await, pod("api").await);
    let app = App::new(server.ip, SILENCE).await;
    let full = App::new(next.ip, SILENCE).await;
    for (caller, called, app) in [(&client, &server, &app), (&server, &next, &full)] {
        caller.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        served_by(caller, called, &[app]);
    }
    next.set(vec![guard([(full.port, guard_port(cap(1)))])]);
    let _held = calls_in_flight(&server, &full, "", 1).await;
    let only_a_class = GuardPort {
        priority: limited(Priority::Sheddable),
        ..GuardPort::default()
    };
    server.set(vec![guard([(app.port, only_a_class)])]);
    for (headers, before) in [("", 0.0), (WEBSOCKET, 1.0)] {
        let _request = calls_in_flight(&client, &app, headers, 1).await;
        let head = app.heads().pop().unwrap();
        let name = header(&head, "weft-context").expect("there is something to take over");
        let context = format!("weft-context: {name}\r\n");
        assert_eq!(ask(&server, "GET", &context, "").await.0, 503);
        assert_eq!(shed(&next, Priority::Sheddable), before + 1.0, "{headers}");
    }
    assert_eq!(ask(&server, "GET", "", "").await.0, 503);
    assert_eq!(shed(&next, Priority::Normal), 1.0, "one of its own");
    assert_eq!(shed(&next, Priority::Sheddable), 2.0);
}

#[tokio::test]
async fn caller_sends_fewer_calls_of_shed_class_only() {
    let (client, server, app) = one(SILENCE).await;
    let pay = HttpMatch::new("pay", Some("/pay"), &["GET"], &[] as &[(&str, &str)]);
    let mut classes = GuardPort {
        priority: limited(Priority::Critical),
        ..guard_port(cap(1))
    };
    classes.priority.rules[0].when = Match::AnyOf(vec![pay.unwrap()]);
    client.set(vec![policy_of(&classes)]);
    server.set(vec![guard([(app.port, classes)])]);
    let _held = calls_in_flight(&client, &app, "", 1).await;
    let started = Instant::now();
    let mut calls = 0.0;
    while started.elapsed() < Duration::from_millis(7500) {
        assert_eq!(ask(&client, "GET", "", "").await.0, 503);
        calls += 1.0;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent = shed(&server, Priority::Normal);
    assert!(sent > 1.0 && sent < 0.8 * calls, "{sent} of {calls}");
    let labels = ["reason=\"overload\""];
    assert_eq!(sum(&client, "weft_requests_total", &labels), calls);
    // What was not sent is no attempt.
    assert_eq!(sum(&client, "weft_attempts_total", &[]), sent);
    let normal = ["priority=\"Normal\""];
    let held_back = sum(&client, "weft_throttled_total", &normal);
    assert_eq!(held_back, calls - sent);
    ask(&client, "GET", "weft-priority: Sheddable\r\n", "").await;
    assert_eq!(
        shed(&server, Priority::Sheddable),
        1.0,
        "the first of its class"
    );
    for _ in 0..5 {
        get(client.call(vip()).await, "/pay", "").await;
    }
    let critical = shed(&server, Priority::Critical);
    assert_eq!(critical, 5.0, "by the word of a policy too");
}

/// An application that serves so many requests at once, each in this time.
async fn working(ip: IpAddr, workers: usize, each: Duration) -> u16 {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let workers = Arc::new(Semaphore::new(workers));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(work(stream, Arc::clone(&workers), each));
        }
    });
    port
}

async fn work(mut stream: TcpStream, workers: Arc<Semaphore>, each: Duration) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.ok()?;
            bytes.extend_from_slice(&buffer[..count]);
            (count > 0).then_some(())?;
        }
        bytes.clear();
        let worker = workers.acquire().await.ok()?;
        tokio::time::sleep(each).await;
        drop(worker);
        stream.write_all(OK.as_bytes()).await.ok()?;
    }
}

/// So many GETs a second; how many were answered 200 within a second, and how many 503.
async fn load(client: &Arc<Pod>, per_second: u32, seconds: u32) -> (u32, u32) {
    let mut calls = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    for _ in 0..per_second * seconds {
        ticks.tick().await;
        let client = Arc::clone(client);
        calls.spawn(async move {
            let started = Instant::now();
            let (status, _) = ask(&client, "GET", "", "").await;
            (status, started.elapsed())
        });
    }
    let mut seen = (0, 0);
    while let Some(call) = calls.join_next().await {
        let (status, took) = call.unwrap();
        seen.0 += u32::from(status == 200 && took < Duration::from_secs(1));
        seen.1 += u32::from(status == 503);
    }
    seen
}

#[tokio::test]
async fn application_survives_triple_load_without_shedding_at_half() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    // Fifty a second.
    let port = working(server.ip, 4, Duration::from_millis(80)).await;
    server.set(vec![guard([(port, guard_port(Overload::DEFAULT))])]);
    let client = || async {
        let client = Pod::new(&authority, "web").await;
        client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        client.reaches(&server, port);
        Arc::new(client)
    };
    let caller = client().await;
    assert_eq!(load(&caller, 25, 2).await, (50, 0), "calm");
    let (good, refused) = load(&caller, 150, 5).await;
    assert!(good >= 150 && refused >= 200, "{good} {refused}");
    let shed = sum(&server, SHED, &[]);
    assert!(shed > 0.0, "{}", server.metrics());
    let limit = server.metrics();
    assert!(limit.contains("weft_overload_limit{port="), "{limit}");
    // A caller that held nothing back before.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(load(&client().await, 25, 2).await, (50, 0), "it is over");
    assert_eq!(sum(&server, SHED, &[]), shed);
    // Callers may hold back by themselves for ten seconds.
    assert!(sum(&server, "weft_overload_limit", &[]) > 0.0);
}

#[tokio::test]
async fn disabled_overload_policy_reports_no_limit() {
    const LIMIT: &str = "weft_overload_limit";
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let port = working(server.ip, 4, Duration::from_millis(80)).await;
    server.set(vec![guard([(port, guard_port(Overload::DEFAULT))])]);
    client.reaches(&server, port);
    let client = Arc::new(client);
    // Calm, which is what it is compared with.
    load(&client, 25, 2).await;
    let caller = Arc::clone(&client);
    let beyond = tokio::spawn(async move { load(&caller, 150, 5).await });
    let started = Instant::now();
    while sum(&server, LIMIT, &[]) == 0.0 {
        assert!(started.elapsed() < Duration::from_secs(10), "it is limited");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.replace(wire::names::GUARD, Vec::new());
    assert_eq!(sum(&server, LIMIT, &[]), 0.0, "{}", server.metrics());
    beyond.await.unwrap();
    assert_eq!(sum(&server, LIMIT, &[]), 0.0, "{}", server.metrics());
}
