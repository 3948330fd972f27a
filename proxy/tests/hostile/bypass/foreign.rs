//! Bytes that cannot begin a request, sent to ports that are declared as HTTP.

use super::*;

/// Sends the bytes, of which nothing may be answered, and waits for the end.
async fn ends_at_once(mut stream: TcpStream, bytes: &[u8], case: &str) {
    // Far below the time that a head has, and far above what a reset takes.
    const AT_ONCE: Duration = Duration::from_secs(2);
    // It may be reset before all of it was sent.
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    let ended = timeout(AT_ONCE, stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "{case} stays open");
    assert!(heard.is_empty(), "{case} is answered {heard:?}");
}

/// Not even by a target that admits any bytes: they are not what the port carries.
#[tokio::test]
async fn what_begins_no_request_ends_on_ports_declared_http() {
    let foreign = [
        ("TLS", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n"),
        ("a word", b"PING\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("PROXY of version 2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
        (
            "a request behind TLS",
            b"\x16\x03\x01GET /public HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
        (
            "a broken method",
            b"G(T /public HTTP/1.1\r\nHost: s\r\n\r\n",
        ),
    ];
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Grpc] {
        for rule in [only_ports(), both_kinds(&["/public"])] {
            let ground = Ground::new(protocol, "").await;
            ground.pods.workload(protocol, Enforcement::Enforce);
            ground.pods.server.set(vec![rule]);
            for (case, bytes) in foreign {
                for entry in ENTRY_POINTS {
                    let case = format!("{case}, {protocol:?}, {entry:?}");
                    ends_at_once(ground.pods.open(entry).await, bytes, &case).await;
                }
            }
            // Control: a request passes.
            let speaking = ENTRY_POINTS
                .into_iter()
                .filter(|_| protocol == Protocol::Http1);
            for entry in speaking {
                let mut stream = ground.pods.open(entry).await;
                let request = b"GET /public HTTP/1.1\r\nHost: s\r\n\r\n";
                stream.write_all(request).await.unwrap();
                sleep(SETTLED).await;
                assert!(
                    ground.kept().starts_with("GET /public HTTP/1.1"),
                    "{protocol:?}, {entry:?}"
                );
            }
            // What the caller's proxy takes for bytes.
            for (case, bytes) in foreign {
                let case = format!("{case}, {protocol:?}, in a tunnel");
                ends_at_once(ground.open(By::Tunnel).await, bytes, &case).await;
            }
            assert_eq!(ground.kept(), "", "{protocol:?}");
        }
    }
}
