//! The admin server over loopback.
//!
//! Claims: attack-71

use std::net::{IpAddr, Ipv4Addr};

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::large::MAX_PAGES;
use super::*;
use crate::occupancy::Holder;

async fn start(ready: Ready, registry: Registry) -> SocketAddr {
    let admin = Admin::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let addr = admin.local_addr().unwrap();
    let registry = Arc::new(Mutex::new(registry));
    tokio::spawn(
        admin.run(ready, registry, |request: Request, peer| async move {
            match request.uri().path() {
                "/whoami" => text(StatusCode::OK, peer.ip().to_string()),
                "/length" => text(StatusCode::OK, request.body().len().to_string()),
                _ => nothing_more(request, peer).await,
            }
        }),
    );
    addr
}

/// Sends raw bytes and returns everything until the server closes.
async fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may refuse and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    exchange(addr, request.as_bytes()).await
}

#[tokio::test]
async fn ready_is_503_with_names_until_last_release() {
    let ready = Ready::new();
    let certificate = ready.hold("certificate");
    let policy = ready.hold("policy");
    let addr = start(ready.clone(), Registry::default()).await;

    let answer = get(addr, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with("waiting for: certificate, policy\n"),
        "{answer}"
    );
    assert!(get(addr, "/live").await.starts_with("HTTP/1.1 200"));

    certificate.release();
    policy.release();
    ready.note(Some("leaving: plaintext is relayed"));
    let answer = get(addr, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.ends_with("ready\nleaving: plaintext is relayed\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let mut registry = Registry::with_prefix("weft");
    let calls = Counter::<u64>::default();
    registry.register("calls", "Calls", calls.clone());
    calls.inc_by(3);
    let addr = start(Ready::new(), registry).await;

    let answer = get(addr, "/metrics").await;
    assert!(
        answer.contains("content-type: application/openmetrics-text"),
        "{answer}"
    );
    assert!(answer.contains("weft_calls_total 3\n"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn other_admin_paths_reach_handler_with_peer_address() {
    let addr = start(Ready::new(), Registry::default()).await;
    assert!(get(addr, "/whoami").await.ends_with("127.0.0.1"));
    assert!(get(addr, "/elsewhere").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn fixed_pages_take_no_other_method() {
    let addr = start(Ready::new(), Registry::default()).await;
    let request = b"POST /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert!(exchange(addr, request).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn head_beyond_its_bound_is_refused() {
    let addr = start(Ready::new(), Registry::default()).await;
    let request = format!(
        "GET /live HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "x".repeat(MAX_HEAD)
    );
    let answer = exchange(addr, request.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}

#[tokio::test]
async fn admin_body_is_accepted_only_up_to_limit() {
    let addr = start(Ready::new(), Registry::default()).await;
    let post = |length: usize| {
        format!(
            "POST /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{}",
            "x".repeat(length)
        )
    };
    let answer = exchange(addr, post(MAX_BODY).as_bytes()).await;
    assert!(answer.ends_with(&MAX_BODY.to_string()), "{answer}");
    let answer = exchange(addr, post(MAX_BODY + 1).as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
}

// Claims: B3
#[tokio::test]
async fn hoarded_connections_do_not_keep_a_probe_out() {
    let addr = start(Ready::new(), Registry::default()).await;
    let mut hoard = Vec::new();
    for _ in 0..MAX_CONNECTIONS * 2 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"GET /li").await.unwrap();
        hoard.push(stream);
    }
    assert!(get(addr, "/live").await.starts_with("HTTP/1.1 200"));
    // The oldest was closed for a newer one.
    let mut rest = Vec::new();
    let closed = hoard[0].read_to_end(&mut rest);
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
    assert!(closed.is_ok(), "the oldest connection is still open");
}

#[tokio::test(start_paused = true)]
async fn head_that_never_ends_is_cut_after_its_time() {
    let addr = start(Ready::new(), Registry::default()).await;
    let before = tokio::time::Instant::now();
    let answer = exchange(addr, b"GET /live HTTP/1.1\r\nhost:").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(before.elapsed() <= HEAD_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn kept_connection_that_rests_is_closed() {
    let addr = start(Ready::new(), Registry::default()).await;
    let before = tokio::time::Instant::now();
    let answer = exchange(addr, b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(before.elapsed() <= HEAD_TIMEOUT + Duration::from_secs(1));
}

/// Another address of this host.
async fn connect_from(last: u8, addr: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket
        .bind((Ipv4Addr::new(127, 0, 9, last), 0).into())
        .unwrap();
    socket.connect(addr).await.unwrap()
}

/// True while the server keeps the connection.
async fn is_open(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_millis(300), ended).await;
    ended.is_err()
}

// Claims: B3
#[tokio::test]
async fn per_address_share_preserves_inflight_request_in_flood() {
    let addr = start(Ready::new(), Registry::default()).await;
    // The kubelet has asked, and waits for the body to be taken.
    let mut probe = connect_from(200, addr).await;
    probe
        .write_all(
            b"POST /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nx",
        )
        .await
        .unwrap();
    let mut quiet = connect_from(201, addr).await;
    quiet.write_all(b"GET /li").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut hoard = Vec::new();
    for _ in 0..MAX_PER_ADDRESS * 2 {
        let mut stream = connect_from(1, addr).await;
        let _ = stream.write_all(b"GET /li").await;
        hoard.push(stream);
    }
    for last in 2..8 {
        for _ in 0..MAX_PER_ADDRESS {
            let mut stream = connect_from(last, addr).await;
            let _ = stream.write_all(b"G").await;
            hoard.push(stream);
        }
    }
    assert!(get(addr, "/live").await.starts_with("HTTP/1.1 200"));
    assert!(is_open(&mut probe).await, "it is being answered");
    assert!(is_open(&mut quiet).await, "others hold more");
    probe.write_all(b"y").await.unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\n2"), "{answer}");
    let mut open = 0;
    for stream in &mut hoard[..MAX_PER_ADDRESS * 2] {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut byte)).await;
        open += usize::from(read.is_err());
    }
    assert!(open <= MAX_PER_ADDRESS, "{open} of one address");
}

// Claims: B3
#[tokio::test]
async fn slow_exchanges_block_no_probe_and_lone_one_stays() {
    let addr = start(Ready::new(), Registry::default()).await;
    let mut slow = connect_from(200, addr).await;
    slow.write_all(
        b"POST /length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nx",
    )
    .await
    .unwrap();
    let mut hoard = Vec::new();
    for last in 1..=60 {
        for _ in 0..4 {
            let mut stream = connect_from(last, addr).await;
            let request = b"POST /probe/x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nx";
            let _ = stream.write_all(request).await;
            hoard.push(stream);
        }
    }
    for path in ["/live", "/ready", "/metrics"] {
        let answer = get(addr, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    assert!(is_open(&mut slow).await, "others hold more");
    slow.write_all(b"y").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\n2"), "{answer}");
}

// Claims: B3
#[tokio::test(start_paused = true)]
async fn unread_response_yields_permit_unlike_one_being_generated() {
    let bounds = Bounds {
        permits: 10,
        per_holder: 10,
        shared: true,
        head_within: HEAD_TIMEOUT,
        idle_within: HEAD_TIMEOUT,
    };
    let address = |last: u8| Holder::from(IpAddr::from([127, 0, 9, last]));
    for (answered, lost) in [(false, 0), (true, 1)] {
        let occupancy = Occupancy::new(bounds, |_| {});
        let enter = |last| occupancy.try_admit(&address(last)).unwrap().unwrap();
        let hoard: Vec<_> = (0..9).map(|_| enter(1)).collect();
        for permit in &hoard {
            let exchange = Exchange::of(permit);
            exchange.begins();
            if answered {
                exchange.answers();
            }
        }
        let _probe = enter(200);
        let mut cut = 0;
        for permit in &hoard {
            let ended = timeout(Duration::from_millis(1), permit.cut()).await;
            cut += usize::from(ended.is_ok());
        }
        assert_eq!(cut, lost, "{answered}");
    }
}

fn with_large_page() -> Registry {
    let mut registry = Registry::with_prefix("weft");
    // About 6 MiB, more than two sockets hold.
    let many =
        prometheus_client::metrics::family::Family::<Vec<(String, String)>, Counter>::default();
    for at in 0..3000 {
        let labels = vec![("x".to_owned(), format!("{at:02000}"))];
        many.get_or_create(&labels).inc();
    }
    registry.register("many", "Many", many);
    registry
}

// Claims: B3
#[tokio::test]
async fn stalled_page_readers_block_no_probe_and_are_disconnected() {
    let addr = start(Ready::new(), with_large_page()).await;
    let mut readers = Vec::new();
    for at in 0..MAX_CONNECTIONS {
        let mut stream = connect_from(u8::try_from(1 + at % 4).unwrap(), addr).await;
        let _ = stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        readers.push(stream);
    }
    for path in ["/live", "/ready"] {
        let mut probe = connect_from(200, addr).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        probe.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = probe.read_to_string(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(5), read).await;
        assert!(read.is_ok(), "{path}");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    // Clients that read are served; further ones beyond the bound are refused.
    let mut statuses = Vec::new();
    for stream in &mut readers {
        let mut head = [0; 12];
        let read = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut head));
        if let Ok(Ok(_)) = read.await {
            statuses.push(String::from_utf8_lossy(&head).into_owned());
        }
    }
    let count = |status: &str| {
        statuses
            .iter()
            .filter(|response| response.ends_with(status))
            .count()
    };
    assert_eq!(count("200"), MAX_PAGES, "{statuses:?}");
    assert!(count("503") > 0, "{statuses:?}");
    // After the time for a reader that takes nothing the pages are free again.
    tokio::time::sleep(STUCK_FOR + Duration::from_secs(2)).await;
    let mut late = connect_from(9, addr).await;
    late.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut page = Vec::new();
    late.read_to_end(&mut page).await.unwrap();
    assert!(page.ends_with(b"# EOF\n"), "{} bytes", page.len());
}

#[tokio::test]
async fn sixteen_slow_page_readers_yield_one_to_scraper() {
    let addr = start(Ready::new(), with_large_page()).await;
    let mut readers = Vec::new();
    for at in 0..MAX_PAGES {
        let mut stream = connect_from(u8::try_from(1 + at % 4).unwrap(), addr).await;
        let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        // Its page is there.
        stream.read_exact(&mut [0; 12]).await.unwrap();
        readers.push(stream);
    }
    let mut scraper = connect_from(9, addr).await;
    let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    scraper.write_all(request).await.unwrap();
    let mut page = Vec::new();
    scraper.read_to_end(&mut page).await.unwrap();
    assert!(page.ends_with(b"# EOF\n"), "{} bytes", page.len());
    let mut whole = 0;
    for mut stream in readers {
        let mut page = Vec::new();
        while !page.ends_with(b"# EOF\n") && stream.read_buf(&mut page).await.unwrap_or(0) > 0 {}
        whole += usize::from(page.ends_with(b"# EOF\n"));
    }
    assert_eq!(whole, MAX_PAGES - 1);
}

#[tokio::test]
async fn sixteen_slow_request_bodies_yield_one_to_scraper() {
    let addr = start(Ready::new(), Registry::default()).await;
    let mut senders = Vec::new();
    for at in 0..MAX_PAGES {
        let mut stream = connect_from(u8::try_from(1 + at % 4).unwrap(), addr).await;
        let request = b"POST /length HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nx";
        stream.write_all(request).await.unwrap();
        senders.push(stream);
    }
    // Until each has its place.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut scraper = connect_from(9, addr).await;
    let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    scraper.write_all(request).await.unwrap();
    let mut page = String::new();
    scraper.read_to_string(&mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let mut served = 0;
    for mut stream in senders {
        let _ = stream.write_all(b"y").await;
        let mut head = [0; 12];
        let read = stream.read_exact(&mut head).await;
        served += usize::from(read.is_ok() && &head == b"HTTP/1.1 200");
    }
    assert_eq!(served, MAX_PAGES - 1);
}

/// hyper goes on to the next request behind a body as soon as the page waits in its own buffer.
#[tokio::test]
async fn second_page_is_refused_while_first_is_unread() {
    let addr = start(Ready::new(), with_large_page()).await;
    for takes in [false, true] {
        let mut stream = connect_from(1, addr).await;
        let body = "b".repeat(9000);
        let first =
            format!("GET /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n{body}");
        let last = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut taken = Vec::new();
        stream.write_all(first.as_bytes()).await.unwrap();
        while takes && !taken.ends_with(b"# EOF\n") {
            assert!(stream.read_buf(&mut taken).await.unwrap() > 0);
        }
        stream.write_all(last).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.read_to_end(&mut taken).await.unwrap();
        let text = String::from_utf8_lossy(&taken);
        let answers = |status| text.matches(&format!("HTTP/1.1 {status} ")).count();
        let expected = if takes { (2, 0) } else { (1, 1) };
        assert_eq!((answers(200), answers(503)), expected, "{takes}");
    }
}
