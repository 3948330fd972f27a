//! Upgrades: no connection switches to HTTP/2, whatever the protocol is called.
//!
//! Claims: attack-102, attack-5

use super::super::raw_http2::{DATA, END_STREAM, frame};
use super::*;

/// The beginning of a request for an upgrade, and its body.
const GET: (&[u8], &[u8]) = (b"GET /ok HTTP/1.1\r\n", b"");
const POST: (&[u8], &[u8]) = (b"POST /ok HTTP/1.1\r\nContent-Length: 5\r\n", b"hello");

/// Answers every request for an upgrade with a switch to `chosen`, or to the requested protocol,
/// and keeps all that it receives.
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
            let offered = head
                .lines()
                .find_map(|line| line.strip_prefix("upgrade: ").map(str::to_owned));
            let answer = match (offered, chosen) {
                (Some(offered), None) => switch_to(&offered),
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

async fn ask_for(
    pods: &TwoPods,
    entry: EntryPoint,
    (begins, body): (&[u8], &[u8]),
    upgrade: &[u8],
) -> (u16, TcpStream) {
    let mut stream = pods.open(entry).await;
    let request = [
        begins,
        b"Host: s\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: ",
        upgrade,
        b"\r\n\r\n",
        body,
    ];
    stream.write_all(&request.concat()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = timeout(Duration::from_secs(2), stream.read(&mut answer))
        .await
        .map_or(0, Result::unwrap_or_default);
    (status(&String::from_utf8_lossy(&answer[..count])), stream)
}

/// A peer that holds a certificate of the mesh, by HTTP/2.
async fn peer(pods: &TwoPods) -> RawHttp2 {
    let certs = pods
        .authority
        .leaf("web", Duration::from_secs(600), SystemTime::now());
    let config = tls::mesh_client_config(&pods.authority.roots(), &certs, id("api"), &[MESH_ALPN]);
    let stream = TcpStream::connect((pods.server.ip, MESH_PORT)).await;
    let secured = tokio_rustls::TlsConnector::from(config)
        .connect(tls::peer_name(), stream.unwrap())
        .await
        .unwrap();
    RawHttp2::new(secured).await
}

// Claims: A3
#[tokio::test]
async fn no_upgrade_switches_to_http2_by_any_name() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let (port, kept) = switching(&pods.server, None).await;
    pods.deliver_to(port);
    pods.port = port;
    pods.allow(Protocol::Http1, &["/ok"]);
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
        for (entry, begins) in ENTRY_POINTS
            .map(|entry| [(entry, GET), (entry, POST)])
            .concat()
        {
            let (_, mut stream) = ask_for(&pods, entry, begins, upgrade).await;
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            let _ = stream.write_all(preface).await;
            let _ = rest(&mut stream, Duration::from_millis(100)).await;
            let arrived =
                String::from_utf8_lossy(&std::mem::take(&mut *kept.lock())).to_lowercase();
            let offered = arrived.lines().filter(|line| line.starts_with("upgrade:"));
            for offer in offered {
                assert!(
                    !offer.contains("h2") && !offer.contains("http"),
                    "{name:?}, {entry:?}: {offer}"
                );
            }
        }
    }
    // By a peer that calls it so.
    for (upgrade, expected) in [
        (&b"h2c"[..], 400),
        (b"h2c, foo", 200),
        (b"h2c\xa0", 400),
        (b"websocket", 200),
    ] {
        let mut raw = peer(&pods).await;
        let port = pods.port.to_string();
        let fields: [(&[u8], &[u8]); 6] = [
            (b":method", b"CONNECT"),
            (b":authority", b"s"),
            (b"weft-port", port.as_bytes()),
            (b"weft-protocol", b"http1"),
            (b"weft-upgrade", upgrade),
            (b"weft-target", b"/ok"),
        ];
        raw.request(1, false, &fields).await;
        let outcome = raw.outcome(1, Duration::from_secs(2)).await;
        let name = String::from_utf8_lossy(upgrade);
        assert_eq!(outcome, Outcome::Status(expected), "{name:?}");
        let arrived = String::from_utf8_lossy(&std::mem::take(&mut *kept.lock())).to_lowercase();
        assert!(!arrived.contains("h2c"), "{name:?}: {arrived}");
    }
    // Control: other protocols are switched to, and their bytes pass.
    for entry in ENTRY_POINTS {
        let (status, mut stream) = ask_for(&pods, entry, GET, b"websocket").await;
        assert_eq!(status, 101, "{entry:?}");
        stream.write_all(b"frames").await.unwrap();
        let mut back = [0; 6];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"frames", "{entry:?}");
    }
}

// Claims: A3
#[tokio::test]
async fn unrequested_switch_to_http2_by_application_gets_502() {
    for chosen in ["h2c", "H2C", "h2c\u{a0}", "foo, h2c"] {
        let mut pods = TwoPods::new(Protocol::Http1).await;
        let (port, kept) = switching(&pods.server, Some(chosen)).await;
        pods.deliver_to(port);
        pods.port = port;
        for entry in ENTRY_POINTS {
            let (status, mut stream) = ask_for(&pods, entry, GET, b"foo").await;
            assert_eq!(status, 502, "{chosen:?}, {entry:?}");
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            let _ = rest(&mut stream, Duration::from_millis(100)).await;
            let arrived = String::from_utf8_lossy(&std::mem::take(&mut *kept.lock())).into_owned();
            assert!(!arrived.contains("PRI"), "{chosen:?}, {entry:?}: {arrived}");
        }
    }
}

