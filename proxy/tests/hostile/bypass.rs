//! Attempts to bypass the access rules: bytes that a lenient server reads as HTTP and the proxy
//! does not, tunnels, switched protocols. The application keeps every byte that it gets and echoes
//! it.
//!
//! Claims: attack-1

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::tls::{self, MESH_ALPN};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weft_proxy::MESH_PORT;
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use super::raw_http2::{Outcome, RawHttp2, get};
use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, for_everybody, rest, serving, status};
use crate::support::{Pod, endpoint, endpoints, id, service, vip};

mod first_lines;
mod foreign;
mod switches;

/// Longer than a proxy waits for the first bytes on an undeclared port.
const LATE: Duration = Duration::from_millis(1300);
/// What is on its way arrives within this time.
const SETTLED: Duration = Duration::from_millis(300);
const FORGED: &str = "Host: s\r\nweft-client-id: spiffe://evil\r\n\r\n";

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Says `banner`, keeps what it gets and gives it back, until its caller ends.
async fn echo(pod: &Pod, banner: &'static str) -> (u16, Bytes) {
    let kept = Bytes::default();
    let log = Arc::clone(&kept);
    let port = serving(pod, move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            let _ = stream.write_all(banner.as_bytes()).await;
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                log.lock().extend_from_slice(&buffer[..count]);
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (port, kept)
}

/// How bytes come to a port: as a caller's proxy reads them, directly, and in a
/// tunnel of a proxy that takes them for opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Caller(EntryPoint),
    Tunnel,
}

const EVERY: [By; 3] = [
    By::Caller(EntryPoint::Outbound),
    By::Caller(EntryPoint::Inbound),
    By::Tunnel,
];

struct Ground {
    pods: TwoPods,
    kept: Bytes,
}

impl Ground {
    /// The server's port is declared as `protocol`; an application that echoes
    /// serves it.
    async fn new(protocol: Protocol, banner: &'static str) -> Self {
        let mut pods = TwoPods::new(protocol).await;
        let (port, kept) = echo(&pods.server, banner).await;
        pods.deliver_to(port);
        pods.port = port;
        Self { pods, kept }
    }

    /// The server's port is undeclared, and bytes pass it in this mode.
    async fn passing(mode: &Passing) -> Self {
        let ground = Self::new(Protocol::Detect, "").await;
        let pods = &ground.pods;
        pods.workload_in(Protocol::Detect, mode.enforcement, mode.mtls);
        pods.server.set(mode.rule.iter().cloned().collect());
        ground
    }

    async fn open(&self, by: By) -> TcpStream {
        let believed = if by == By::Tunnel {
            Protocol::Opaque
        } else {
            Protocol::Detect
        };
        let services = service("api", vip().ip(), believed, Vec::new());
        self.pods.client.set(services);
        match by {
            By::Caller(entry) => self.pods.open(entry).await,
            By::Tunnel => self.pods.open(EntryPoint::Outbound).await,
        }
    }

    fn kept(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.kept.lock())).into_owned()
    }

    /// Sends each case in two parts, the second one late, and returns what arrived.
    async fn arrived(&self, by: By, cases: &[(Vec<u8>, Vec<u8>)]) -> String {
        let mut streams = Vec::new();
        for (first, then) in cases {
            let mut stream = self.open(by).await;
            let _ = stream.write_all(first).await;
            streams.push((stream, then));
        }
        sleep(LATE).await;
        for (stream, then) in &mut streams {
            let _ = stream.write_all(then).await;
        }
        sleep(SETTLED).await;
        self.kept()
    }

    /// Sends each case by every way: none brings the identity that it claims.
    async fn no_identity_comes(&self, mode: &Passing, cases: &[(Vec<u8>, Vec<u8>)]) {
        for by in EVERY {
            for cases in cases.chunks(150) {
                let arrived = self.arrived(by, cases).await;
                let before = |at: usize| arrived.floor_char_boundary(at.saturating_sub(100));
                let evil: Vec<&str> = arrived
                    .match_indices("evil")
                    .map(|(at, _)| &arrived[before(at)..at])
                    .collect();
                assert!(evil.is_empty(), "{mode}, {by:?}: {evil:?}");
            }
        }
    }
}

