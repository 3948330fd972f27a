//! HTTP/2 requests whose fields would mean something else in HTTP/1.1, and bodies whose length
//! differs from the announced one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::tls::{self, MESH_ALPN};
use tokio::net::TcpStream;
use weft_proxy::MESH_PORT;
use wire::v1::Protocol;

use super::raw_http2::{DATA, END_STREAM, Outcome, RawHttp2, frame, get};
use super::two_pods::{EntryPoint, Log, TwoPods};
use crate::support::{SeenRequests, http_app, id};

const PATIENCE: Duration = Duration::from_secs(2);

/// Entry points for HTTP/2. On the mesh port it is turned into HTTP/1.1 when the peer names that as
/// the application's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Outbound,
    Inbound,
    MeshTo1,
}

const DOORS: [Door; 3] = [Door::Outbound, Door::Inbound, Door::MeshTo1];

/// Two pods for HTTP/2, with an HTTP/1.1 application beside it.
struct Both {
    pods: TwoPods,
    seen: SeenRequests,
    port1: u16,
    log1: Log,
    certs: identity::tls::CertHandle,
}

impl Both {
    async fn new() -> Self {
        let mut pods = TwoPods::new(Protocol::Http2).await;
        let (port1, log1) = (pods.port, Arc::clone(&pods.log));
        let (port, seen) = http_app(&pods.server, "api").await;
        pods.deliver_to(port);
        pods.port = port;
        let certs = pods
            .authority
            .leaf("web", Duration::from_secs(600), SystemTime::now());
        Self {
            pods,
            seen,
            port1,
            log1,
            certs,
        }
    }

    async fn open(&self, door: Door) -> RawHttp2 {
        match door {
            Door::Outbound => RawHttp2::new(self.pods.open(EntryPoint::Outbound).await).await,
            Door::Inbound => RawHttp2::new(self.pods.open(EntryPoint::Inbound).await).await,
            Door::MeshTo1 => {
                let roots = self.pods.authority.roots();
                let config = tls::mesh_client_config(&roots, &self.certs, id("api"), &[MESH_ALPN]);
                let stream = TcpStream::connect((self.pods.server.ip, MESH_PORT))
                    .await
                    .unwrap();
                let secured = tokio_rustls::TlsConnector::from(config)
                    .connect(tls::peer_name(), stream)
                    .await
                    .unwrap();
                RawHttp2::new(secured).await
            }
        }
    }

    /// What the door's own protocol needs besides the request.
    fn extra(&self, door: Door) -> Vec<(Vec<u8>, Vec<u8>)> {
        if door != Door::MeshTo1 {
            return Vec::new();
        }
        vec![
            (b"weft-port".to_vec(), self.port1.to_string().into_bytes()),
            (b"weft-protocol".to_vec(), b"http1".to_vec()),
        ]
    }

    /// Sends one request and returns its outcome.
    async fn ask(&self, door: Door, fields: &[(&[u8], &[u8])], data: Option<&[u8]>) -> Outcome {
        let mut raw = self.open(door).await;
        let extra = self.extra(door);
        let mut all = fields.to_vec();
        all.extend(extra.iter().map(|(name, value)| (&name[..], &value[..])));
        raw.request(1, data.is_none(), &all).await;
        if let Some(data) = data {
            raw.write(&frame(DATA, END_STREAM, 1, data)).await;
        }
        raw.outcome(1, PATIENCE).await
    }

    fn got(&self, case: &str) -> usize {
        let broken = self
            .log1
            .lock()
            .iter()
            .any(|one| one.head.starts_with("BROKEN"));
        assert!(!broken, "{case}: {:?}", self.log1.lock());
        std::mem::take(&mut *self.log1.lock()).len() + std::mem::take(&mut *self.seen.lock()).len()
    }

    async fn works(&self, case: &str) {
        for door in DOORS {
            let outcome = self.ask(door, &get("/ok"), None).await;
            assert_eq!(outcome, Outcome::Status(200), "after {case}, {door:?}");
            assert_eq!(self.got(case), 1, "after {case}, {door:?}");
        }
    }
}

