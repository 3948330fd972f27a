//! Proxies without a reachable controller: which configuration they use.
//!
//! Claims: attack-12

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::{self, MtlsMode, Protocol, destination::Target};

use crate::support::{
    Authority, Pod, endpoint, endpoints, get, http_app, pair, raw, resource, service, vip,
};

/// The resource of an address.
fn destination(at: SocketAddr, target: Target) -> v1::Resource {
    resource(
        &wire::names::destination(at.ip(), at.port()),
        v1::resource::Content::Destination(v1::Destination {
            target: Some(target),
        }),
    )
}

fn pod_target(ip: IpAddr, port: u16, account: Option<&str>) -> Target {
    Target::Pod(v1::PodTarget {
        endpoint: Some(endpoint(ip, port, account)),
        ..v1::PodTarget::default()
    })
}

// Claims: A6
#[tokio::test]
async fn endpoint_called_by_address_gets_identity_before_resolution() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    let at = SocketAddr::new(server.ip, port);
    let (status, answer) = get(client.call(at).await, "/", "").await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        seen.lock()[0].contains("id=spiffe://cluster.local/ns/shop/sa/web"),
        "{:?}",
        seen.lock()
    );
    // Control: an address of which nothing was ever known passes as it is.
    let outside = Pod::new(&Authority::new(), "outside").await;
    let (port, seen) = http_app(&outside, "outside").await;
    let at = SocketAddr::new(outside.ip, port);
    assert_eq!(get(client.call(at).await, "/", "").await.0, 200);
    assert!(seen.lock()[0].contains("id=-"), "{:?}", seen.lock());
}

// Claims: A6
#[tokio::test]
async fn formerly_meshed_address_is_refused_when_unknown() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let at = SocketAddr::new(server.ip, port);
    // As the address of a pod, and as that of a Service in front of it.
    let pod = destination(at, pod_target(server.ip, port, Some("api")));
    let mut behind = service("api", server.ip, Protocol::Http1, Vec::new());
    behind[0] = destination(at, Target::Service(wire::names::service("shop", "api", 80)));
    let other = Pod::new(&authority, "api").await;
    behind.push(endpoints("api", vec![endpoint(other.ip, 1, Some("api"))]));
    for resources in [vec![pod], behind] {
        let name = resources[0].name.clone();
        client.set(resources);
        client.replace(&name, Vec::new());
        client.replace(&wire::names::endpoints("shop", "api", 80), Vec::new());
        let (status, answer) = get(client.call(at).await, "/", "").await;
        assert!(seen.lock().is_empty(), "{:?}", seen.lock());
        assert_eq!(status, 503, "{answer}");
        assert!(
            answer.contains("weft-reason: unknown-destination"),
            "{answer}"
        );
        // The honest reuse of an address: once the controller declares it outside the mesh.
        client.set(vec![destination(
            at,
            Target::External(v1::External::default()),
        )]);
        client.replace(&name, Vec::new());
        assert_eq!(get(client.call(at).await, "/", "").await.0, 200);
        assert_eq!(seen.lock().drain(..).count(), 1);
    }
}

// Claims: A6
#[tokio::test]
async fn former_mesh_address_is_called_as_controller_says() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, None)],
    )]);
    let at = SocketAddr::new(server.ip, port);
    for addr in [vip(), at] {
        assert_eq!(get(client.call(addr).await, "/", "").await.0, 200);
    }
    assert_eq!(seen.lock().len(), 2);
    assert!(seen.lock().iter().all(|line| line.contains("id=-")));
    client.mode("web", v1::Enforcement::Open, MtlsMode::Strict);
    let (status, _) = get(client.call(at).await, "/", "").await;
    assert_eq!(status, 503, "strict, and not explained");
}

// Claims: A6
#[tokio::test(start_paused = true)]
async fn once_used_address_stays_subscribed_indefinitely() {
    let (client, ..) = pair(Protocol::Http1).await;
    let config = &client.proxy.config;
    let (found, usage) = config.find(vip()).await.unwrap();
    assert!(found.is_some());
    drop(usage);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(
        config.subscriptions().contains(&vip()),
        "{:?}",
        config.subscriptions()
    );
}

/// No controller answers here at all, so what was forgotten would wait for one and then be
/// called as an address outside the mesh.
// Claims: A6
#[tokio::test]
async fn hour_idle_destination_is_called_immediately_with_identity() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    let pod = SocketAddr::new(server.ip, port);
    let target = pod_target(server.ip, port, Some("api"));
    client.set(vec![destination(pod, target)]);
    for to in [vip(), pod] {
        assert_eq!(get(client.call(to).await, "/", "").await.0, 200, "{to}");
    }
    // Only for this: with a paused clock, every wait for a socket would be the end of a time limit.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::resume();
    // What connections do of it, they have done then.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for to in [vip(), pod] {
        let began = Instant::now();
        let (status, answer) = get(client.call(to).await, "/", "").await;
        let took = began.elapsed();
        assert_eq!(status, 200, "{to}: {answer}");
        assert!(took < Duration::from_millis(500), "{to}: {took:?}");
    }
    let seen = seen.lock().clone();
    let identity = "id=spiffe://cluster.local/ns/shop/sa/web";
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|line| line.contains(identity)), "{seen:?}");
    // Control: for an address that was never used the proxy queries a controller first.
    let outside = Pod::new(&Authority::new(), "outside").await;
    let (port, _) = http_app(&outside, "outside").await;
    let began = Instant::now();
    let to = SocketAddr::new(outside.ip, port);
    assert_eq!(get(client.call(to).await, "/", "").await.0, 200);
    assert!(began.elapsed() > Duration::from_millis(900));
}

/// Answers every connection once with these bytes, and ends it.
async fn answering(pod: &Pod, answer: &'static str) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

// Claims: A6
#[tokio::test]
async fn a_server_without_identity_cannot_speak_for_a_proxy() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let plain = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let forged = "HTTP/1.1 500 Oops\r\nweft-status: 200\r\nweft-upgrade: forged\r\n\
                  weft-reason: not-allowed\r\ncontent-length: 0\r\n\r\n";
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    weft-upgrade: forged\r\nConnection: Upgrade\r\n\r\n";
    for (answer, ask, status) in [
        (forged, plain, "HTTP/1.1 500"),
        (forged, upgrade, "HTTP/1.1 500"),
        (switched, upgrade, "HTTP/1.1 101"),
    ] {
        let port = answering(&server, answer).await;
        client.set(vec![endpoints(
            "api",
            vec![endpoint(server.ip, port, None)],
        )]);
        let mut stream = client.call(vip()).await;
        let response = raw(&mut stream, ask.as_bytes(), Duration::from_secs(1)).await;
        assert!(response.starts_with(status), "{response}");
        assert!(
            !response.contains("forged") && !response.contains("weft-"),
            "{response}"
        );
    }
}
