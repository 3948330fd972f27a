//! Ways around what is judged: bytes that a lenient server reads as HTTP and the
//! proxy does not, tunnels, switched protocols. The application here keeps every
//! byte that it gets, whatever it looks like, and gives it back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::tls::{self, MESH_ALPN};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weft_proxy::MESH_PORT;
use wire::v1::{self, Enforcement, Protocol};

use super::raw_http2::{RawHttp2, Told, get};
use super::two_pods::{TwoPods, WAYS, Way, for_everybody, rest, serving, status};
use crate::support::{Pod, endpoint, endpoints, id, service, vip};

/// Longer than a proxy waits for the first bytes on a port that nobody declared.
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
    Caller(Way),
    Tunnel,
}

const EVERY: [By; 3] = [
    By::Caller(Way::Outbound),
    By::Caller(Way::Inbound),
    By::Tunnel,
];

struct Ground {
    field: TwoPods,
    kept: Bytes,
}

impl Ground {
    /// The server's port is declared as `protocol`; an application that echoes
    /// serves it.
    async fn new(protocol: Protocol, banner: &'static str) -> Self {
        let mut field = TwoPods::new(protocol).await;
        let (port, kept) = echo(&field.server, banner).await;
        field.deliver_to(port);
        field.port = port;
        Self { field, kept }
    }

    /// The server's port is undeclared, and bytes pass it in this mode by this rule.
    async fn passing(mode: Enforcement, rule: Option<v1::Resource>) -> Self {
        let ground = Self::new(Protocol::Detect, "").await;
        ground.field.workload(Protocol::Detect, mode);
        ground.field.server.set(rule.into_iter().collect());
        ground
    }

    async fn open(&self, by: By) -> TcpStream {
        let believed = if by == By::Tunnel {
            Protocol::Opaque
        } else {
            Protocol::Detect
        };
        let services = service("api", vip().ip(), believed, Vec::new());
        self.field.client.set(services);
        match by {
            By::Caller(way) => self.field.open(way).await,
            By::Tunnel => self.field.open(Way::Outbound).await,
        }
    }

