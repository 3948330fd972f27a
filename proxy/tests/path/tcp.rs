//! Opaque bytes through two proxies, as both applications see them.
//!
//! Claims: attack-4

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use runtime::occupancy::Permit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weft_proxy::{of_listener, serve_outbound};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use crate::support::{Authority, Pod, endpoint, endpoints, pair, raw, service, vip};

/// Echoes until the client ends; speaks first when `banner` is not empty.
pub(super) async fn echo(pod: &Pod, banner: &'static str) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(banner.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}

#[tokio::test]
async fn opaque_bytes_pass_with_half_close() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let port = echo(&server, "").await;
    client.reaches(&server, port);
    let mut stream = client.call(vip()).await;
    stream.write_all(b"\x00binary").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(
        raw(&mut stream, b"", Duration::from_secs(5)).await,
        "\0binary"
    );
    let bytes = server.metrics();
    assert!(
        bytes.contains(
            "weft_tcp_bytes_total{direction=\"inbound\",flow=\"sent\",security=\"mtls\"} 7"
        ),
        "{bytes}"
    );
}

/// Before its caller sends anything, as a port without a listener does it.
#[tokio::test]
async fn bytes_to_a_service_without_endpoints_are_reset_without_waiting() {
    let client = Pod::new(&Authority::new(), "web").await;
    for protocol in [Protocol::Opaque, Protocol::Tls] {
        client.set(service("api", vip().ip(), protocol, Vec::new()));
        client.set(vec![endpoints("api", Vec::new())]);
        let (mut application, stream) = client.accepted().await;
        let proxy = Arc::clone(&client.proxy);
        let serving = serve_outbound(proxy, stream, vip(), Permit::unlisted());
        // Polled once: neither a timer nor a byte is waited for.
        assert!(serving.now_or_never().is_some(), "{protocol:?}");
        let ended = tokio::time::timeout(Duration::from_secs(5), application.read_u8()).await;
        let ended = ended.unwrap().unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{protocol:?}");
    }
}

#[tokio::test]
async fn server_first_protocol_on_undeclared_port_passes_immediately() {
    for meshed in [true, false] {
        let (client, server, _, _) = pair(Protocol::Detect).await;
        let port = echo(&server, "220 ready\r\n").await;
        client.set(vec![endpoints(
            "api",
            vec![endpoint(server.ip, port, meshed.then_some("api"))],
        )]);
        let started = Instant::now();
        let mut stream = client.call(vip()).await;
        let mut banner = [0; 11];
        stream.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"220 ready\r\n");
        assert!(
            started.elapsed() < Duration::from_millis(1500),
            "{:?}",
            started.elapsed()
        );
        stream.write_all(b"EHLO").await.unwrap();
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"EHLO");
    }
}

