//! Rules, modes and revocation on the data path.
//!
//! Claims: attack-56, smi-5

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use crate::support::{Pod, get, http_app, id, listening, pair, raw, resource, rule, vip};

#[tokio::test]
async fn only_what_a_target_allows_reaches_the_application() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    let (status, answer) = get(client.call(vip()).await, "/api", "").await;
    assert_eq!(status, 403);
    assert!(answer.contains("weft-reason: not-allowed"), "{answer}");
    server.set(vec![rule("t", "web", None, Some(&["/api"]))]);
    assert_eq!(get(client.call(vip()).await, "/api/1", "").await.0, 200);
    assert_eq!(get(client.call(vip()).await, "/private", "").await.0, 403);
    // Outside the mesh there is no identity that a target could name.
    let (status, answer) = get(server.plain(port).await, "/api", "").await;
    assert_eq!(status, 403);
    assert!(answer.contains("weft-reason: no-identity"), "{answer}");
    assert_eq!(seen.lock().len(), 1, "{:?}", seen.lock());
}

#[tokio::test]
async fn dot_segments_do_not_lead_around_a_rule() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/public"]))]);
    for path in [
        "/public/../private",
        "/public/%2e%2e/private",
        "/public\\..\\private",
        "/public/./../private",
    ] {
        let (status, answer) = get(client.call(vip()).await, path, "").await;
        assert!(status == 403 || status == 400, "{path}: {answer}");
    }
    assert!(seen.lock().is_empty(), "{:?}", seen.lock());
    assert_eq!(
        get(client.call(vip()).await, "/public/./a?q=/../x", "")
            .await
            .0,
        200
    );
    assert!(
        seen.lock()[0].starts_with("api GET /public/a?q=/../x "),
        "{:?}",
        seen.lock()
    );
}

#[tokio::test]
async fn http_rule_admits_no_bytes_despite_peer_claims() {
    let (client, server, port, seen) = pair(Protocol::Opaque).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/api"]))]);
    // The client proxy believes that the port is opaque and sends CONNECT.
    let mut stream = client.call(vip()).await;
    let answer = raw(&mut stream, b"\x00\x01raw", Duration::from_secs(3)).await;
    assert_eq!(answer, "");
    let (status, _) = get(client.call(vip()).await, "/private", "").await;
    assert_eq!(status, 403);
    let mut stream = client.call(vip()).await;
    let sneaky = "\r\nget /private HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answer = raw(&mut stream, sneaky.as_bytes(), Duration::from_secs(2)).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(seen.lock().is_empty(), "{:?}", seen.lock());
    // Control: what the rule allows passes, on the same kind of stream.
    assert_eq!(get(client.call(vip()).await, "/api", "").await.0, 200);
    let _ = port;
}

#[tokio::test]
async fn a_tcp_rule_admits_bytes_and_http() {
    let (client, server, port, _) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    assert_eq!(get(client.call(vip()).await, "/x", "").await.0, 403);
    server.set(vec![rule("t", "web", Some(&[u32::from(port)]), None)]);
    assert_eq!(get(client.call(vip()).await, "/x", "").await.0, 200);
}

// Claims: mesh-4c
#[tokio::test]
async fn strict_refuses_plaintext_of_both_kinds_at_run_time() {
    let (_client, server, port, seen) = pair(Protocol::Http1).await;
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 200);
    server.mode("api", Enforcement::Open, MtlsMode::Strict);
    let (status, answer) = get(server.plain(port).await, "/", "").await;
    assert_eq!(status, 403);
    assert!(answer.contains("weft-reason: no-identity"), "{answer}");
    assert!(answer.contains("weft.dev/inject=enabled"), "{answer}");
    let mut stream = server.plain(port).await;
    assert_eq!(
        raw(&mut stream, b"\x00raw", Duration::from_secs(3)).await,
        ""
    );
    assert_eq!(seen.lock().len(), 1);
}

/// A strict pod that takes plaintext at these ports.
fn strict_but_at(enforcement: Enforcement, ports: &[u16]) -> v1::Resource {
    let range = |port: &u16| v1::PortRange {
        first: u32::from(*port),
        last: u32::from(*port),
    };
    let workload = v1::Workload {
        identity: id("api").as_str().to_owned(),
        enforcement: enforcement as i32,
        mtls: MtlsMode::Strict as i32,
        permissive_ports: ports.iter().map(range).collect(),
        ..v1::Workload::default()
    };
    resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )
}