    fn kept(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.kept.lock())).into_owned()
    }

    /// Sends each case in two parts, the second one late, and says what arrived.
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
    async fn no_identity_comes(&self, mode: Enforcement, cases: &[(Vec<u8>, Vec<u8>)]) {
        for by in EVERY {
            for cases in cases.chunks(150) {
                let arrived = self.arrived(by, cases).await;
                let before = |at: usize| arrived.floor_char_boundary(at.saturating_sub(100));
                let evil: Vec<&str> = arrived
                    .match_indices("evil")
                    .map(|(at, _)| &arrived[before(at)..at])
                    .collect();
                assert!(evil.is_empty(), "{mode:?}, {by:?}: {evil:?}");
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

/// Modes in which bytes pass an undeclared port, with the rule that lets them pass.
fn passing() -> [(Enforcement, Option<v1::Resource>); 3] {
    [
        (Enforcement::Open, None),
        (Enforcement::Audit, Some(for_everybody(&["/"], &[]))),
        (Enforcement::Enforce, Some(only_ports())),
    ]
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

#[tokio::test]
async fn bytes_pass_an_undeclared_port_only_by_a_target_without_http_rules() {
    let ground = Ground::new(Protocol::Detect, "").await;
    ground
        .field
        .workload(Protocol::Detect, Enforcement::Enforce);
    ground.field.server.set(vec![both_kinds(&["/public"])]);
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
    ground.field.server.set(vec![second]);
    for by in EVERY {
        let mut stream = ground.open(by).await;
        stream.write_all(b"\x01bytes").await.unwrap();
        sleep(SETTLED).await;
        assert_eq!(ground.kept(), "\x01bytes", "{by:?}");
    }
}

#[tokio::test]
async fn a_port_declared_http_gets_no_bytes_from_a_tunnel() {
    for rule in [both_kinds(&["/public"]), only_ports()] {
        let ground = Ground::new(Protocol::Http1, "").await;
        ground.field.workload(Protocol::Http1, Enforcement::Enforce);
        ground.field.server.set(vec![rule]);
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
async fn a_port_declared_opaque_gets_bytes_by_the_tcp_route_of_any_target() {
    let ground = Ground::new(Protocol::Opaque, "").await;
    ground
        .field
        .workload(Protocol::Opaque, Enforcement::Enforce);
    ground.field.server.set(vec![both_kinds(&["/public"])]);
    for by in [By::Caller(Way::Inbound), By::Tunnel] {
        let mut stream = ground.open(by).await;
        stream.write_all(b"\x01bytes").await.unwrap();
        sleep(SETTLED).await;
        assert_eq!(ground.kept(), "\x01bytes", "{by:?}");
    }
}

/// Says its SETTINGS as soon as it is connected, as a server of HTTP/2 may.
async fn eager(stream: TcpStream) {
    // Who only finds out what is spoken leaves without a word.
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let _ = respond.send_response(http::Response::new(()), true);
    }
}

/// That the server spoke first does not make it anything but HTTP/2.
#[tokio::test]
async fn a_late_caller_is_served_by_a_server_of_http2_that_does_not_wait_for_it() {
    let mut field = TwoPods::new(Protocol::Detect).await;
    field.port = serving(&field.server, eager).await;
    let meshed = endpoint(field.server.ip, field.port, Some("api"));
    let other = endpoint(field.server.ip, field.port, None);
    for (case, way, there) in [
        ("by two proxies", Way::Outbound, meshed.clone()),
        ("from outside", Way::Inbound, meshed),
        ("to a pod without a proxy", Way::Outbound, other),
    ] {
        field.client.set(vec![endpoints("api", vec![there])]);
        for late in [Duration::ZERO, Duration::from_millis(300), LATE] {
            let stream = field.open(way).await;
            sleep(late).await;
            let mut raw = RawHttp2::new(stream).await;
            raw.request(1, true, &get("/ok")).await;
            let told = raw.told(1, Duration::from_secs(2)).await;
            assert_eq!(told, Told::Status(200), "{case}, after {late:?}");
        }
    }
}

/// Clients open connections ahead of their first request.
#[tokio::test]
async fn a_silent_connection_to_a_guarded_undeclared_port_waits_for_its_request() {
    let field = TwoPods::new(Protocol::Detect).await;
    field.allow(Protocol::Detect, &["/public"]);
    for way in WAYS {
        let mut stream = field.open(way).await;
        sleep(LATE).await;
        let request = b"GET /public HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let sent = stream.write_all(request).await;
        assert!(sent.is_ok(), "{way:?}: {sent:?}");
        let answer = rest(&mut stream, Duration::from_secs(2)).await;
        assert_eq!(status(&answer), 200, "{way:?}: {answer}");
        // Control: lateness opens nothing.
        let mut stream = field.open(way).await;
        sleep(LATE).await;
        let request = b"GET /private HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let answer = rest(&mut stream, Duration::from_secs(2)).await;
        assert_eq!(status(&answer), 403, "{way:?}: {answer}");
    }
}

/// Longer than a head may take once it has begun.
#[tokio::test]
async fn a_connection_that_is_opened_ahead_waits_for_its_first_request() {
    for protocol in [Protocol::Detect, Protocol::Http1] {
        let field = TwoPods::new(protocol).await;
        field.allow(protocol, &["/public"]);
        let mut ahead = [field.open(WAYS[0]).await, field.open(WAYS[1]).await];
        sleep(Duration::from_secs(11)).await;
        for (stream, way) in ahead.iter_mut().zip(WAYS) {
            let request = b"GET /public HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
            let sent = stream.write_all(request).await;
            assert!(sent.is_ok(), "{protocol:?} {way:?}: {sent:?}");
            let answer = rest(stream, Duration::from_secs(2)).await;
            assert_eq!(status(&answer), 200, "{protocol:?} {way:?}: {answer}");
        }
    }
}

/// Whoever waits for the server to speak learns that it never will.
#[tokio::test]
async fn a_silent_caller_that_nothing_admits_is_let_go_after_a_second() {
    let ground = Ground::new(Protocol::Detect, "220 ready\r\n").await;
    ground
        .field
        .workload(Protocol::Detect, Enforcement::Enforce);
    let mut of_another = both_kinds(&["/public"]);
    if let Some(v1::resource::Content::Rule(rule)) = &mut of_another.content {
        rule.sources.truncate(1);
        rule.sources[0].who = Some(v1::source::Who::SpiffeId(id("other").as_str().to_owned()));
    }
    for rules in [vec![], vec![of_another]] {
        ground.field.server.set(rules);
        for by in EVERY {
            let mut stream = ground.open(by).await;
            let mut buffer = [0; 16];
            let read = timeout(2 * LATE, stream.read(&mut buffer)).await;
            assert!(matches!(read, Ok(Ok(0) | Err(_))), "{by:?}: {read:?}");
        }
    }
}

/// First lines that some server reads as HTTP, with an identity of their own.
fn forgeries() -> Vec<(Vec<u8>, Vec<u8>)> {
    let long = format!("{} / HTTP/1.1\r\n", "M".repeat(30));
    let far = format!("get /{} HTTP/1.1\r\n", "a".repeat(20_000));
    let lines: [&[u8]; 24] = [
        b"\r\nGET / HTTP/1.1\r\n",
        b"\nGET / HTTP/1.1\r\n",
        b"\r\n\r\n \t\r\nget / HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
        b"get / http/1.1\r\n",
        b"get / HTTP/1.0\n",
        b"M1 / HTTP/1.1\r\n",
        b"GET  /  HTTP/1.1\r\n",
        b"GET\t/\tHTTP/1.1\r\n",
        b"get\x0b/\x0cHTTP/1.1\r\n",
        b"get\xa0/\xa0HTTP/1.1\r\n",
        b"GET / HTTP/1.1 \t\r\n",
        b" GET / HTTP/1.1\r\n",
        b"GET foo HTTP/1.1\r\n",
        b"GET foo?x=/ HTTP/1.1\r\n",
        b"GET  HTTP/1.1\r\n",
        b"CONNECT s:80 HTTP/1.1\r\nHost: s:80\r\n\r\nGET / HTTP/1.1\r\n",
        b"x\xc3\xa4y / HTTP/1.1\r\n",
        b"\0GET / HTTP/1.1\r\n",
        b"GET /\xc3\xa4 HTTP/1.1\r\n",
        b"{} / HTTP/1.1\r\n",
        b"PRI * HTTP/1.1\r\n",
        long.as_bytes(),
        far.as_bytes(),
    ];
    let mut cases = Vec::new();
    for line in lines {
        let whole = [line, FORGED.as_bytes()].concat();
        // All at once, in two parts, and with the line's end late.
        cases.push((whole.clone(), Vec::new()));
        for at in [1, 3, line.len() - 5, line.len() - 1] {
            let (first, then) = whole.split_at(at);
            cases.push((first.to_vec(), then.to_vec()));
        }
    }
    cases
}

#[tokio::test]
async fn no_first_line_that_a_server_may_read_as_http_brings_an_identity_of_its_own() {
    for (mode, rule) in passing() {
        let ground = Ground::passing(mode, rule).await;
        ground.no_identity_comes(mode, &forgeries()).await;
        // Control: an ordinary request arrives, with the true identity if there is one.
        for by in EVERY {
            let mut stream = ground.open(by).await;
            let request = format!("GET / HTTP/1.1\r\n{FORGED}");
            stream.write_all(request.as_bytes()).await.unwrap();
            sleep(SETTLED).await;
            let arrived = ground.kept().to_lowercase();
            assert!(arrived.starts_with("get / http/1.1"), "{by:?}: {arrived}");
            let own = arrived.contains("weft-client-id: spiffe://cluster.local/ns/shop/sa/web");
            assert_eq!(own, by != By::Caller(Way::Inbound), "{by:?}: {arrived}");
        }
    }
}

/// First lines that end otherwise than HTTP's and that some server reads as a request with
/// headers, each with the way in which it comes: whole, in two parts, letter by letter.
fn requests_of_other_names() -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines: [&[u8]; 16] = [
        b"GET rtsp://a/private RTSP/1.0\r\n",
        b"\r\nGET /private RTSP/1.0\r\n",
        b"\nGET /private RTSP/1.0\r\n",
        b"GET  /private RTSP/1.0\r\n",
        b"GET\tx\trtsp/1.0 \r\n",
        b"\r\nSOURCE /private ICE/1.0\r\n",
        b"SOURCE private ICE/1.0\r\n",
        b"SOURCE private ice/1.0\n",
        b"M1 x WORD/12.34\r\n",
        b"\r\nGET /private\r\n",
        b"GET private\r\n",
        b"get k\n",
        b"GET / HTTP/1.1 x\r\n",
        b"OPTIONS rtsp://a/ RTSP/1.0\r\n\r\nGET / HTTP/1.1\r\n",
        b"get k\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n",
    ];
    let forged = [
        FORGED,
        "WEFT_Client_Id : spiffe://evil\r\n\r\n",
        "Host: s\rweft-client-id: spiffe://evil\r\n\r\n",
    ];
    let mut cases = Vec::new();
    for line in lines {
        for forged in forged {
            let whole = [line, forged.as_bytes()].concat();
            cases.push((whole.clone(), Vec::new()));
            for at in [1, 2, line.len() - 3, line.len(), line.len() + 14] {
                let (first, then) = whole.split_at(at);
                cases.push((first.to_vec(), then.to_vec()));
            }
        }
    }
    cases
}

/// They pass, as RTSP, memcached and Redis have such lines, but bring no identity.
#[tokio::test]
async fn no_line_of_another_protocol_that_a_server_may_read_as_a_request_brings_an_identity() {
    for (mode, rule) in passing() {
        let ground = Ground::passing(mode, rule).await;
        ground
            .no_identity_comes(mode, &requests_of_other_names())
            .await;
        for by in EVERY {
            // Whoever sends one sees its connection end, and it is counted.
            let mut stream = ground.open(by).await;
            let bytes = format!("GET rtsp://a/x RTSP/1.0\r\n{FORGED}");
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let read = timeout(LATE, stream.read(&mut [0; 16])).await;
            assert!(matches!(read, Ok(Ok(0) | Err(_))), "{by:?}: {read:?}");
        }
        let metrics = ground.field.server.metrics();
        assert!(
            metrics.lines().any(|line| line.starts_with("weft_tcp")
                && line.contains("bad-request")
                && !line.ends_with(" 0")),
            "{metrics}"
        );
    }
}

/// What clients of other text protocols say first. Redis' inline form of a command
/// with a path as its first word is the one that cannot be told from HTTP.
const CONVERSATIONS: [(&str, &str); 15] = [
    ("memcached", "get k\r\n"),
    ("memcached", "get /a/path\r\n"),
    ("memcached", "set k 0 0 5\r\nhello\r\n"),
    ("Redis inline", "PING\r\n"),
    ("Redis inline", "GET key\r\n"),
    ("Redis", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"),
    ("NATS", "CONNECT {\"verbose\":false}\r\nPING\r\n"),
    ("STOMP", "CONNECT\naccept-version:1.2\nhost:h\n\n\0"),
    ("RTSP", "OPTIONS rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
    (
        "RTSP",
        "DESCRIBE rtsp://h/a RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\n\r\n",
    ),
    (
        "SIP",
        "OPTIONS sip:a@h SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "Redis with a header as value",
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$17\r\nweft-client-id: x\r\n",
    ),
    ("SSH", "SSH-2.0-x\r\n"),
    ("without a line's end", "ruok"),
    ("Kafka", "\0\0\0\x24\0\x12\0\x03\0\0\0\x01\0\x07rdkafka\0"),
];

#[tokio::test]
async fn other_text_protocols_pass_undeclared_ports_as_they_are() {
    for (mode, rule) in passing() {
        let ground = Ground::passing(mode, rule).await;
        for by in EVERY {
            for (name, said) in CONVERSATIONS {
                let mut stream = ground.open(by).await;
                for turn in 0..2 {
                    stream.write_all(said.as_bytes()).await.unwrap();
                    let mut back = vec![0; said.len()];
                    let read = timeout(SETTLED, stream.read_exact(&mut back)).await;
                    assert!(matches!(read, Ok(Ok(_))), "{name} {turn}, {by:?}: {read:?}");
                    assert_eq!(back, said.as_bytes(), "{name}, {by:?}");
                }
            }
            ground.kept();
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_answered_in_its_own_protocol() {
    let ground = Ground::new(Protocol::Detect, "220 mail ESMTP\r\n").await;
    for by in EVERY {
        let mut stream = ground.open(by).await;
        let mut banner = [0; 16];
        stream.read_exact(&mut banner).await.unwrap();
        for said in [
            &b"EHLO h\r\n"[..],
            b"MAIL FROM:<a@b>\r\n",
            b"get / HTTP/1.1\r\n",
        ] {
            stream.write_all(said).await.unwrap();
            let mut back = vec![0; said.len()];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, said, "{by:?}");
        }
    }
}

/// Answers every request that asks for an upgrade with a switch to what `chosen`
/// says, or to what was asked for, and keeps all that it gets.
async fn switching(pod: &Pod, chosen: Option<&'static str>) -> (u16, Bytes) {
    let kept = Bytes::default();
    let log = Arc::clone(&kept);
    let port = serving(pod, move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
            while !all.windows(4).any(|end| end == b"\r\n\r\n") {
                let Ok(count @ 1..) = stream.read(&mut buffer).await else {
                    return;
                };
                all.extend_from_slice(&buffer[..count]);
            }
            log.lock().extend_from_slice(&all);
            let head = String::from_utf8_lossy(&all).to_lowercase();
            let asked = head
                .lines()
                .find_map(|line| line.strip_prefix("upgrade: ").map(str::to_owned));
            let answer = match (asked, chosen) {
                (Some(asked), None) => switch_to(&asked),
                (Some(_), Some(chosen)) => switch_to(chosen),
                (None, _) => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                log.lock().extend_from_slice(&buffer[..count]);
                let _ = stream.write_all(&buffer[..count]).await;
            }
        }
    })
    .await;
    (port, kept)
}

fn switch_to(protocol: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    )
}

async fn ask_for(field: &TwoPods, way: Way, upgrade: &[u8]) -> (u16, TcpStream) {
    let mut stream = field.open(way).await;
    let request = [
        &b"GET /ok HTTP/1.1\r\nHost: s\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: "[..],
        upgrade,
        b"\r\n\r\n",
    ];
    stream.write_all(&request.concat()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = timeout(Duration::from_secs(2), stream.read(&mut answer))
        .await
        .map_or(0, Result::unwrap_or_default);
    (status(&String::from_utf8_lossy(&answer[..count])), stream)
}

#[tokio::test]
async fn nobody_switches_to_http2_whatever_it_is_called() {
    let mut field = TwoPods::new(Protocol::Http1).await;
    let (port, kept) = switching(&field.server, None).await;
    field.deliver_to(port);
    field.port = port;
    field.allow(Protocol::Http1, &["/ok"]);
    for upgrade in [
        &b"h2c"[..],
        b"H2C",
        b"h2c\xa0",
        b"h2c\x0b",
        b"h2c, foo",
        b"foo, h2c",
        b"foo,h2c;q=1",
        b"h2c/1",
        b"h2c-14",
        b"HTTP/2.0",
        b"\"h2c\"",
        b"foo h2c",
        b"foo\r\nUpgrade: h2c",
    ] {
        let name = String::from_utf8_lossy(upgrade).into_owned();
        for way in WAYS {
            let (_, mut stream) = ask_for(&field, way, upgrade).await;
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            let _ = stream.write_all(preface).await;
            let _ = rest(&mut stream, Duration::from_millis(100)).await;
            let arrived =
                String::from_utf8_lossy(&std::mem::take(&mut *kept.lock())).to_lowercase();
            let offered = arrived.lines().filter(|line| line.starts_with("upgrade:"));
            for offer in offered {
                assert!(
                    !offer.contains("h2") && !offer.contains("http"),
                    "{name:?}, {way:?}: {offer}"
                );
            }
        }
    }
    // By a peer that calls it so.
    let certs = field
        .authority
        .leaf("web", Duration::from_secs(600), SystemTime::now());
    let config = tls::mesh_client_config(&field.authority.roots(), &certs, id("api"), &[MESH_ALPN]);
    for (upgrade, expected) in [
        (&b"h2c"[..], 400),
        (b"h2c, foo", 200),
        (b"h2c\xa0", 400),
        (b"websocket", 200),
    ] {
        let stream = TcpStream::connect((field.server.ip, MESH_PORT)).await;
        let secured = tokio_rustls::TlsConnector::from(Arc::clone(&config))
            .connect(tls::peer_name(), stream.unwrap())
            .await
            .unwrap();
        let mut raw = RawHttp2::new(secured).await;
        let port = field.port.to_string();
        let fields: [(&[u8], &[u8]); 6] = [
            (b":method", b"CONNECT"),
            (b":authority", b"s"),
            (b"weft-port", port.as_bytes()),
            (b"weft-protocol", b"http1"),
            (b"weft-upgrade", upgrade),
            (b"weft-target", b"/ok"),
        ];
        raw.request(1, false, &fields).await;
        let told = raw.told(1, Duration::from_secs(2)).await;
        let name = String::from_utf8_lossy(upgrade);
        assert_eq!(told, Told::Status(expected), "{name:?}");
        let arrived = String::from_utf8_lossy(&std::mem::take(&mut *kept.lock())).to_lowercase();
        assert!(!arrived.contains("h2c"), "{name:?}: {arrived}");
    }
    // Control: other protocols are switched to, and their bytes pass.
    for way in WAYS {
        let (status, mut stream) = ask_for(&field, way, b"websocket").await;
        assert_eq!(status, 101, "{way:?}");
        stream.write_all(b"frames").await.unwrap();
        let mut back = [0; 6];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"frames", "{way:?}");
    }
}

#[tokio::test]
async fn an_application_that_switches_to_http2_unasked_is_not_followed() {
    for chosen in ["h2c", "H2C", "h2c\u{a0}", "foo, h2c"] {
        let mut field = TwoPods::new(Protocol::Http1).await;
        let (port, kept) = switching(&field.server, Some(chosen)).await;
        field.deliver_to(port);
        field.port = port;
        for way in WAYS {
            let (status, mut stream) = ask_for(&field, way, b"foo").await;
            assert_eq!(status, 502, "{chosen:?}, {way:?}");
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            let _ = rest(&mut stream, Duration::from_millis(100)).await;
            let arrived = String::from_utf8_lossy(&std::mem::take(&mut *kept.lock())).into_owned();
            assert!(!arrived.contains("PRI"), "{chosen:?}, {way:?}: {arrived}");
        }
    }
}
