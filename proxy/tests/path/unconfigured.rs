//! A proxy without any configuration from a controller allows nothing, and logs why.
//!
//! Claims: attack-47

use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use weft_proxy::Budget;
use wire::v1::{Enforcement, MtlsMode, Protocol};

use crate::support::{Authority, Pod, endpoint, endpoints, get, http_app, service, vip};

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn unconfigured(authority: &Authority, account: &str) -> Pod {
    let certs = authority.leaf(account, Duration::from_secs(3600), SystemTime::now());
    let budget = Budget::new(64 << 20);
    Pod::without_configuration(budget, authority.roots(), certs, account).await
}

fn is_refused(answer: &(u16, String), case: &str) {
    assert_eq!(answer.0, 503, "{case}: {}", answer.1);
    let reason = answer.1.contains("weft-reason: no-configuration\r\n");
    assert!(reason, "{case}: {}", answer.1);
}

#[tokio::test]
async fn unconfigured_proxy_refuses_every_caller_with_its_reason() {
    let authority = Authority::new();
    let (client, server) = (
        Pod::new(&authority, "web").await,
        unconfigured(&authority, "api").await,
    );
    let (port, seen) = http_app(&server, "api").await;
    client.set(service("api", vip().ip(), Protocol::Detect, Vec::new()));
    let there = endpoint(server.ip, port, Some("api"));
    client.set(vec![endpoints("api", vec![there])]);

    let outside = get(server.plain(port).await, "/", "").await;
    is_refused(&outside, "from outside");
    let peer = get(client.call(vip()).await, "/", "").await;
    is_refused(&peer, "from a peer");
    let own = get(server.call(vip()).await, "/", "").await;
    is_refused(&own, "a call of its own application");

    let mut bytes = server.plain(port).await;
    let _ = bytes.write_all(b"\0\x01raw").await;
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, bytes.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "{rest:?}");
    let metrics = server.metrics();
    let counted = metrics.lines().any(|line| {
        line.starts_with("weft_tcp_connections_total{") && line.contains("no-configuration")
    });
    assert!(counted, "{metrics}");
    assert!(seen.lock().is_empty(), "the application was called");

    // As soon as there is one it decides.
    server.mode("api", Enforcement::Open, MtlsMode::Permissive);
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 200);
    server.mode("api", Enforcement::Open, MtlsMode::Strict);
    let strict = get(server.plain(port).await, "/", "").await;
    assert!(
        strict.1.contains("weft-reason: no-identity"),
        "{}",
        strict.1
    );
}

/// Another endpoint may have what this one waits for.
#[tokio::test]
async fn a_peer_tries_another_endpoint_than_one_without_configuration() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let waiting = unconfigured(&authority, "api").await;
    let serving = Pod::new(&authority, "api").await;
    let mut all = Vec::new();
    for pod in [&waiting, &serving] {
        let (port, _) = http_app(pod, "api").await;
        all.push(endpoint(pod.ip, port, Some("api")));
    }
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.set(vec![endpoints("api", all)]);
    for at in 0..10 {
        let (status, answer) = get(client.call(vip()).await, "/", "").await;
        assert_eq!(status, 200, "{at}: {answer}");
    }
}