#[tokio::test]
async fn a_banner_reaches_callers_outside_the_mesh_too() {
    let (_client, server, _, _) = pair(Protocol::Detect).await;
    let port = echo(&server, "220 ready\r\n").await;
    let started = Instant::now();
    let mut stream = server.plain(port).await;
    let mut banner = [0; 11];
    stream.read_exact(&mut banner).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[tokio::test]
async fn late_client_on_undeclared_port_loses_no_bytes() {
    let (client, server, _, _) = pair(Protocol::Detect).await;
    let port = echo(&server, "").await;
    client.reaches(&server, port);
    let mut stream = client.call(vip()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.write_all(b"\x01late").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"\x01late");
}

/// Its client waits for the answer, so nothing more comes that would make it clear.
#[tokio::test]
async fn bare_uppercase_command_without_newline_is_passed_on() {
    let (client, server, _, _) = pair(Protocol::Detect).await;
    let port = echo(&server, "").await;
    client.reaches(&server, port);
    for word in [&b"C"[..], b"PING", b"STATUS"] {
        for mut stream in [server.plain(port).await, client.call(vip()).await] {
            stream.write_all(word).await.unwrap();
            let mut back = vec![0; word.len()];
            let read = stream.read_exact(&mut back);
            let read = tokio::time::timeout(Duration::from_secs(4), read).await;
            read.expect("it must have been passed on").unwrap();
            assert_eq!(back, word);
            // What turns out to be HTTP does not pass unread.
            let rest = b" / HTTP/1.1\r\nHost: h\r\nweft-client-id: spiffe://evil\r\n\r\n";
            let back = raw(&mut stream, rest, Duration::from_secs(5)).await;
            assert!(!back.contains("evil"), "{back}");
        }
    }
}

#[tokio::test]
async fn waiting_or_tunnelling_caller_cannot_forge_identity() {
    let (client, server, port, seen) = pair(Protocol::Opaque).await;
    let forged =
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nweft-client-id: spiffe://evil\r\n\r\n";
    // Outside the mesh: silent for longer than detection takes.
    let mut stream = server.plain(port).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(
        raw(&mut stream, forged.as_bytes(), Duration::from_secs(5))
            .await
            .starts_with("HTTP/1.1 200")
    );
    // Outside, with a first line that dribbles.
    let mut stream = server.plain(port).await;
    stream.write_all(b"GE").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(
        raw(&mut stream, &forged.as_bytes()[2..], Duration::from_secs(5))
            .await
            .starts_with("HTTP/1.1 200")
    );
    // Inside: HTTP in what its proxy calls an opaque tunnel.
    let mut stream = client.call(vip()).await;
    assert!(
        raw(&mut stream, forged.as_bytes(), Duration::from_secs(5))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let ids: Vec<bool> = seen
        .lock()
        .iter()
        .map(|line| line.contains("evil"))
        .collect();
    assert_eq!(ids, [false; 3], "{:?}", seen.lock());
    assert!(
        seen.lock()[2].contains("id=spiffe://cluster.local/ns/shop/sa/web"),
        "{:?}",
        seen.lock()
    );
}

#[tokio::test]
async fn opaque_connection_closed_for_memory_counts_as_broken() {
    let (_client, server, _, _) = pair(Protocol::Opaque).await;
    let port = echo(&server, "").await;
    let occupancy = of_listener(&server.proxy.telemetry.metrics, |_| {}, true, 1).occupancy;
    let holder = IpAddr::from([10, 0, 0, 1]).into();
    let permit = occupancy.try_admit(&holder).unwrap().unwrap();
    let mut stream = server.plain_at(port, permit).await;
    stream.write_all(b"\x00binary").await.unwrap();
    let mut echo = [0; 7];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(occupancy.shed(&holder, usize::MAX), 1);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    // A clean end would say that this was all.
    assert!(matches!(ended, Ok(Err(_))), "{ended:?}");
    while occupancy.taken() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let metrics = server.metrics();
    let counted = |family: &str, parts: &[&str]| {
        let mut lines = metrics.lines().filter(|line| line.starts_with(family));
        lines.any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let broken = ["direction=\"inbound\"", "reason=\"connection-lost\"} 1"];
    assert!(counted("weft_tcp_connections_total", &broken), "{metrics}");
    for flow in ["flow=\"sent\"", "flow=\"received\""] {
        let bytes = ["direction=\"inbound\"", flow, "} 7"];
        assert!(counted("weft_tcp_bytes_total", &bytes), "{flow}: {metrics}");
    }
}

/// A clean end would say to either side that the other one had nothing more to say.
// Claims: R4, attack-73
#[tokio::test]
async fn policy_change_resets_both_sides_of_refused_connections_only() {
    for refused in [true, false] {
        let (_client, server, _, _) = pair(Protocol::Detect).await;
        let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut caller = server.plain(port).await;
        // Called ahead, as the caller is silent.
        let (mut app, _) = listener.accept().await.unwrap();
        if refused {
            server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
        }
        caller.write_all(b"\x00binary").await.unwrap();
        if !refused {
            app.read_exact(&mut [0; 7]).await.unwrap();
            caller.shutdown().await.unwrap();
            app.shutdown().await.unwrap();
        }
        for side in [&mut caller, &mut app] {
            let mut rest = Vec::new();
            let read = side.read_to_end(&mut rest);
            let ended = tokio::time::timeout(Duration::from_secs(5), read).await;
            let ended = ended.expect("it ends");
            assert_eq!(ended.is_err(), refused, "{ended:?}");
            assert!(rest.is_empty(), "{rest:?}");
        }
    }
}
