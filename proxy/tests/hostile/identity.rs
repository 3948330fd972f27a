//! A caller's identity comes from TLS alone, and the proxy forwards to nothing but the
//! application.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::OWN_PORTS;
use weft_proxy::serve_plain;
use wire::v1::Protocol;

use super::raw_http2::{DATA, Outcome, RawHttp2, frame, get};
use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, rest, serving, status};

const TRUE_ID: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[tokio::test]
async fn forged_identity_in_any_spelling_never_arrives() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for forged in [
        "weft-client-id: spiffe://evil",
        "Weft-Client-Id: spiffe://evil",
        "WEFT-CLIENT-ID: spiffe://evil",
        "weft-client-id: spiffe://evil\r\nweft-client-id: spiffe://evil2",
        "weft-anything: evil",
        "Connection: weft-client-id\r\nweft-client-id: spiffe://evil",
        "Connection: close, weft-port, weft-protocol, weft-upgrade",
        "weft-port: 1\r\nweft-protocol: http2\r\nweft-target: /private\r\nweft-upgrade: evil",
        "weft-unsent: 1",
        "Trailer: weft-client-id",
    ] {
        for entry in ENTRY_POINTS {
            let bytes = format!("GET /ok HTTP/1.1\r\nHost: s\r\n{forged}\r\n\r\n");
            let answer = pods.send(entry, bytes).await;
            assert_eq!(status(&answer), 200, "{forged}, {entry:?}: {answer}");
            let got = pods.recorded(forged);
            let expected: &[&str] = match entry {
                EntryPoint::Outbound => &[TRUE_ID],
                EntryPoint::Inbound => &[],
            };
            assert_eq!(
                got[0].values("weft-client-id"),
                expected,
                "{forged}, {entry:?}"
            );
            let ours = got[0].head.to_lowercase().matches("\r\nweft-").count();
            assert_eq!(ours, expected.len(), "{forged}, {entry:?}: {got:?}");
            assert!(
                !got[0].head.contains("\r\nweft-") || !got[0].head.contains("evil"),
                "{forged}, {entry:?}: {got:?}"
            );
        }
    }
    pods.works("forged identities").await;
}

/// Names that applications take for those of the mesh: CGI and its like read any mark as `-`.
const SPELT: [&str; 8] = [
    "weft_client_id",
    "WEFT_Client-Id",
    "weft.client.id",
    "Weft.Client-Id",
    "weft~client-id",
    "weft^client|id",
    "weft'client!id",
    "weft.timeout",
];

// Claims: attack-62
#[tokio::test]
async fn identity_header_with_altered_hyphens_is_removed() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for name in SPELT {
        for entry in ENTRY_POINTS {
            let bytes = format!(
                "POST /ok HTTP/1.1\r\nHost: s\r\n{name}: spiffe://evil\r\n\
                 Trailer: X-Sum, {name}\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nX-Sum: 1\r\n{name}: spiffe://evil\r\n\r\n"
            );
            let answer = pods.send(entry, bytes).await;
            assert_eq!(status(&answer), 200, "{name}, {entry:?}: {answer}");
            let got = pods.recorded(name);
            assert!(!got[0].head.contains("evil"), "{name}, {entry:?}: {got:?}");
            // The trailer without a reserved name passes.
            let trailers = got[0].trailers.to_lowercase();
            assert_eq!(trailers, "x-sum: 1", "{name}, {entry:?}");
        }
    }
    pods.works("other marks").await;
}

/// An HTTP/2 application that keeps the fields of its requests.
async fn keep(stream: TcpStream, kept: Arc<Mutex<String>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let kept = Arc::clone(&kept);
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let trailers = body.trailers().await;
            *kept.lock() += &format!("{:?} {trailers:?}\n", head.headers);
            let _ = respond.send_response(http::Response::new(()), true);
        });
    }
}

// Claims: attack-62
#[tokio::test]
async fn http2_identity_header_with_altered_hyphens_is_removed() {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    let kept = Arc::<Mutex<String>>::default();
    let log = Arc::clone(&kept);
    pods.port = serving(&pods.server, move |stream| keep(stream, Arc::clone(&log))).await;
    pods.deliver_to(pods.port);
    let spelt = SPELT.map(str::to_lowercase);
    for entry in ENTRY_POINTS {
        let mut head = get("/ok").to_vec();
        head[0].1 = b"POST";
        let mut trailers = vec![(&b"x-sum"[..], &b"1"[..])];
        for name in &spelt {
            head.push((name.as_bytes(), b"spiffe://evil"));
            trailers.push((name.as_bytes(), b"spiffe://evil"));
        }
        let mut raw = RawHttp2::new(pods.open(entry).await).await;
        raw.request(1, false, &head).await;
        raw.write(&frame(DATA, 0, 1, b"abc")).await;
        raw.request(1, true, &trailers).await;
        let outcome = raw.outcome(1, Duration::from_secs(2)).await;
        assert_eq!(outcome, Outcome::Status(200), "{entry:?}");
        let got = std::mem::take(&mut *kept.lock());
        assert!(!got.contains("evil"), "{entry:?}: {got}");
        assert!(got.contains("\"x-sum\": \"1\""), "{entry:?}: {got}");
    }
}