#[tokio::test]
async fn permissive_port_of_a_strict_pod_opens_no_other() {
    let (client, server, port, _) = pair(Protocol::Http1).await;
    let (other, of_other) = http_app(&server, "other").await;
    server.set(vec![strict_but_at(Enforcement::Open, &[port])]);
    // No header of a caller leads to another port, or gives it an identity.
    let forged =
        format!("weft-port: {other}\r\nweft-client-id: spiffe://cluster.local/ns/shop/sa/web\r\n");
    let (status, answer) = get(server.plain(port).await, "/metrics", &forged).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("x-app: api"), "{answer}");
    assert!(answer.contains(" id=- "), "{answer}");
    let at = format!("{}:{other}", server.ip);
    for head in [
        format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}"),
        format!("CONNECT {at} HTTP/1.1\r\nHost: {at}"),
    ] {
        let head = format!("{head}\r\nConnection: close\r\n\r\n");
        raw(
            &mut server.plain(port).await,
            head.as_bytes(),
            Duration::from_secs(2),
        )
        .await;
    }
    let (status, answer) = get(server.plain(other).await, "/", "").await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("weft-reason: no-identity"), "{answer}");
    let mut bytes = server.plain(other).await;
    assert_eq!(
        raw(&mut bytes, b"\x00raw", Duration::from_secs(3)).await,
        ""
    );
    assert!(of_other.lock().is_empty(), "{:?}", of_other.lock());
    // Control: an identity opens both.
    client.reaches(&server, other);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    assert_eq!(of_other.lock().len(), 1);
}

#[tokio::test]
async fn rules_hold_at_a_permissive_port() {
    let (_client, server, port, seen) = pair(Protocol::Http1).await;
    server.set(vec![strict_but_at(Enforcement::Enforce, &[port])]);
    let (status, answer) = get(server.plain(port).await, "/metrics", "").await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("weft-reason: no-identity"), "{answer}");
    let mut outside = rule("t", "absent", None, Some(&["/metrics$"]));
    if let Some(v1::resource::Content::Rule(rule)) = &mut outside.content {
        rule.sources = vec![v1::Source {
            who: Some(v1::source::Who::Unauthenticated(true)),
        }];
    }
    server.set(vec![outside]);
    for (path, expected) in [("/metrics", 200), ("/admin", 403)] {
        let (status, answer) = get(server.plain(port).await, path, "").await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    let mut bytes = server.plain(port).await;
    assert_eq!(
        raw(&mut bytes, b"\x00raw", Duration::from_secs(3)).await,
        ""
    );
    assert_eq!(seen.lock().len(), 1, "{:?}", seen.lock());
}

#[tokio::test]
async fn plaintext_connection_ends_when_its_port_is_strict_again() {
    let (_client, server, port, _) = pair(Protocol::Http1).await;
    server.set(vec![strict_but_at(Enforcement::Open, &[port])]);
    let mut stream = server.plain(port).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 1024];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    server.set(vec![strict_but_at(Enforcement::Open, &[])]);
    let rest = async { while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
    let ended = tokio::time::timeout(Duration::from_secs(10), rest).await;
    assert!(ended.is_ok(), "it goes on without an identity");
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 403);
    // Ports that cannot be read change nothing.
    let mut unreadable = strict_but_at(Enforcement::Open, &[port]);
    if let Some(v1::resource::Content::Workload(workload)) = &mut unreadable.content {
        workload.permissive_ports[0].last = 65_536;
    }
    let nacks = server.try_set(vec![unreadable]);
    assert!(
        nacks[0].reason.contains("permissivePorts[0].last"),
        "{nacks:?}"
    );
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 403);
}

#[tokio::test]
async fn audit_lets_pass_and_counts() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Audit, MtlsMode::Permissive);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    assert!(
        server.metrics().contains("weft_audit_refusals_total{"),
        "{}",
        server.metrics()
    );
}

#[tokio::test]
async fn strict_mtls_refusal_is_not_counted_by_audit() {
    let (_client, server, port, seen) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Audit, MtlsMode::Strict);
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 403);
    let counted = |pod: &Pod| pod.metrics().contains("weft_audit_refusals_total{");
    assert!(!counted(&server), "{}", server.metrics());
    // Control: the same call where plaintext is taken.
    server.mode("api", Enforcement::Audit, MtlsMode::Permissive);
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 200);
    assert!(counted(&server), "{}", server.metrics());
    assert_eq!(seen.lock().len(), 1);
}

// Claims: mesh-4c
#[tokio::test]
async fn an_open_tcp_connection_ends_when_its_rule_goes() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    client.reaches(&server, port);
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", Some(&[]), None)]);
    let mut stream = client.call(vip()).await;
    let mut echo = [0; 4];
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut echo).await.unwrap();
    // A change that allows as much leaves it open.
    server.set(vec![rule("u", "other", Some(&[]), None)]);
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut echo).await.unwrap();
    server.set(vec![rule("t", "absent", Some(&[]), None)]);
    let ended = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut echo)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

#[tokio::test]
async fn unusable_rule_is_refused_and_revokes_former_version() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    let other = rule("u", "web", None, Some(&["/other"]));
    server.set(vec![rule("t", "web", None, Some(&["/api"])), other]);
    assert_eq!(get(client.call(vip()).await, "/api", "").await.0, 200);
    let nacks = server.try_set(vec![rule("t", "web", None, Some(&["/(("]))]);
    assert_eq!(nacks.len(), 1);
    assert!(nacks[0].reason.contains("path"), "{nacks:?}");
    assert_eq!(get(client.call(vip()).await, "/api", "").await.0, 403);
    assert_eq!(get(client.call(vip()).await, "/other", "").await.0, 200);
}

