//! Splits, endpoints and attempts, as the application sees them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_proxy::{AppHttp, AppPort, PeerRequest, Replay, empty_body};
use wire::v1::{self, Protocol};

use crate::support::{
    Authority, Pod, endpoint, endpoints, get, http_app, id, pair, raw, resource, service, split,
    vip,
};

/// A client, and two pods whose applications answer as `v1` and `v2`.
async fn two_versions() -> (Pod, Pod, Pod) {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let (one, two) = (
        Pod::new(&authority, "api").await,
        Pod::new(&authority, "api").await,
    );
    let (port_one, _) = http_app(&one, "v1").await;
    let (port_two, _) = http_app(&two, "v2").await;
    client.set(vec![
        endpoints("v1", vec![endpoint(one.ip, port_one, Some("api"))]),
        endpoints("v2", vec![endpoint(two.ip, port_two, Some("api"))]),
    ]);
    (client, one, two)
}

/// Requests on one kept connection: how many answers came from `v2`.
async fn answers_of_v2(client: &Pod, requests: usize) -> usize {
    let mut stream = client.call(vip()).await;
    let mut of_v2 = 0;
    for _ in 0..requests {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("body=") {
            let mut buffer = [0; 2048];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the connection ended");
            answer.extend_from_slice(&buffer[..count]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        of_v2 += usize::from(answer.contains("x-app: v2"));
    }
    of_v2
}

#[tokio::test]
async fn weights_decide_per_request_on_one_connection() {
    let (client, _one, _two) = two_versions().await;
    client.set(service(
        "api",
        vip().ip(),
        Protocol::Http1,
        vec![split("s", &[("v1", 900), ("v2", 100)])],
    ));
    let minority = answers_of_v2(&client, 2000).await as f64;
    // 5 sigma of a binomial with n = 2000, p = 0.1.
    assert!(
        (minority - 200.0).abs() < 5.0 * (2000.0_f64 * 0.09).sqrt(),
        "{minority}"
    );
    client.set(service(
        "api",
        vip().ip(),
        Protocol::Http1,
        vec![split("s", &[("v1", 100), ("v2", 0)])],
    ));
    assert_eq!(answers_of_v2(&client, 200).await, 0);
}

#[tokio::test]
async fn split_request_keeps_host_its_client_wrote() {
    let (client, _one, _two) = two_versions().await;
    let only_v2 = vec![split("s", &[("v2", 1)])];
    client.set(service("api", vip().ip(), Protocol::Http1, only_v2));
    for host in ["web.shop", "api:80", "v1.shop.svc.cluster.local", "no.such"] {
        let mut stream = client.call(vip()).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let limit = std::time::Duration::from_secs(5);
        let answer = raw(&mut stream, request.as_bytes(), limit).await;
        assert!(answer.contains("x-app: v2"), "{answer}");
        assert!(answer.contains(&format!(" host={host} ")), "{answer}");
    }
}

#[tokio::test]
async fn connection_setup_time_is_not_counted_against_endpoint() {
    let (client, server, port, _) = pair(Protocol::Http1).await;
    let late = Duration::from_secs(1);
    server.late.store(late.as_millis() as u64, Relaxed);
    let (parts, ()) = http::Request::builder()
        .uri("http://api.shop/")
        .body(())
        .unwrap()
        .into_parts();
    let started = Instant::now();
    let peer = client
        .proxy
        .peers
        .mesh(server.ip, &id("api"), &Arc::default());
    let request = PeerRequest::Http {
        port: AppPort::new(port).unwrap(),
        speak: AppHttp::Http1,
        parts: &parts,
    };
    let body = Replay::new(empty_body());
    let answer = peer.send(&request, &body).await.unwrap();
    assert!(started.elapsed() >= late, "the connection was not new");
    assert!(answer.took < late / 2, "{:?}", answer.took);
}

// Claims: mesh-1c
#[tokio::test]
async fn split_without_usable_backend_gets_503_without_fallback() {
    let (client, _one, _two) = two_versions().await;
    client.set(service(
        "api",
        vip().ip(),
        Protocol::Http1,
        vec![split("s", &[("v1", 0), ("v2", 0)])],
    ));
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains("weft-reason: no-backend"), "{answer}");
}

/// A split that moves requests with this value of a header to `v2`.
fn split_on_header(name: &str, value: &str) -> v1::Split {
    let header = v1::HeaderMatch {
        name: name.into(),
        regex: value.into(),
        ..v1::HeaderMatch::default()
    };
    let one = v1::HttpMatch {
        name: "m".into(),
        headers: vec![header],
        ..v1::HttpMatch::default()
    };
    v1::Split {
        matches: Some(v1::HttpMatches { matches: vec![one] }),
        ..split("s", &[("v2", 1)])
    }
}

#[tokio::test]
async fn split_matches_forwarded_host_not_replaced_header() {
    let (client, one, _two) = two_versions().await;
    let (port, _) = http_app(&one, "root").await;
    let conditional = split_on_header("host", "beta");
    let splits = vec![conditional];
    client.set(service("api", vip().ip(), Protocol::Http1, splits));
    let there = endpoint(one.ip, port, Some("api"));
    client.set(vec![endpoints("api", vec![there])]);
    for (target, header, app, host) in [
        ("/", "beta", "v2", "beta"),
        ("/", "other", "root", "other"),
        ("http://beta/", "other", "v2", "beta"),
        ("http://other/", "beta", "root", "other"),
    ] {
        let mut stream = client.call(vip()).await;
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {header}\r\nConnection: close\r\n\r\n");
        let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(5)).await;
        let case = format!("{target} {header}: {answer}");
        assert!(answer.contains(&format!("x-app: {app}")), "{case}");
        assert!(answer.contains(&format!(" host={host} ")), "{case}");
    }
}

