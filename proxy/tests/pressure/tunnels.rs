//! Peers with many idle tunnels. The proxy knows what a tunnel costs, so the peer that opened them
//! pays when memory runs out, and an honest gateway with as many as it needs does not pay for
//! others.
//!
//! Claims: attack-42

use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use identity::tls::{self, MESH_ALPN};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use weft_proxy::{MESH_PORT, heap_count};
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use super::downloads::{calls_beside, percentiles};
use super::raw_http2::{END_HEADERS, HEADERS, RawHttp2, SETTINGS, block, frame, get};
use super::support::{id, resource};
use super::{FLOODED, FULL, LIMIT, MIB, ONE_AT_A_TIME, PATIENCE, PEAK, Testbed, requests, used};

/// Connections of the peer that hoards, and tunnels of each: as many as one may carry.
const CONNECTIONS: usize = 40;
const TUNNELS: u32 = 128;
/// Long polls of the gateway beside it, each with cookies as browsers send them.
const POLLS: usize = 80;
const COOKIES: usize = 4000;
/// A gateway with nine hundred tunnels has them by eight connections.
const OF_GATEWAY: (usize, u32) = (8, 110);
/// What a tunnel counts at least.
const TUNNEL: usize = 8 * 1024;
/// Longer than a test lasts.
const LASTS: Duration = Duration::from_secs(300);

/// The application's port is declared to carry HTTP, and open to every caller.
fn declare_http(testbed: &Testbed) {
    let workload = v1::Workload {
        identity: id("api").as_str().to_owned(),
        enforcement: Enforcement::Open as i32,
        mtls: MtlsMode::Permissive as i32,
        ports: vec![v1::PortProtocol {
            first: 1,
            last: 65_535,
            protocol: Protocol::Http1 as i32,
        }],
        ..v1::Workload::default()
    };
    testbed.pod.set(vec![resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )]);
}

/// A connection of a peer with so many silent tunnels to the application's port, which ends
/// when the proxy ends it.
async fn tunnels(testbed: &Testbed, account: &str, many: u32) -> JoinHandle<()> {
    let life = Duration::from_secs(600);
    let certs = testbed.authority.leaf(account, life, SystemTime::now());
    let roots = testbed.authority.roots();
    let config = tls::mesh_client_config(&roots, &certs, id("api"), &[MESH_ALPN]);
    let port = testbed.port.to_string();
    let mut fields = get("/").to_vec();
    fields[0].1 = b"POST";
    fields.push((b"weft-port", port.as_bytes()));
    fields.push((b"weft-protocol", b"tcp"));
    let head = block(&fields);
    // Each status is encoded in full.
    let mut asks = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
    for at in 0..many {
        asks.extend(frame(HEADERS, END_HEADERS, 2 * at + 1, &head));
    }
    let stream = TcpStream::connect((testbed.pod.ip, MESH_PORT))
        .await
        .unwrap();
    // A connection that is cut off in its handshake has nothing.
    let secured = TlsConnector::from(config).connect(tls::peer_name(), stream);
    let secured = secured.await;
    tokio::spawn(async move {
        let Ok(secured) = secured else { return };
        let mut raw = RawHttp2::new(secured).await;
        raw.write_within(&asks, PATIENCE).await;
        drop(asks);
        raw.drain(LASTS).await;
    })
}

/// Waits until peers have so many tunnels, as far as that is known.
async fn stand(testbed: &Testbed, tunnels: usize) {
    let standing = async {
        while testbed.peers.weight() < tunnels * TUNNEL {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = timeout(PATIENCE, standing).await;
}

#[tokio::test]
async fn silent_tunnels_cost_their_holder_only() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    declare_http(&testbed);
    let mut polls = Vec::new();
    for _ in 0..POLLS {
        let mut poll = testbed.open(2).await;
        let cookies = "c".repeat(COOKIES);
        let asks = format!("GET /wait HTTP/1.1\r\nHost: app\r\nCookie: {cookies}\r\n\r\n");
        poll.write_all(asks.as_bytes()).await.unwrap();
        polls.push(poll);
    }
    let mut hoard = Vec::new();
    for _ in 0..CONNECTIONS {
        hoard.push(tunnels(&testbed, "stranger", TUNNELS).await);
    }
    stand(&testbed, CONNECTIONS * TUNNELS as usize).await;
    heap_count();
    let in_use = used();
    // Memory of others, without a known owner.
    let rest = vec![1_u8; (LIMIT / 100 * (FULL + 2)).saturating_sub(in_use)];
    let mut took = Vec::new();
    let beside = calls_beside(&testbed, &mut took);
    assert!(timeout(FLOODED, beside).await.is_err(), "they never end");
    let lost = hoard.iter().filter(|one| one.is_finished()).count();
    println!(
        "{lost} of {CONNECTIONS} were cut off, {} MiB held before, {} MiB at most; {}",
        in_use / MIB,
        PEAK.load(Relaxed) / MIB,
        percentiles(took),
    );
    drop(rest);
    for poll in &polls {
        let read = poll.try_read(&mut [0; 16]);
        let read = read.map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::WouldBlock), "a long poll ended");
    }
    assert!(lost > 0, "there was room for all of them");
}

/// The control: the known cost of tunnels cuts off no peer that holds less than others.
#[tokio::test]
async fn idle_gateway_tunnels_lose_nothing_to_flood() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    declare_http(&testbed);
    let (connections, each) = OF_GATEWAY;
    let mut idle = Vec::new();
    for _ in 0..connections {
        idle.push(tunnels(&testbed, "gateway", each).await);
    }
    let all = connections * each as usize;
    stand(&testbed, all).await;
    assert!(testbed.peers.weight() >= all * TUNNEL, "not all are open");
    assert_eq!(testbed.held_back(), 0, "there is room for as many");
    testbed.survives(15, requests(1, "/flood", 100)).await;
    assert!(testbed.cut_off() > 0, "there was room for the flood");
    let lost = idle.iter().filter(|one| one.is_finished()).count();
    assert_eq!(lost, 0, "of {connections}");
}