#[tokio::test]
async fn rule_with_unknown_content_allows_nothing_sparing_others() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    let former = || rule("t", "web", None, Some(&["/api"]));
    server.set(vec![former(), rule("u", "web", None, Some(&["/other"]))]);
    assert_eq!(get(client.call(vip()).await, "/api", "").await.0, 200);

    // A source of a kind that only a later version knows, beside one that is known.
    let mut later = former();
    if let Some(v1::resource::Content::Rule(rule)) = &mut later.content {
        rule.sources.push(v1::Source { who: None });
    }
    let nacks = server.try_set(vec![later]);
    assert_eq!(nacks.len(), 1);
    assert!(nacks[0].reason.contains("does not know"), "{nacks:?}");
    assert_eq!(get(client.call(vip()).await, "/api", "").await.0, 403);
    assert_eq!(get(client.call(vip()).await, "/other", "").await.0, 200);

    // The same for a rule that travels in a kind of resource that is unknown.
    server.set(vec![former()]);
    assert_eq!(get(client.call(vip()).await, "/api", "").await.0, 200);
    let later = v1::Resource {
        content: None,
        ..former()
    };
    assert_eq!(server.try_set(vec![later]).len(), 1);
    assert_eq!(get(client.call(vip()).await, "/api", "").await.0, 403);
    assert_eq!(get(client.call(vip()).await, "/other", "").await.0, 200);
}

// Claims: mesh-4c
#[tokio::test]
async fn inflight_request_ends_thirty_seconds_after_rule_removal() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = listening(&client, &server).await;
    tokio::spawn(async move {
        // Answers a head, then nothing for ever.
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                .await
                .unwrap();
            open.push(stream);
        }
    });
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/"]))]);
    let mut stream = client.call(vip()).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        let mut buffer = [0; 512];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    tokio::time::pause();
    server.set(vec![rule("t", "absent", None, Some(&["/"]))]);
    let changed = tokio::time::Instant::now();
    let mut buffer = [0; 16];
    let ended = stream.read(&mut buffer).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let after = changed.elapsed();
    assert!(
        (Duration::from_secs(29)..Duration::from_secs(35)).contains(&after),
        "{after:?}"
    );
}

#[tokio::test]
async fn response_started_after_rule_removal_ends_thirty_seconds_later() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = listening(&client, &server).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/"]))]);
    let mut stream = client.call(vip()).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let (mut served, _) = listener.accept().await.unwrap();
    let mut head = [0; 512];
    let _ = served.read(&mut head).await;
    server.set(vec![rule("t", "absent", None, Some(&["/"]))]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    served
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        let mut buffer = [0; 512];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    tokio::time::pause();
    let mut buffer = [0; 16];
    let ended = tokio::time::timeout(Duration::from_secs(40), stream.read(&mut buffer)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

#[tokio::test]
async fn audit_passes_bytes_that_look_like_bad_http() {
    let (_client, server, _, _) = pair(Protocol::Detect).await;
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    server.mode("api", Enforcement::Audit, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/api"]))]);
    let mut stream = server.plain(port).await;
    stream.write_all(b"ehlo there").await.unwrap();
    let mut echo = [0; 10];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut echo)).await;
    assert!(matches!(read, Ok(Ok(_))), "{read:?}");
    assert_eq!(&echo, b"ehlo there");
    // One connection counts once, however often it was looked at on its way.
    let metrics = server.metrics();
    let count = metrics
        .lines()
        .find(|line| line.starts_with("weft_audit_refusals_total{"));
    assert!(count.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
}

/// A rule that comes later is applied to the path as it would have been then.
// Claims: A5, attack-10
#[tokio::test]
async fn upgraded_connection_is_reevaluated_by_normalized_path() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                let _ = stream.write_all(switched).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    client.reaches(&server, port);
    let cases = [
        ("/public/../private", false),
        ("/public/..%2fx", false),
        ("/public/%2fx", true),
        // It went on as it was sent, and was not allowed so.
        ("//public", false),
        ("/%70ublic", true),
        ("/x/..//public", true),
        ("/public", true),
    ];
    let mut open = Vec::new();
    for (path, stays) in cases {
        let mut stream = client.call(vip()).await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 101 "), "{path}");
        open.push((path, stays, stream));
    }
    server.set(vec![rule("t", "web", None, Some(&["/public"]))]);
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for (path, stays, mut stream) in open {
        let _ = stream.write_all(b"ping").await;
        let mut back = [0; 4];
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut back)).await;
        let alive = matches!(read, Ok(Ok(_)));
        assert_eq!(alive, stays, "{path}: {read:?}");
    }
}