/// One TrafficTarget for everybody, with HTTP rules and a TCPRoute for any port.
fn both_kinds(paths: &[&str]) -> v1::Resource {
    let mut resource = for_everybody(paths, &[]);
    if let Some(v1::resource::Content::Rule(rule)) = &mut resource.content {
        rule.ports = Some(v1::PortSet {
            any: true,
            ports: Vec::new(),
        });
    }
    resource
}

/// One for everybody with a TCPRoute alone.
fn only_ports() -> v1::Resource {
    let mut resource = both_kinds(&[]);
    if let Some(v1::resource::Content::Rule(rule)) = &mut resource.content {
        rule.http = None;
    }
    resource
}

/// A mode in which bytes pass an undeclared port, with the rule that lets them pass.
struct Passing {
    enforcement: Enforcement,
    mtls: MtlsMode,
    rule: Option<v1::Resource>,
}

impl Passing {
    /// In strict mode no caller gets in without a certificate.
    fn admits(&self, by: By) -> bool {
        self.mtls == MtlsMode::Permissive || by != By::Caller(EntryPoint::Inbound)
    }
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.enforcement, self.mtls)
    }
}

fn passing() -> [Passing; 4] {
    let audited = Some(for_everybody(&["/"], &[]));
    [
        (Enforcement::Open, MtlsMode::Permissive, None),
        (Enforcement::Audit, MtlsMode::Permissive, audited),
        (
            Enforcement::Enforce,
            MtlsMode::Permissive,
            Some(only_ports()),
        ),
        (Enforcement::Enforce, MtlsMode::Strict, Some(only_ports())),
    ]
    .map(|(enforcement, mtls, rule)| Passing {
        enforcement,
        mtls,
        rule,
    })
}

/// Beginnings that are no HTTP to a strict reader, each followed by a request.
fn beginnings() -> Vec<(Vec<u8>, Vec<u8>)> {
    let private = || format!("GET /private HTTP/1.1\r\n{FORGED}").into_bytes();
    let firsts = [
        &b""[..],
        b"\r\n",
        b"\n",
        b" ",
        b"1",
        b"!x /private HTTP/1.1\r\n",
        b"\x16\x03\x01\x00\x05",
        b"\0",
        b"\xff",
        b"get",
        b"hello\n",
        b"CONNECT s:1 HTTP/1.1\r\n\r\n",
        b"P",
        b"PRI * HT",
    ];
    firsts
        .into_iter()
        .map(|first| (first.to_vec(), private()))
        .collect()
}

// Claims: A1
#[tokio::test]
async fn undeclared_port_admits_bytes_only_without_http_rules() {
    let ground = Ground::new(Protocol::Detect, "").await;
    ground.pods.workload(Protocol::Detect, Enforcement::Enforce);
    ground.pods.server.set(vec![both_kinds(&["/public"])]);
    for by in EVERY {
        let arrived = ground.arrived(by, &beginnings()).await;
        assert_eq!(arrived, "", "{by:?}");
    }
    // Control: what the target does allow arrives.
    for by in EVERY {
        let mut stream = ground.open(by).await;
        let request = b"GET /public HTTP/1.1\r\nHost: s\r\n\r\n";
        stream.write_all(request).await.unwrap();
        sleep(SETTLED).await;
        assert!(ground.kept().starts_with("GET /public HTTP/1.1"), "{by:?}");
    }
    // Control: a second target, without HTTP rules, admits any bytes.
    let mut second = only_ports();
    second.name = wire::names::rule("shop", "second");
    ground.pods.server.set(vec![second]);
    for by in EVERY {
        let mut stream = ground.open(by).await;
        stream.write_all(b"\x01bytes").await.unwrap();
        sleep(SETTLED).await;
        assert_eq!(ground.kept(), "\x01bytes", "{by:?}");
    }
}

// Claims: A1
#[tokio::test]
async fn declared_http_port_gets_no_bytes_from_tunnel() {
    for rule in [both_kinds(&["/public"]), only_ports()] {
        let ground = Ground::new(Protocol::Http1, "").await;
        ground.pods.workload(Protocol::Http1, Enforcement::Enforce);
        ground.pods.server.set(vec![rule]);
        let first = [
            &b"1GET /private HTTP/1.1\r\n\r\n"[..],
            b"\0\x01",
            b"hello\n",
        ];
        let cases: Vec<_> = first.map(|first| (first.to_vec(), Vec::new())).into();
        let arrived = ground.arrived(By::Tunnel, &cases).await;
        assert_eq!(arrived, "");
        let mut stream = ground.open(By::Tunnel).await;
        let request = b"GET /public HTTP/1.1\r\nHost: s\r\n\r\n";
        stream.write_all(request).await.unwrap();
        sleep(SETTLED).await;
        assert!(ground.kept().starts_with("GET /public HTTP/1.1"));
    }
}

