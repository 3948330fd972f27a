//! Mirroring: which Services get copies, what copies cost other callers, and what the receivers
//! may do.
//!
//! Claims: calls-53

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::name::ServiceId;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Downstream, Mirror};
use policy::traffic::set::{Methods, Percent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::v1::{self, Protocol};

use super::answers::{
    App, NOTHING, OK, SILENCE, UNAVAILABLE, ask, limited, policy_of, served_by, sum,
};
use super::deadlines::SWITCHED;
use crate::support::{
    Authority, Pod, endpoint, endpoints, get, http_app, raw, resource, service, split, tracing, vip,
};

pub(super) const MIRRORED: &str = "weft_mirrored_total";
const REQUESTS: &str = "weft_requests_total";
const ATTEMPTS: &str = "weft_attempts_total";
const TRACE: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

/// `api`, and a Service `next` in a pod of its own that may get copies.
pub(super) struct Shop {
    pub(super) client: Pod,
    pub(super) server: Pod,
    pub(super) shadow: Pod,
    pub(super) api: App,
    pub(super) next: App,
}

pub(super) fn mirror() -> Mirror {
    Mirror {
        service: ServiceId::new("shop", "next"),
        percent: Percent::ALL,
        methods: Methods::SAFE,
        downstream: Downstream::ReadOnly,
        allow_tcp: Vec::new(),
    }
}

/// The pod gets nothing but copies, and may open connections to these.
pub(super) fn restrict_to_read_only(pod: &Pod, allow_tcp: &[(&str, u32)]) {
    let allow_tcp = allow_tcp.iter().map(|(service, port)| v1::TcpTarget {
        namespace: "shop".into(),
        name: (*service).into(),
        port: *port,
    });
    let guard = v1::Guard {
        ports: Vec::new(),
        read_only: Some(v1::ReadOnly {
            allow_tcp: allow_tcp.collect(),
        }),
    };
    pod.set(vec![resource(
        wire::names::GUARD,
        v1::resource::Content::Guard(guard),
    )]);
}

impl Shop {
    pub(super) async fn new(answer: &'static str) -> Self {
        let shop = Self::unrestricted(answer).await;
        restrict_to_read_only(&shop.shadow, &[]);
        shop
    }

    /// The proxy of `next` does not know yet that its pod gets copies.
    pub(super) async fn unrestricted(answer: &'static str) -> Self {
        Self::of(&Authority::new(), answer).await
    }

    pub(super) async fn of(authority: &Authority, answer: &'static str) -> Self {
        let client = Pod::new(authority, "web").await;
        Self::called_by(client, authority, answer).await
    }

    pub(super) async fn called_by(
        client: Pod,
        authority: &Authority,
        answer: &'static str,
    ) -> Self {
        let server = Pod::new(authority, "api").await;
        let shadow = Pod::new(authority, "api").await;
        let api = App::new(server.ip, OK).await;
        let next = App::new(shadow.ip, answer).await;
        client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        served_by(&client, &server, &[&api]);
        let there = endpoint(shadow.ip, next.port, Some("api"));
        client.set(vec![endpoints("next", vec![there])]);
        let shop = Self {
            client,
            server,
            shadow,
            api,
            next,
        };
        shop.mirrors(vec![mirror()]);
        shop
    }

    pub(super) fn mirrors(&self, mirrors: Vec<Mirror>) {
        self.client.set(vec![policy_of(&EffectivePolicy {
            mirror: limited(mirrors.into()),
            ..EffectivePolicy::default()
        })]);
    }

    fn counted(&self, outcome: &str) -> f64 {
        let outcome = format!("outcome=\"{outcome}\"");
        let labels = ["service=\"shop/api\"", "mirror=\"shop/next\"", &outcome];
        sum(&self.client, MIRRORED, &labels)
    }

    /// Waits until so many copies have come to this.
    pub(super) async fn until(&self, outcome: &str, copies: f64) {
        let started = Instant::now();
        while self.counted(outcome) < copies {
            let metrics = || self.client.metrics();
            assert!(started.elapsed() < Duration::from_secs(10), "{}", metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.counted(outcome), copies);
    }
}

pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    values.next()
}

#[tokio::test]
async fn mirrored_request_is_marked_copy_counted_nowhere_else() {
    let shop = Shop::new(UNAVAILABLE).await;
    let forged = "weft-shadow: true\r\n";
    let (status, answer) = ask(
        &shop.client,
        "GET",
        &format!("{TRACE}{forged}x-a: b\r\n"),
        "",
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    shop.until("success", 1.0).await;
    let (head, copy) = (shop.api.heads().remove(0), shop.next.heads().remove(0));
    assert_eq!(head.lines().next(), copy.lines().next());
    for name in ["host", "x-a", "weft-client-id"] {
        assert!(header(&copy, name).is_some(), "{name}: {copy}");
        assert_eq!(header(&head, name), header(&copy, name), "{name}");
    }
    assert_eq!(header(&copy, "weft-shadow"), Some("true"), "{copy}");
    assert_eq!(header(&copy, "tracestate"), Some("weft=copy"), "{copy}");
    assert_eq!(
        header(&head, "weft-shadow"),
        None,
        "what an application says is dropped"
    );
    let trace = |head: &str| header(head, "traceparent").unwrap().to_owned();
    assert!(TRACE.contains(&trace(&head)), "{head}");
    assert_ne!(trace(&head)[3..35], trace(&copy)[3..35], "{copy}");
    assert_eq!(sum(&shop.client, REQUESTS, &[]), 1.0);
    assert_eq!(sum(&shop.client, ATTEMPTS, &[]), 1.0);
    assert_eq!(sum(&shop.client, "weft_retries_total", &[]), 0.0);
}

#[tokio::test]
async fn what_is_copied_is_what_the_policy_says() {
    let shop = Shop::new(OK).await;
    let with = |change: fn(&mut Mirror)| {
        let mut one = mirror();
        change(&mut one);
        vec![one]
    };
    for (mirrors, method, copied) in [
        (with(|one| one.percent = Percent::NONE), "GET", false),
        (with(|_| ()), "POST", false),
        (with(|one| one.methods = Methods::Any), "POST", true),
        (Vec::new(), "GET", false),
    ] {
        shop.mirrors(mirrors);
        let before = shop.counted("success");
        assert_eq!(ask(&shop.client, method, "", "pay 5").await.0, 200);
        if copied {
            shop.until("success", before + 1.0).await;
            assert_eq!(shop.next.bodies().last().unwrap(), "pay 5");
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(sum(&shop.client, MIRRORED, &[]), before, "{method}");
        }
    }
    // Nor where the request goes there itself.
    shop.mirrors(vec![mirror()]);
    let splits = vec![split("s", &[("next", 1)])];
    shop.client
        .set(service("api", vip().ip(), Protocol::Http1, splits));
    let (before, request_count) = (sum(&shop.client, MIRRORED, &[]), shop.next.request_count());
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(shop.next.request_count(), request_count + 1);
    assert_eq!(sum(&shop.client, MIRRORED, &[]), before);
}

#[tokio::test]
async fn mirror_waits_for_complete_body_up_to_64_kib() {
    let shop = Shop::new(OK).await;
    let mut any = mirror();
    any.methods = Methods::Any;
    shop.mirrors(vec![any]);
    let mut stream = shop.client.call(vip()).await;
    let head = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 6\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"abc").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(shop.next.request_count(), 0);
    let answer = raw(&mut stream, b"def", Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    shop.until("success", 1.0).await;
    assert_eq!(shop.next.bodies(), ["abcdef"]);
    let large = "x".repeat(64 * 1024 + 1);
    assert_eq!(ask(&shop.client, "POST", "", &large).await.0, 200);
    shop.until("body", 1.0).await;
    // A request that its sender breaks off is not copied.
    let mut stream = shop.client.call(vip()).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"abc").await.unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(shop.next.request_count(), 1);
    let most = &large[1..];
    assert_eq!(ask(&shop.client, "POST", "", most).await.0, 200);
    shop.until("success", 2.0).await;
    assert_eq!(shop.next.bodies()[1].len(), most.len());
}

#[tokio::test]
async fn mirror_of_http2_call_has_its_complete_body() {
    let shop = Shop::new(OK).await;
    let mut any = mirror();
    any.methods = Methods::Any;
    shop.mirrors(vec![any]);
    let client = &shop.client;
    client.set(service("api", vip().ip(), Protocol::Http2, Vec::new()));
    let (api, _) = http_app(&shop.server, "api").await;
    let (next, copies) = http_app(&shop.shadow, "next").await;
    let there = |pod: &Pod, port| vec![endpoint(pod.ip, port, Some("api"))];
    client.set(vec![
        endpoints("api", there(&shop.server, api)),
        endpoints("next", there(&shop.shadow, next)),
    ]);
    let io = TokioIo::new(client.call(vip()).await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://web.shop/a.B/C")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["x-app"], "api");
    shop.until("success", 1.0).await;
    let copy = copies.lock().remove(0);
    assert!(copy.starts_with("next POST "), "{copy}");
    assert!(copy.ends_with("body=hello"), "{copy}");
}

#[tokio::test]
async fn failing_mirror_target_costs_calls_nothing_capped_at_64() {
    let shop = Shop::new(SILENCE).await;
    for _ in 0..80 {
        let started = Instant::now();
        assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
        assert!(started.elapsed() < Duration::from_secs(2));
    }
    shop.until("full", 16.0).await;
    let started = Instant::now();
    while shop.next.request_count() < 64 {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{}",
            shop.next.request_count()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(shop.next.request_count(), 64);
    assert_eq!(shop.api.request_count(), 80);
    let shop = Shop::new(NOTHING).await;
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("failure", 1.0).await;
    assert_eq!(shop.next.request_count(), 1, "once");
    shop.client.set(vec![endpoints("next", Vec::new())]);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("failure", 2.0).await;
    assert_eq!(sum(&shop.client, "weft_ejections_total", &[]), 0.0);
}

#[tokio::test]
async fn read_only_mirror_reaches_only_restricted_pod() {
    let shop = Shop::unrestricted(OK).await;
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("failure", 1.0).await;
    // Nor one that is held to it no longer, and changes nothing yet.
    restrict_to_read_only(&shop.shadow, &[]);
    shop.shadow.replace(wire::names::GUARD, Vec::new());
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("failure", 2.0).await;
    // Without a proxy the receiver is not restricted.
    let plain = endpoint(shop.shadow.ip, shop.next.port, None);
    shop.client.set(vec![endpoints("next", vec![plain])]);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("failure", 3.0).await;
    assert_eq!(shop.next.request_count(), 0);
    // With `Any` they go there, and what is ours stays in the mesh.
    let mut any = mirror();
    any.downstream = Downstream::Any;
    shop.mirrors(vec![any]);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 1.0).await;
    assert!(
        !shop.next.heads()[0].contains("weft-"),
        "{:?}",
        shop.next.heads()
    );
    // The copy of an unrecorded request is not sampled again.
    shop.client
        .set(vec![tracing("http://10.0.0.1:4317", 0, &["tracecontext"])]);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 2.0).await;
    let copy = shop.next.heads()[1].clone();
    let parent = copy
        .lines()
        .find_map(|line| line.strip_prefix("traceparent: "));
    assert!(parent.unwrap().ends_with("-00"), "{copy}");
}

#[tokio::test]
async fn a_pod_that_gets_copies_reads_and_changes_nothing() {
    const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    const GRPC: &str = "content-type: application/grpc\r\n";
    let shop = Shop::new(OK).await;
    let pod = &shop.shadow;
    pod.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    served_by(pod, &shop.server, &[&shop.api]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let (status, answer) = ask(pod, method, "", "{}").await;
        assert_eq!(status, 403, "{method}: {answer}");
        assert!(answer.contains("weft-reason: shadow-write"), "{answer}");
    }
    let (_, answer) = ask(pod, "POST", GRPC, "{}").await;
    assert!(answer.contains("grpc-status: 7"), "{answer}");
    let mut stream = pod.call(vip()).await;
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n");
    let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(2)).await;
    assert!(answer.contains("weft-reason: shadow-write"), "{answer}");
    assert_eq!(shop.api.request_count(), 0);
    let labels = ["reason=\"shadow-write\"", "status=\"403\""];
    assert_eq!(sum(pod, REQUESTS, &labels), 7.0);
    // What reads passes, and is copied no further.
    pod.set(vec![policy_of(&EffectivePolicy {
        mirror: limited(vec![mirror()].into()),
        ..EffectivePolicy::default()
    })]);
    for method in ["GET", "OPTIONS"] {
        assert_eq!(ask(pod, method, "", "").await.0, 200, "{method}");
    }
    assert_eq!(sum(pod, MIRRORED, &["outcome=\"shadow\""]), 2.0);
    assert_eq!(sum(pod, MIRRORED, &[]), 2.0);
    for head in shop.api.heads() {
        let shadow = header(&head, "weft-shadow");
        assert_eq!(shadow, Some("true"), "made for a copy: {head}");
    }
    // The original's write passes, and that of a copy is not let in after the last of them.
    assert_eq!(ask(&shop.client, "POST", "", "{}").await.0, 200);
    pod.replace(wire::names::GUARD, Vec::new());
    assert_eq!(ask(pod, "POST", "", "{}").await.0, 403);
}

