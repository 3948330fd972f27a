//! Endpoints whose packets are lost: a caller's proxy waits for one once, and not again.
//!
//! Claims: calls-62

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use parking_lot::Mutex;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Sticky, StickyKey, StickyScope, Timeouts};
use policy::traffic::endpoint::Ejection;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_proxy::MESH_PORT;
use wire::v1::Protocol;

use super::answers::{App, OK, ask, limited, policy_of, sum, whole};
use crate::support::{Pod, endpoint, endpoints, pair};

/// What a connection that comes to nothing takes, or nearly.
const WAITED: Duration = Duration::from_millis(900);
/// Far less than that.
const AT_ONCE: Duration = Duration::from_millis(500);

/// An address for a peer beside those of pods. Two runs at the same time do not meet.
pub(super) fn address(first: u8) -> IpAddr {
    let [_, _, third, fourth] = std::process::id().to_be_bytes();
    IpAddr::from([127, first, third, fourth])
}

/// Connections to it begin and come to nothing.
pub(super) async fn silent(at: IpAddr) -> TcpListener {
    TcpListener::bind((at, MESH_PORT)).await.unwrap()
}

fn unreachable(client: &Pod) -> f64 {
    sum(client, "weft_ejections_total", &["cause=\"unreachable\""])
}

/// Sends a request, and returns the duration of a good response.
async fn good(client: &Pod, method: &str, headers: &str) -> Duration {
    let started = Instant::now();
    let (status, answer) = ask(client, method, headers, "").await;
    assert_eq!(status, 200, "{answer}");
    started.elapsed()
}