/// A port that is declared opaque has no HTTP to judge: the TCPRoute decides.
#[tokio::test]
async fn declared_opaque_port_follows_tcproute_of_any_target() {
    let ground = Ground::new(Protocol::Opaque, "").await;
    ground.pods.workload(Protocol::Opaque, Enforcement::Enforce);
    ground.pods.server.set(vec![both_kinds(&["/public"])]);
    for by in [By::Caller(EntryPoint::Inbound), By::Tunnel] {
        let mut stream = ground.open(by).await;
        stream.write_all(b"\x01bytes").await.unwrap();
        sleep(SETTLED).await;
        assert_eq!(ground.kept(), "\x01bytes", "{by:?}");
    }
}

/// Says its SETTINGS as soon as it is connected, as a server of HTTP/2 may.
async fn eager(stream: TcpStream) {
    // A caller that only probes the protocol leaves without an error.
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let _ = respond.send_response(http::Response::new(()), true);
    }
}

/// That the server spoke first does not make it anything but HTTP/2.
// Claims: attack-66
#[tokio::test]
async fn late_caller_is_served_by_server_first_http2() {
    let mut pods = TwoPods::new(Protocol::Detect).await;
    pods.port = serving(&pods.server, eager).await;
    let meshed = endpoint(pods.server.ip, pods.port, Some("api"));
    let other = endpoint(pods.server.ip, pods.port, None);
    for (case, entry, there) in [
        ("by two proxies", EntryPoint::Outbound, meshed.clone()),
        ("from outside", EntryPoint::Inbound, meshed),
        ("to a pod without a proxy", EntryPoint::Outbound, other),
    ] {
        pods.client.set(vec![endpoints("api", vec![there])]);
        for late in [Duration::ZERO, Duration::from_millis(300), LATE] {
            let stream = pods.open(entry).await;
            sleep(late).await;
            let mut raw = RawHttp2::new(stream).await;
            raw.request(1, true, &get("/ok")).await;
            let outcome = raw.outcome(1, Duration::from_secs(2)).await;
            assert_eq!(outcome, Outcome::Status(200), "{case}, after {late:?}");
        }
    }
}

/// Clients open connections ahead of their first request.
// Claims: R5
#[tokio::test]
async fn silent_connection_to_guarded_port_waits_for_request() {
    let pods = TwoPods::new(Protocol::Detect).await;
    pods.allow(Protocol::Detect, &["/public"]);
    for entry in ENTRY_POINTS {
        let mut stream = pods.open(entry).await;
        sleep(LATE).await;
        let request = b"GET /public HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let sent = stream.write_all(request).await;
        assert!(sent.is_ok(), "{entry:?}: {sent:?}");
        let answer = rest(&mut stream, Duration::from_secs(2)).await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        // Control: lateness opens nothing.
        let mut stream = pods.open(entry).await;
        sleep(LATE).await;
        let request = b"GET /private HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let answer = rest(&mut stream, Duration::from_secs(2)).await;
        assert_eq!(status(&answer), 403, "{entry:?}: {answer}");
    }
}

/// The connection waits longer than a head may take from its first byte.
#[tokio::test]
async fn preopened_connection_waits_for_first_request() {
    for protocol in [Protocol::Detect, Protocol::Http1] {
        let pods = TwoPods::new(protocol).await;
        pods.allow(protocol, &["/public"]);
        let mut ahead = [
            pods.open(ENTRY_POINTS[0]).await,
            pods.open(ENTRY_POINTS[1]).await,
        ];
        sleep(Duration::from_secs(11)).await;
        for (stream, entry) in ahead.iter_mut().zip(ENTRY_POINTS) {
            let request = b"GET /public HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
            let sent = stream.write_all(request).await;
            assert!(sent.is_ok(), "{protocol:?} {entry:?}: {sent:?}");
            let answer = rest(stream, Duration::from_secs(2)).await;
            assert_eq!(status(&answer), 200, "{protocol:?} {entry:?}: {answer}");
        }
    }
}