/// The echo of bytes that `pod` sends to `addr`.
pub(super) async fn echoed(pod: &Pod, addr: std::net::SocketAddr) -> String {
    let mut stream = pod.call(addr).await;
    stream.write_all(b"\0binary").await.unwrap();
    let _ = stream.shutdown().await;
    raw(&mut stream, b"", Duration::from_secs(3)).await
}

/// Something that is none of the mesh's.
fn outside(addr: std::net::SocketAddr) -> v1::Resource {
    let target = Some(v1::destination::Target::External(v1::External::default()));
    resource(
        &wire::names::destination(addr.ip(), addr.port()),
        v1::resource::Content::Destination(v1::Destination { target }),
    )
}

#[tokio::test]
async fn read_only_pod_reaches_nothing_outside_mesh() {
    let shop = Shop::new(OK).await;
    let (port, seen) = http_app(&shop.server, "outside").await;
    let addr = std::net::SocketAddr::new(shop.server.ip, port);
    let pod = &shop.shadow;
    pod.set(vec![outside(addr)]);
    let (status, answer) = get(pod.call(addr).await, "/", "").await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("weft-reason: shadow-write"), "{answer}");
    assert_eq!(echoed(pod, addr).await, "");
    assert!(seen.lock().is_empty());
    // Control: a pod without copies may.
    shop.client.set(vec![outside(addr)]);
    assert_eq!(get(shop.client.call(addr).await, "/", "").await.0, 200);
}

