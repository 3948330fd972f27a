//! Tests of connections that are kept and reused.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::sleep;

use super::*;
use crate::client::multiplexed::Sends;

async fn kept(servers: Servers) -> (Clients, Arc<Pool>, Http1, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let clients = Clients::new(servers, Budget::new(1 << 20), Arc::default());
    let mut connection = clients
        .connect(addr, ConnectTimeout::Replaceable)
        .await
        .unwrap();
    connection.sender.ready().await.unwrap();
    let pool = clients.pool(addr).unwrap();
    (clients, pool, connection, listener)
}

#[tokio::test]
async fn pooled_connections_are_dropped_after_unanswered_probe() {
    for (answers_after, gives_way) in [(SILENT / 20, false), (SILENT * 2, true)] {
        let (clients, pool, connection, _listener) = kept(Servers::OwnPod).await;
        pool.put(connection);
        clients.beside(sleep(answers_after)).await;
        assert_eq!(pool.is_empty(), gives_way);
    }
}

/// A connection comes free long after a caller began to wait for its end.
#[tokio::test]
async fn used_connection_of_silent_server_is_dropped_once_free() {
    for (servers, waits, gives_way) in [
        (Servers::OwnPod, false, true),
        // For a body that its own sender holds back no server can be blamed.
        (Servers::OwnPod, true, false),
        (Servers::Elsewhere, false, false),
    ] {
        let (clients, pool, connection, _listener) = kept(servers).await;
        let opened = Instant::now();
        let comes_free = async {
            sleep(SILENT * 3 / 2).await;
            pool.put(connection);
        };
        let answer = sleep(SILENT * 7 / 2);
        let waiting = clients.first_answer(Some(&pool), opened, || waits, answer);
        tokio::join!(waiting, comes_free);
        assert_eq!(pool.is_empty(), gives_way, "{servers:?}, {waits}");
    }
}

/// An answer may stream for hours, and does not hold the way to its server meanwhile.
#[tokio::test]
async fn exclusive_connection_counts_until_it_closes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while connection.accept().await.is_some() {}
    });
    let clients = Clients::new(Servers::OwnPod, Budget::new(1 << 20), Arc::default());
    let counted = || Arc::strong_count(&clients.exclusive) - 1;
    let only = clients.http2_exclusive(addr, &"shop/web".into());
    let stream = only.stream(Sends::Nothing).await.unwrap();
    drop(only);
    assert_eq!(counted(), 1, "it is still in use");
    drop(stream);
    let ends = async {
        while counted() > 0 {
            sleep(SILENT / 20).await;
        }
    };
    timeout(SILENT * 10, ends).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_slow_by_itself_is_kept() {
    let (clients, pool, mut connection, _listener) = kept(Servers::OwnPod).await;
    let opened = Instant::now();
    let answer = sleep(SILENT * 2);
    clients
        .first_answer(Some(&pool), opened, || false, answer)
        .await;
    connection.answered_first(opened);
    pool.put(connection);
    assert!(!pool.is_empty());
}
// Claims: attack-15
#[tokio::test]
async fn unconnectable_addresses_stay_within_pool_limit() {
    let counted = Arc::new(AtomicUsize::new(0));
    let clients = Clients::new(Servers::OwnPod, Budget::new(1 << 20), Arc::default()).counted({
        let counted = Arc::clone(&counted);
        move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Of loopback, where nothing listens on port 1.
    let address = |at: usize| {
        let part = |number: usize| u8::try_from(number).unwrap();
        SocketAddr::from(([127, 201, part(at / 250), part(at % 250 + 1)], 1))
    };
    let caller: Arc<str> = "shop/web".into();
    let shares = |at: usize| {
        let [one, other] = [0; 2].map(|_| clients.http2(address(at), &caller));
        Arc::ptr_eq(&one, &other)
    };
    for at in 0..POOLS {
        let shared = clients.http2(address(at), &caller);
        assert!(
            shared.stream(Sends::Nothing).await.is_err(),
            "{} listens",
            address(at)
        );
    }
    assert_eq!(counted.load(Ordering::Relaxed), 0);
    assert!(shares(0), "who is known keeps its place");
    assert!(!shares(POOLS));
    assert_eq!(clients.http2.lock().len(), POOLS);
    assert_eq!(counted.load(Ordering::Relaxed), 2);
    clients.sweep();
    assert!(shares(POOLS), "there is room again");
    for at in 0..POOLS {
        assert!(clients.pool(address(at)).is_some());
    }
    assert!(clients.pool(address(POOLS)).is_none());
    assert_eq!(counted.load(Ordering::Relaxed), 3);
}