/// A caller that waits for the server to speak learns that it never will.
#[tokio::test]
async fn silent_unadmitted_caller_is_disconnected_after_one_second() {
    let ground = Ground::new(Protocol::Detect, "220 ready\r\n").await;
    let mut of_another = both_kinds(&["/public"]);
    if let Some(v1::resource::Content::Rule(rule)) = &mut of_another.content {
        rule.sources.truncate(1);
        rule.sources[0].who = Some(v1::source::Who::SpiffeId(id("other").as_str().to_owned()));
    }
    for rules in [vec![], vec![of_another]] {
        ground.pods.server.set(rules);
        for declared in [Protocol::Detect, Protocol::Http1] {
            ground.pods.workload(declared, Enforcement::Enforce);
            for by in EVERY {
                let mut stream = ground.open(by).await;
                let mut buffer = [0; 16];
                let read = timeout(2 * LATE, stream.read(&mut buffer)).await;
                let let_go = matches!(read, Ok(Ok(0) | Err(_)));
                assert!(let_go, "{declared:?} {by:?}: {read:?}");
            }
        }
    }
}

/// Response of [`reporting_load`]; a proxy would report this load to a peer's proxy.
const LOAD_REPORT: &str = "HTTP/1.1 404 Fine\r\nContent-Length: 2\r\n\
                       endpoint-load-metrics: TEXT application_utilization=0.9\r\n\r\nno";

/// Answers each request alike.
async fn reporting_load(pod: &Pod) -> u16 {
    serving(pod, |mut stream| async move {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
            if all.ends_with(b"\r\n\r\n") {
                all.clear();
                if stream.write_all(LOAD_REPORT.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// Sends a request in a tunnel, and from outside, and returns both responses.
async fn in_a_tunnel_and_plain(pods: &TwoPods, request: &str) -> [String; 2] {
    let mut answers = [String::new(), String::new()];
    for (answer, entry) in answers.iter_mut().zip(ENTRY_POINTS) {
        let mut stream = pods.open(entry).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        *answer = rest(&mut stream, Duration::from_secs(3)).await;
    }
    answers
}

/// Its caller's proxy has not read it: it has the identity of its caller, and nothing that
/// two proxies say to each other.
// Claims: attack-2
#[tokio::test]
async fn proxy_headers_in_tunneled_http_are_not_trusted() {
    let mut pods = TwoPods::new(Protocol::Detect).await;
    let opaque = service("api", vip().ip(), Protocol::Opaque, Vec::new());
    pods.client.set(opaque);
    pods.port = reporting_load(&pods.server).await;
    pods.deliver_to(pods.port);
    let proof = format!("weft-proof: {}\r\n", id("qa").as_str());
    for lead in ["", "\r\n"] {
        for forged in [
            "",
            "weft-timeout: 0ms\r\n",
            "weft-shadow: x\r\n",
            "weft-destination: pod\r\n",
            "weft-attempt: 2\r\nweft-priority: Sheddable\r\n",
            &format!("weft-route: catalog.shop=next\r\n{proof}"),
        ] {
            let request =
                format!("{lead}GET /x HTTP/1.1\r\nHost: s\r\nConnection: close\r\n{forged}\r\n");
            let [tunnel, plain] = in_a_tunnel_and_plain(&pods, &request).await;
            assert_eq!(tunnel, plain, "{request:?}");
            let served = status(&plain) == 404 || !lead.is_empty();
            assert!(served, "{request:?}: {plain}");
        }
    }
    // A port without a listener, which proxies report to each other in a response of their own.
    let gone = std::net::TcpListener::bind((pods.server.ip, 0)).unwrap();
    pods.port = gone.local_addr().unwrap().port();
    drop(gone);
    pods.deliver_to(pods.port);
    pods.workload(Protocol::Http1, Enforcement::Open);
    let request = "GET /x HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
    let [tunnel, plain] = in_a_tunnel_and_plain(&pods, request).await;
    assert_eq!(tunnel, plain);
    assert_eq!(status(&plain), 503, "{plain}");
}