async fn exchange(stream: &mut TcpStream) {
    stream.write_all(b"\0a").await.unwrap();
    let mut back = [0; 2];
    let read = timeout(Duration::from_secs(5), stream.read_exact(&mut back)).await;
    read.unwrap().unwrap();
}

/// Waits for the end of a connection.
async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "it goes on");
}

#[tokio::test]
async fn read_only_pods_open_connections_end_unless_allowed() {
    let shop = Shop::unrestricted(OK).await;
    let pod = &shop.shadow;
    let echo = super::tcp::echo(&shop.server, "").await;
    pod.set(service("api", vip().ip(), Protocol::Opaque, Vec::new()));
    pod.reaches(&shop.server, echo);
    let addr = std::net::SocketAddr::new(shop.server.ip, echo);
    pod.set(vec![outside(addr)]);
    let (mut inside, mut outside) = (pod.call(vip()).await, pod.call(addr).await);
    exchange(&mut inside).await;
    exchange(&mut outside).await;
    restrict_to_read_only(pod, &[("api", 80)]);
    ended(&mut outside).await;
    exchange(&mut inside).await;
    restrict_to_read_only(pod, &[]);
    ended(&mut inside).await;
    let labels = ["reason=\"shadow-write\""];
    assert_eq!(sum(pod, "weft_tcp_connections_total", &labels), 2.0);
}

#[tokio::test]
async fn upgraded_connection_of_read_only_pod_ends() {
    let shop = Shop::unrestricted(OK).await;
    let pod = &shop.shadow;
    pod.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let app = App::new(shop.server.ip, SWITCHED).await;
    served_by(pod, &shop.server, &[&app]);
    let mut stream = pod.call(vip()).await;
    let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    let read = timeout(Duration::from_secs(5), stream.read_exact(&mut status)).await;
    read.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    tokio::time::sleep(Duration::from_millis(100)).await;
    restrict_to_read_only(pod, &[("api", 80)]);
    ended(&mut stream).await;
    let labels = ["reason=\"shadow-write\"", "status=\"101\""];
    assert_eq!(sum(pod, REQUESTS, &labels), 1.0);
}