#[tokio::test]
async fn a_split_with_matches_moves_matching_requests_only() {
    let (client, one, _two) = two_versions().await;
    let (port, _) = http_app(&one, "root").await;
    let conditional = split_on_header("x-tenant", "beta");
    client.set(service(
        "api",
        vip().ip(),
        Protocol::Http1,
        vec![conditional],
    ));
    client.reaches(&one, port);
    assert!(
        get(client.call(vip()).await, "/", "x-tenant: beta\r\n")
            .await
            .1
            .contains("x-app: v2")
    );
    assert!(
        get(client.call(vip()).await, "/", "x-tenant: beta2\r\n")
            .await
            .1
            .contains("x-app: root")
    );
    assert!(
        get(client.call(vip()).await, "/", "")
            .await
            .1
            .contains("x-app: root")
    );
}

#[tokio::test]
async fn headless_host_is_split_but_pod_address_is_not() {
    let (client, one, _two) = two_versions().await;
    let (port, _) = http_app(&one, "pod").await;
    client.set(service(
        "api",
        vip().ip(),
        Protocol::Http1,
        vec![split("s", &[("v2", 1)])],
    ));
    let pod = v1::PodTarget {
        endpoint: Some(endpoint(one.ip, port, Some("api"))),
        protocol: Protocol::Http1 as i32,
        headless: vec![v1::Headless {
            service: wire::names::service("shop", "api", 80),
            hosts: vec!["web.shop".into()],
        }],
    };
    let addr = std::net::SocketAddr::new(one.ip, port);
    client.set(vec![resource(
        &wire::names::destination(one.ip, port),
        v1::resource::Content::Destination(v1::Destination {
            target: Some(v1::destination::Target::Pod(pod)),
        }),
    )]);
    assert!(
        get(client.call(addr).await, "/", "")
            .await
            .1
            .contains("x-app: v2")
    );
    let (status, answer) = {
        let mut stream = client.call(addr).await;
        let request = "GET / HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: close\r\n\r\n";
        let answer = raw(
            &mut stream,
            request.as_bytes(),
            std::time::Duration::from_secs(5),
        )
        .await;
        (answer.get(9..12).unwrap_or_default().to_owned(), answer)
    };
    assert_eq!(status, "200");
    assert!(answer.contains("x-app: pod"), "{answer}");
}

#[tokio::test]
async fn unknown_destination_passes_when_permissive_but_not_strict() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let outside = Pod::new(&authority, "outside").await;
    let (port, seen) = http_app(&outside, "outside").await;
    let addr = std::net::SocketAddr::new(outside.ip, port);
    assert_eq!(get(client.call(addr).await, "/", "").await.0, 200);
    assert!(
        client
            .metrics()
            .contains("weft_unknown_destinations_total 1")
    );
    client.mode("web", v1::Enforcement::Open, v1::MtlsMode::Strict);
    let (status, answer) = get(client.call(addr).await, "/", "").await;
    assert_eq!(status, 503);
    assert!(
        answer.contains("weft-reason: unknown-destination"),
        "{answer}"
    );
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn a_split_may_match_the_host_over_http2_too() {
    let (client, one, _two) = two_versions().await;
    let (port, _) = http_app(&one, "root").await;
    let mut conditional = split("s", &[("v2", 1)]);
    conditional.matches = Some(v1::HttpMatches {
        matches: vec![v1::HttpMatch {
            name: "host".into(),
            headers: vec![v1::HeaderMatch {
                name: "host".into(),
                regex: "beta[.]shop".into(),
                ..v1::HeaderMatch::default()
            }],
            ..v1::HttpMatch::default()
        }],
    });
    client.set(service(
        "api",
        vip().ip(),
        Protocol::Http2,
        vec![conditional],
    ));
    client.reaches(&one, port);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(client.call(vip()).await),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    for (host, app) in [("beta.shop", "v2"), ("web.shop", "root")] {
        let request = http::Request::builder()
            .version(http::Version::HTTP_2)
            .uri(format!("http://{host}/"))
            .body(http_body_util::Empty::<hyper::body::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["x-app"], app, "{host}");
        // The authority has the name already; a second copy is too much for some servers.
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        let seen = String::from_utf8_lossy(&body).into_owned();
        assert!(seen.contains("host=- ") && seen.contains(host), "{seen}");
    }
}
