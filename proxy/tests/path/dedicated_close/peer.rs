//! A peer that closes a dedicated connection at the moment of its use.
//!
//! Claims: calls-21, mesh-15

use std::future::pending;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::*;

/// Ten seconds, and a moment for a test that shares its machine.
const ABANDONED_WITHIN: Duration = Duration::from_millis(10_500);

/// What a dedicated connection that is not used for requests of its own does to calls.
#[derive(Clone, Copy, Debug)]
enum Trick {
    /// Reads a request, and closes in good order.
    Close,
    /// Reads a request, and closes without a word.
    Break,
    /// Answers with half a head, and closes in good order.
    Half,
    /// Reads a request, and does nothing more on any connection, as a process that was
    /// stopped: its kernel goes on.
    Freeze,
}

type Near = tokio_rustls::server::TlsStream<TcpStream>;

/// Passes everything on, until nothing is.
async fn until_frozen(mut near: Near, mut far: TlsStream<TcpStream>, frozen: &AtomicBool) {
    let freezes = async {
        while !frozen.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        () = freezes => pending().await,
    }
}

/// What follows a request that came by a dedicated connection.
async fn play(trick: Option<Trick>, mut near: Near, frozen: &AtomicBool) {
    match trick {
        Some(Trick::Close) => near.shutdown().await.unwrap(),
        Some(Trick::Half) => {
            near.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.unwrap();
            near.shutdown().await.unwrap();
        }
        Some(Trick::Freeze) => {
            frozen.store(true, Relaxed);
            pending::<()>().await;
        }
        Some(Trick::Break) | None => {}
    }
}

/// A peer proxy that plays tricks with its first dedicated connection and is honest over HTTP/2.
/// Returns the requests that came over such a one, or without a trick the connections: then it
/// supports HTTP/2 only.
async fn trickster(trick: Option<Trick>) -> (Pod, Pod, SeenRequests, Arc<AtomicU32>) {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let dedicated = Arc::new(AtomicU32::new(0));
    // In the place of the server's mesh port: what is HTTP/2 goes on to it.
    let ip = std::net::IpAddr::from(match server.ip {
        std::net::IpAddr::V4(ip) => [ip.octets()[0], ip.octets()[1], 255, ip.octets()[3]],
        std::net::IpAddr::V6(_) => unreachable!("pods of these tests have IPv4"),
    });
    let certs = authority.leaf("api", Duration::from_secs(600), SystemTime::now());
    let both = [DEDICATED_ALPN, MESH_ALPN];
    let alpn: &[&[u8]] = if trick.is_some() { &both } else { &both[1..] };
    let config = tls::mesh_server_config(&authority.roots(), &certs, alpn, ClientAuth::Required);
    let own = authority.leaf("web", Duration::from_secs(600), SystemTime::now());
    let onward = tls::mesh_client_config(&authority.roots(), &own, id("api"), &[MESH_ALPN]);
    let listener = TcpListener::bind((ip, MESH_PORT)).await.unwrap();
    let real = server.ip;
    let count = Arc::clone(&dedicated);
    let frozen = Arc::<AtomicBool>::default();
    tokio::spawn(async move {
        let mut connections = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if frozen.load(Relaxed) {
                connections.push(stream);
                continue;
            }
            let frozen = Arc::clone(&frozen);
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&onward));
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut near = acceptor.accept(stream).await.unwrap();
                if near.get_ref().1.alpn_protocol() == Some(MESH_ALPN) {
                    count.fetch_add(u32::from(trick.is_none()), Relaxed);
                    let far = TcpStream::connect((real, MESH_PORT)).await.unwrap();
                    let far = connector.connect(tls::peer_name(), far).await.unwrap();
                    until_frozen(near, far, &frozen).await;
                    return;
                }
                let mut got = Vec::new();
                while !got.ends_with(b"hello") {
                    let mut more = [0; 2048];
                    let read = near.read(&mut more).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    got.extend_from_slice(&more[..read]);
                }
                count.fetch_add(1, Relaxed);
                play(trick, near, &frozen).await;
            });
        }
    });
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.set(vec![endpoints(
        "api",
        vec![endpoint(ip, port, Some("api"))],
    )]);
    (client, server, seen, dedicated)
}

/// Posts until one went by a dedicated connection, and returns its answer; with how many were
/// sent in all.
async fn posts_until_dedicated(client: &Pod, dedicated: &AtomicU32) -> (String, usize) {
    for sent in 1..200 {
        let answer = post(client).await;
        if dedicated.load(Relaxed) > 0 {
            return (answer, sent);
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no request came by a dedicated connection");
}

#[tokio::test]
async fn post_unsent_by_dedicated_connection_arrives_once() {
    let (client, _server, seen, dedicated) = trickster(Some(Trick::Close)).await;
    let (answer, sent) = posts_until_dedicated(&client, &dedicated).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(seen.lock().len(), sent);
}

#[tokio::test]
async fn post_possibly_taken_by_dedicated_connection_is_not_resent() {
    for trick in [Trick::Break, Trick::Half] {
        let (client, _server, seen, dedicated) = trickster(Some(trick)).await;
        let (answer, sent) = posts_until_dedicated(&client, &dedicated).await;
        assert!(
            answer.starts_with("HTTP/1.1 502") && answer.contains("weft-reason: connection-lost"),
            "{trick:?}: {answer}"
        );
        assert_eq!(seen.lock().len(), sent - 1, "{trick:?}");
    }
}

/// There is no other sign: the peer's kernel acknowledges all that arrives.
#[tokio::test]
async fn request_to_frozen_peer_ends_within_ten_seconds() {
    let (client, _server, seen, dedicated) = trickster(Some(Trick::Freeze)).await;
    // As in a process, and as late as can be: hardly anything of the time to its first look
    // is over when the peer freezes.
    tokio::spawn(weft_proxy::sweep(vec![Arc::clone(&client.proxy)]));
    let mut sent = 0;
    let (answer, took) = loop {
        sent += 1;
        let mut stream = client.call(vip()).await;
        let started = Instant::now();
        let answer = raw(&mut stream, POST.as_bytes(), 4 * PATIENCE).await;
        if dedicated.load(Relaxed) > 0 {
            break (answer, started.elapsed());
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("weft-reason: connection-lost"),
        "{answer}"
    );
    assert!(took <= ABANDONED_WITHIN, "{took:?}");
    assert_eq!(seen.lock().len(), sent - 1, "nor is it sent again");
}

#[tokio::test]
async fn older_peer_uses_http2_without_repeated_offers() {
    let (client, server, seen, connections) = trickster(None).await;
    for _ in 0..100 {
        assert!(post(&client).await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    assert_eq!(seen.lock().len(), 100);
    // The one in use, and the one that was to be a dedicated connection.
    assert_eq!(connections.load(Relaxed), 2);
    for pod in [&client, &server] {
        assert!(
            !pod.metrics().contains("weft_tls_failures_total{"),
            "{}",
            pod.metrics()
        );
    }
}