#[tokio::test]
async fn fields_that_would_split_a_message_are_refused() {
    let both = Both::new().await;
    let with = |name: &'static [u8], value: &'static [u8]| {
        let mut fields = get("/ok").to_vec();
        fields.push((name, value));
        fields
    };
    let instead = |at: usize, value: &'static [u8]| {
        let mut fields = get("/ok").to_vec();
        fields[at].1 = value;
        fields
    };
    let cases: Vec<Vec<(&[u8], &[u8])>> = vec![
        with(b"x", b"a\r\nGET /private HTTP/1.1"),
        with(b"x", b"a\nb: c"),
        with(b"x", b"a\rb"),
        with(b"x", b"a\0b"),
        with(b"X-Up", b"a"),
        with(b"a:b", b"a"),
        with(b"a b", b"a"),
        with(b"", b"a"),
        with(b"cookie\t", b"a"),
        with(b"x\r\ny", b"a"),
        with(b"transfer-encoding", b"chunked"),
        with(b"connection", b"x-one"),
        with(b"keep-alive", b"timeout=5"),
        with(b"proxy-connection", b"close"),
        with(b"upgrade", b"websocket"),
        with(b"te", b"gzip"),
        with(b":path", b"/private"),
        with(b":status", b"200"),
        with(b":unknown", b"1"),
        with(b":protocol", b"websocket"),
        with(b":method", b"POST"),
        with(b"host", b"other"),
        instead(3, b"/ok HTTP/1.1\r\nHost: x"),
        instead(3, b"/o k"),
        instead(3, b""),
        instead(3, b"ok"),
        instead(3, b"/ok\0"),
        instead(3, b"/ok\t"),
        instead(0, b"GET /private HTTP/1.1\r\nA:"),
        instead(0, b"GET "),
        instead(0, b""),
        instead(2, b"a b"),
        instead(2, b"u@s"),
        instead(2, b"s\r\nx: y"),
        instead(1, b"ht tp"),
        vec![
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"s"),
        ],
        vec![
            (b":scheme", b"http"),
            (b":authority", b"s"),
            (b":path", b"/ok"),
        ],
        vec![
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/ok"),
        ],
        vec![
            (b"x", b"1"),
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"s"),
            (b":path", b"/ok"),
        ],
    ];
    for fields in cases {
        let case: Vec<_> = fields
            .iter()
            .map(|(name, value)| {
                (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value),
                )
            })
            .collect();
        let case = format!("{case:?}");
        for door in DOORS {
            let outcome = both.ask(door, &fields, None).await;
            assert!(outcome.is_refusal(), "{case}, {door:?}: {outcome:?}");
            assert_eq!(both.got(&case), 0, "{case}, {door:?}");
        }
    }
    both.works("fields").await;
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_refused() {
    let both = Both::new().await;
    for (case, length, data) in [
        ("short", "5", Some(&b"abc"[..])),
        ("long", "5", Some(b"abcdefgh")),
        ("none", "5", None),
        ("some for nothing", "0", Some(b"abc")),
        ("not a number", "+3", Some(b"abc")),
        ("too large", "18446744073709551617", Some(b"abc")),
    ] {
        let mut fields = get("/ok").to_vec();
        fields[0].1 = b"POST";
        fields.push((b"content-length", length.as_bytes()));
        for door in DOORS {
            let outcome = both.ask(door, &fields, data).await;
            assert!(
                outcome.is_refusal() || matches!(outcome, Outcome::Status(502)),
                "{case}, {door:?}: {outcome:?}"
            );
            // An application may have received the beginning, with a body that broke off; the
            // recorder counts complete requests only.
            if door == Door::MeshTo1 {
                assert_eq!(both.log1.lock().len(), 0, "{case}");
            }
            both.got(case);
        }
    }
    // Two lengths that disagree.
    let mut fields = get("/ok").to_vec();
    fields[0].1 = b"POST";
    fields.push((b"content-length", b"3"));
    fields.push((b"content-length", b"4"));
    for door in DOORS {
        let outcome = both.ask(door, &fields, Some(b"abc")).await;
        assert!(outcome.is_refusal(), "two lengths, {door:?}: {outcome:?}");
        assert_eq!(both.got("two lengths"), 0);
    }
    both.works("lengths").await;
}

/// Without END_STREAM a GET has a body: it must arrive, framed, as HTTP/1.1.
#[tokio::test]
async fn get_body_survives_protocol_version_change() {
    let both = Both::new().await;
    for door in DOORS {
        for method in [&b"GET"[..], b"DELETE", b"OPTIONS"] {
            let mut fields = get("/ok").to_vec();
            fields[0].1 = method;
            let outcome = both.ask(door, &fields, Some(b"hello")).await;
            assert_eq!(outcome, Outcome::Status(200), "{door:?}");
            if door == Door::MeshTo1 {
                let log = both.log1.lock();
                assert_eq!(log[0].body, b"hello", "{log:?}");
                drop(log);
            } else {
                assert!(both.seen.lock()[0].ends_with("body=hello"), "{door:?}");
            }
            assert_eq!(both.got("body"), 1);
        }
    }
}

/// Names of mesh headers that the peer proxy did not make are not the peer's
/// either: only those it needs are read, none is passed on.
#[tokio::test]
async fn mesh_headers_of_a_peer_end_at_the_proxy() {
    let both = Both::new().await;
    let mut fields = get("/ok").to_vec();
    fields.push((b"weft-client-id", b"spiffe://evil"));
    fields.push((b"weft-unsent", b"1"));
    let outcome = both.ask(Door::MeshTo1, &fields, None).await;
    assert_eq!(outcome, Outcome::Status(200));
    let got = both.log1.lock().clone();
    assert_eq!(
        got[0].values("weft-client-id"),
        ["spiffe://cluster.local/ns/shop/sa/web"]
    );
    let ours: Vec<&str> = got[0]
        .head
        .lines()
        .filter(|line| line.to_lowercase().starts_with("weft-"))
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
}

/// A cookie in crumbs is one header again before any rule evaluates it.
#[tokio::test]
async fn crumbs_of_a_cookie_become_one_header() {
    let both = Both::new().await;
    let mut fields = get("/ok").to_vec();
    fields.push((b"cookie", b"a=1"));
    fields.push((b"cookie", b"b=2"));
    assert_eq!(
        both.ask(Door::MeshTo1, &fields, None).await,
        Outcome::Status(200)
    );
    let got = both.log1.lock().clone();
    assert_eq!(got[0].values("cookie"), ["a=1; b=2"], "{got:?}");
}
