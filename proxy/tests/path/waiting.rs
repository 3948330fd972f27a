//! Requests that wait for memory, on every listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use runtime::occupancy::Holder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_proxy::{Budget, LimitLabels, of_listener};
use wire::v1::Protocol;

use crate::support::{Authority, Pod, endpoint, endpoints, http_app, service, vip};

const LIMIT: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(5);
/// Nothing comes that would.
const SILENT: Duration = Duration::from_millis(300);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n";

static USED: AtomicUsize = AtomicUsize::new(0);

/// One answer of the application, which ends with what it had of a body: nothing.
async fn answer(stream: &mut TcpStream, patience: Duration) -> Option<String> {
    let mut answer = Vec::new();
    let all = async {
        while !answer.ends_with(b"body=") {
            let count = stream.read_buf(&mut answer).await.unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    timeout(patience, all).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// They are those of the peer whose tunnel it is.
#[tokio::test]
async fn tunneled_requests_wait_for_memory_like_any_others() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let certs = authority.leaf("api", Duration::from_secs(3600), SystemTime::now());
    let budget = Budget::measured(LIMIT, LIMIT, || USED.load(Relaxed));
    let server = Pod::within(Arc::clone(&budget), authority.roots(), certs, "api").await;
    let metrics = server.proxy.telemetry.metrics.clone();
    let occupancy = of_listener(&metrics, |_| {}, true, 1).occupancy;
    let _ = server.peers.set(Arc::clone(&occupancy));
    let waited = || {
        let limit = LimitLabels {
            limit: "memory-wait",
        };
        metrics.limits.at(&limit).get()
    };
    let (port, seen) = http_app(&server, "api").await;
    // The server's proxy looks into what the client's calls opaque.
    client.set(service("api", vip().ip(), Protocol::Opaque, Vec::new()));
    let there = endpoint(server.ip, port, Some("api"));
    client.set(vec![endpoints("api", vec![there])]);
    let mut stream = client.call(vip()).await;
    stream.write_all(GET).await.unwrap();
    let first = answer(&mut stream, PATIENCE).await.unwrap();
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");

    let caller = Holder::Identity("spiffe://cluster.local/ns/shop/sa/web".into());
    let other = occupancy.try_admit(&caller).unwrap().unwrap();
    let requests: Vec<_> = (0..100).map(|_| other.begin_request()).collect();
    USED.store(40 << 20, Relaxed);
    stream.write_all(GET).await.unwrap();
    assert_eq!(answer(&mut stream, SILENT).await, None);
    assert_eq!((waited(), seen.lock().len()), (1, 1));
    drop(requests);
    let second = answer(&mut stream, PATIENCE).await.unwrap();
    assert!(second.starts_with("HTTP/1.1 200"), "{second}");
    assert_eq!(other.requests().unwrap().in_flight(), 0);
}