#[tokio::test]
async fn what_belongs_to_one_connection_ends_there() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let bytes = "GET /ok HTTP/1.1\r\nHost: s\r\nConnection: X-One, x-two ,Keep-Alive\r\nX-One: 1\r\nx-two: 2\r\nx-three: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\r\n";
        let answer = pods.send(entry, bytes).await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        let got = pods.recorded("hop by hop");
        for gone in [
            "x-one",
            "x-two",
            "keep-alive",
            "proxy-connection",
            "te",
            "upgrade",
        ] {
            assert!(got[0].values(gone).is_empty(), "{gone}, {entry:?}: {got:?}");
        }
        assert_eq!(got[0].values("x-three"), ["3"], "{entry:?}");
    }
    pods.works("hop by hop").await;
}

/// Bytes that are no text in a header that the proxy takes apart.
#[tokio::test]
async fn odd_connection_header_affects_no_other_request() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let mut bytes =
            b"GET /ok HTTP/1.1\r\nHost: s\r\nConnection: \xff\xfe, x\r\nx: \xe9\r\ny: \xe9\r\n\r\n"
                .to_vec();
        let mut stream = pods.open(entry).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes)
            .await
            .unwrap();
        let answer = rest(&mut stream, Duration::from_millis(300)).await;
        // The recorder wants text; whatever it says, the proxy stands.
        assert!(
            [200, 400, 502].contains(&status(&answer)),
            "{entry:?}: {answer}"
        );
        bytes.clear();
        pods.log.lock().clear();
    }
    pods.works("odd bytes").await;
}

/// The inbound side serves the pod's own addresses and no port of the proxy.
#[tokio::test]
async fn inbound_side_relays_to_its_own_pod_only() {
    let pods = TwoPods::new(Protocol::Detect).await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = other.local_addr().unwrap();
    let mut targets: Vec<SocketAddr> = OWN_PORTS
        .iter()
        .map(|port| SocketAddr::new(pods.server.ip, *port))
        .collect();
    targets.push(elsewhere);
    targets.push(SocketAddr::new(pods.client.ip, pods.port));
    targets.push(SocketAddr::new(
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        pods.port,
    ));
    for target in targets {
        let listener = TcpListener::bind((pods.server.ip, 0)).await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tokio::spawn(serve_plain(
            Arc::clone(&pods.server.proxy),
            accepted,
            target,
            runtime::occupancy::Permit::unlisted(),
        ));
        let bytes = b"GET /ok HTTP/1.1\r\nHost: s\r\n\r\n";
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await;
        let answer = rest(&mut stream, Duration::from_secs(1)).await;
        assert_eq!(answer, "", "{target}");
    }
    let waiting = tokio::time::timeout(Duration::from_millis(50), other.accept()).await;
    assert!(waiting.is_err(), "loopback was called");
    assert!(pods.recorded("relay").is_empty());
    pods.works("relay").await;
}

/// The policy of the callee counts, whatever port or name the caller claims.
#[tokio::test]
async fn an_identity_is_not_inherited_from_an_address() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.workload(Protocol::Http1, wire::v1::Enforcement::Enforce);
    pods.server
        .set(vec![crate::support::rule("t", "web", None, Some(&["/ok"]))]);
    // Without TLS the same pod is a stranger.
    for headers in [
        "",
        "X-Forwarded-For: 10.0.0.1\r\n",
        "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/shop/sa/web\r\n",
    ] {
        let bytes = format!("GET /ok HTTP/1.1\r\nHost: s\r\n{headers}\r\n");
        let answer = pods.send(EntryPoint::Inbound, bytes).await;
        assert_eq!(status(&answer), 403, "{headers}: {answer}");
        assert!(pods.recorded(headers).is_empty());
    }
    let bytes = "GET /ok HTTP/1.1\r\nHost: s\r\n\r\n";
    assert_eq!(status(&pods.send(EntryPoint::Outbound, bytes).await), 200);
}