#[tokio::test]
async fn post_to_a_denied_path_is_refused_without_its_upgrade() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let (port, kept) = switching(&pods.server, None).await;
    pods.deliver_to(port);
    pods.port = port;
    pods.allow(Protocol::Http1, &["/ok"]);
    for entry in ENTRY_POINTS {
        let bytes = "POST /private HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 5\r\n\r\nhelloGET /private HTTP/1.1\r\nHost: s\r\n\r\n";
        let answer = pods.send_and_stay(entry, bytes).await;
        assert_eq!(status(&answer), 403, "{entry:?}: {answer}");
        assert!(!answer.contains(" 101 "), "{entry:?}: {answer}");
        assert!(kept.lock().is_empty(), "{entry:?}");
    }
    // Control: what is allowed switches.
    let (status, _stream) = ask_for(&pods, EntryPoint::Outbound, POST, b"foo").await;
    assert_eq!(status, 101);
}

/// Messages of a peer proxy in one piece with a body, shorter than announced, or that it may not
/// send.
#[tokio::test]
async fn peer_smuggles_no_bytes_with_the_body_of_a_post() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let (port, kept) = switching(&pods.server, None).await;
    pods.deliver_to(port);
    pods.port = port;
    pods.allow(Protocol::Http1, &["/ok"]);
    let port = pods.port.to_string();
    for (path, length, data, flags, expected) in [
        ("/ok", "5", "hello", 0, 200),
        (
            "/ok",
            "5",
            "helloGET /private HTTP/1.1\r\nHost: s\r\n\r\n",
            0,
            421,
        ),
        ("/ok", "5", "he", END_STREAM, 421),
        ("/private", "5", "hello", 0, 421),
        // What is no message of a peer is refused as by a proxy that knows no such request; the
        // answers before are marked.
        ("/ok", "65537", "hello", 0, 400),
        ("/ok", "", "hello", 0, 400),
    ] {
        let mut raw = peer(&pods).await;
        let fields: [(&[u8], &[u8]); 7] = [
            (b":method", b"CONNECT"),
            (b":authority", b"s"),
            (b"weft-port", port.as_bytes()),
            (b"weft-protocol", b"http1-post"),
            (b"weft-upgrade", b"foo"),
            (b"weft-target", path.as_bytes()),
            (b"weft-body", length.as_bytes()),
        ];
        raw.request(1, false, &fields).await;
        raw.write(&frame(DATA, flags, 1, data.as_bytes())).await;
        let outcome = raw.outcome(1, Duration::from_secs(2)).await;
        let case = format!("{path} {length} {data:?}");
        assert_eq!(outcome, Outcome::Status(expected), "{case}");
        sleep(SETTLED).await;
        let arrived = String::from_utf8_lossy(&std::mem::take(&mut *kept.lock())).into_owned();
        if expected == 200 {
            assert!(
                arrived.starts_with("POST /ok ") && arrived.ends_with("hello"),
                "{arrived}"
            );
        } else {
            assert!(arrived.is_empty(), "{case}: {arrived}");
        }
    }
}

/// What a peer proxy sends behind a body is no request where its application switches to nothing.
#[tokio::test]
async fn bytes_behind_unswitched_post_reach_no_application() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    let port = pods.port.to_string();
    let fields: [(&[u8], &[u8]); 7] = [
        (b":method", b"CONNECT"),
        (b":authority", b"s"),
        (b"weft-port", port.as_bytes()),
        (b"weft-protocol", b"http1-post"),
        (b"weft-upgrade", b"foo"),
        (b"weft-target", b"/ok"),
        (b"weft-body", b"5"),
    ];
    // In one piece with the body it is refused as none.
    for (pause, arrive) in [(Duration::ZERO, 0..=1), (SETTLED, 1..=1)] {
        let mut raw = peer(&pods).await;
        raw.request(1, false, &fields).await;
        raw.write(&frame(DATA, 0, 1, b"hello")).await;
        sleep(pause).await;
        let behind = b"GET /private HTTP/1.1\r\nHost: s\r\n\r\n";
        raw.write(&frame(DATA, END_STREAM, 1, behind)).await;
        let outcome = raw.outcome(1, Duration::from_secs(2)).await;
        assert_eq!(outcome, Outcome::Status(421), "{pause:?}");
        sleep(SETTLED).await;
        let got = pods.recorded("behind");
        assert!(arrive.contains(&got.len()), "{pause:?}: {got:?}");
        for one in got {
            assert_eq!(
                (one.line(), &one.body[..]),
                ("POST /ok HTTP/1.1", &b"hello"[..])
            );
        }
    }
    pods.works("behind a POST").await;
}