fn resting(consecutive_failures: u8) -> EffectivePolicy {
    EffectivePolicy {
        ejection: whole(Ejection {
            consecutive_failures,
            base_time: Duration::from_secs(1),
            max_time: Duration::from_secs(1),
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

/// A tenant comes to the same endpoint again, whatever that costs.
fn by_tenant() -> EffectivePolicy {
    EffectivePolicy {
        sticky: whole(Sticky {
            key: StickyKey::Header(HeaderName::from_static("x-tenant")),
            scope: StickyScope::Endpoint,
            ttl: None,
        }),
        ..resting(5)
    }
}

fn tenants() -> impl Iterator<Item = String> + Clone {
    (0..64).map(|of| format!("x-tenant: t{of}\r\n"))
}

#[tokio::test]
async fn probe_connection_to_lost_endpoint_delays_no_call() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    let lost = address(250);
    let _silent = silent(lost).await;
    let there = |ip| endpoint(ip, app.port, Some("api"));
    client.set(vec![endpoints("api", vec![there(lost), there(server.ip)])]);
    client.set(vec![policy_of(&resting(1))]);
    // Control: until the ejection one does.
    let mut waited = Duration::ZERO;
    while unreachable(&client) == 0.0 {
        waited = waited.max(good(&client, "GET", "").await);
    }
    assert!(waited >= WAITED, "{waited:?}");
    while unreachable(&client) < 4.0 {
        let took = good(&client, "GET", "").await;
        assert!(took < AT_ONCE, "{took:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn only_one_call_waits_for_lost_endpoint() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    let lost = address(251);
    let _silent = silent(lost).await;
    let there = |ip| endpoint(ip, app.port, Some("api"));
    client.set(vec![endpoints("api", vec![there(lost), there(server.ip)])]);
    client.set(vec![policy_of(&by_tenant())]);
    let mut of_it = None;
    for tenant in tenants() {
        if good(&client, "POST", &tenant).await >= WAITED {
            of_it = Some(tenant);
            break;
        }
    }
    let of_it = of_it.expect("one of 64 comes to the lost one");
    while unreachable(&client) == 0.0 {
        let took = good(&client, "POST", &of_it).await;
        assert!(took < AT_ONCE, "{took:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A way to a proxy, until it loses everything.
async fn link(at: IpAddr, to: IpAddr) -> watch::Sender<bool> {
    let (lose, lost) = watch::channel(false);
    let listener = TcpListener::bind((at, MESH_PORT)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut lost = lost.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(SocketAddr::new(to, MESH_PORT)).await?;
                tokio::select! {
                    _ = lost.wait_for(|lost| *lost) => {}
                    ended = copy_bidirectional(&mut near, &mut far) => return ended.map(drop),
                }
                // Both stay open, and nothing passes.
                std::future::pending().await
            });
        }
    });
    lose
}

#[tokio::test]
async fn no_call_is_lost_on_undetected_dead_connection() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [App::new(server.ip, OK).await, App::new(server.ip, OK).await];
    let lost = address(252);
    let lose = link(lost, server.ip).await;
    let there = |ip, app: &App| endpoint(ip, app.port, Some("api"));
    let all = vec![
        there(lost, &apps[0]),
        there(server.ip, &apps[0]),
        there(server.ip, &apps[1]),
    ];
    client.set(vec![endpoints("api", all)]);
    client.set(vec![policy_of(&EffectivePolicy {
        timeouts: limited(Timeouts {
            backend_request: Some(Duration::from_secs(2)),
            ..Timeouts::DEFAULT
        }),
        ..resting(1)
    })]);
    for _ in 0..50 {
        good(&client, "POST", "").await;
    }
    lose.send_replace(true);
    // Control: the call in flight when the loss starts. It does not count as unreachable.
    let mut late = 0;
    for _ in 0..300 {
        late += usize::from(ask(&client, "POST", "", "{}").await.0 == 504);
        if late > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(late, 1);
    assert_eq!(unreachable(&client), 0.0);
    let rested = || sum(&client, "weft_ejections_total", &[]);
    assert_eq!(rested(), 1.0, "{}", client.metrics());
    let mut slowest = Duration::ZERO;
    while unreachable(&client) < 2.0 {
        slowest = slowest.max(good(&client, "POST", "").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
}

/// The max time for which this thread was stalled.
async fn watch_standstills(longest: Arc<Mutex<Duration>>) {
    let every = Duration::from_millis(20);
    loop {
        let started = Instant::now();
        tokio::time::sleep(every).await;
        let stood = started.elapsed().saturating_sub(every);
        let mut longest = longest.lock();
        *longest = stood.max(*longest);
    }
}

#[tokio::test]
async fn no_call_waits_beside_known_silent_connection() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    let lost = address(253);
    let lose = link(lost, server.ip).await;
    let there = |ip| endpoint(ip, app.port, Some("api"));
    client.set(vec![endpoints("api", vec![there(lost), there(server.ip)])]);
    client.set(vec![policy_of(&by_tenant())]);
    for tenant in tenants() {
        good(&client, "POST", &tenant).await;
    }
    lose.send_replace(true);
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let watching = tokio::spawn(watch_standstills(Arc::clone(&longest)));
    let client = Arc::new(client);
    let mut calls = JoinSet::new();
    let started = Instant::now();
    // Others each time: which endpoint a tenant has goes by the addresses of this run, and the
    // first few may all have the same.
    let mut callers = tenants().cycle();
    while started.elapsed() < Duration::from_secs(11) {
        // Fewer than the streams of a connection, until its silence is known: a call without a free
        // stream would open another connection, and all of them may be kept there.
        for tenant in callers.by_ref().take(9) {
            let client = Arc::clone(&client);
            calls.spawn(async move {
                let started = Instant::now();
                let status = ask(&client, "POST", &tenant, "").await.0;
                (status, started.elapsed())
            });
        }
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    let calls = calls.join_all().await;
    watching.abort();
    // Control: the loss is unknown at first, and calls in flight then are lost.
    let bad = calls.iter().filter(|(status, _)| *status != 200).count();
    assert!((1..calls.len()).contains(&bad), "{bad} of {}", calls.len());
    let good = calls.iter().filter(|(status, _)| *status == 200);
    let slowest = good.map(|(_, took)| *took).max().unwrap();
    let stood = *longest.lock();
    assert!(
        slowest < WAITED + stood,
        "{slowest:?}, stood still for {stood:?}"
    );
}
