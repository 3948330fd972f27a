//! Calls to the addresses of a headless Service's pods, which the clients have chosen.
//!
//! Claims: calls-19

use std::net::SocketAddr;
use std::time::Duration;

use policy::traffic::EffectivePolicy;
use policy::traffic::call::Retry;
use policy::traffic::endpoint::{Breaker, Ejection};
use policy::traffic::set::Percent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1;

use super::answers::{App, OK, UNAVAILABLE, limited, policy_of, retries, sum, whole};
use super::deadlines::{by_address, fleet};
use crate::support::{Pod, endpoint, endpoints, raw, resource};

/// The Service, as its clients name it.
const NAMED: &str = "api.shop";
/// A host that names another address.
const OTHER_ADDR: &str = "10.0.0.1";
const OPEN: &str = "weft-reason: circuit-open";
/// What comes of a connection that is reset.
const BROKEN: (u16, String) = (0, String::new());

/// One request that names this host: the status, and all that came.
async fn ask(client: &Pod, addr: SocketAddr, method: &str, host: &str) -> (u16, String) {
    let mut stream = client.call(addr).await;
    let request = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(10)).await;
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), answer)
}

fn request_counts(apps: &[App]) -> Vec<usize> {
    apps.iter().map(App::request_count).collect()
}

#[tokio::test]
async fn client_chosen_pod_failure_moves_elsewhere_only_by_policy() {
    let (client, server, apps) = fleet([UNAVAILABLE, OK]).await;
    let bad = by_address(&client, &server, apps[0].port);
    let good = by_address(&client, &server, apps[1].port);
    let retry = |attempts| {
        let retry = Retry {
            attempts,
            ..Retry::DEFAULT
        };
        client.set(vec![policy_of(&EffectivePolicy {
            retry: limited(retry),
            ..EffectivePolicy::default()
        })]);
    };
    assert_eq!(ask(&client, bad, "GET", NAMED).await.0, 503);
    retry(0);
    assert_eq!(ask(&client, bad, "GET", NAMED).await.0, 503);
    assert_eq!(request_counts(&apps), [2, 0]);
    retry(1);
    let (status, answer) = ask(&client, bad, "GET", NAMED).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(request_counts(&apps), [3, 1]);
    assert_eq!(retries(&client, "success"), 1.0, "{}", client.metrics());
    for (method, host) in [("POST", NAMED), ("GET", OTHER_ADDR)] {
        let (status, answer) = ask(&client, bad, method, host).await;
        assert_eq!(status, 503, "{method} {host}: {answer}");
    }
    assert_eq!(request_counts(&apps), [5, 1]);
    for _ in 0..20 {
        assert_eq!(ask(&client, good, "GET", NAMED).await.0, 200);
    }
    assert_eq!(
        request_counts(&apps),
        [5, 21],
        "what works stays where it was sent"
    );
}

/// A pod that is not there beside one that answers: client, server, application, and where
/// the first would be.
async fn beside_one_that_is_gone() -> (Pod, Pod, Vec<App>, SocketAddr) {
    let (client, server, apps) = fleet([OK]).await;
    let closed = TcpListener::bind((server.ip, 0)).await.unwrap();
    let dead = closed.local_addr().unwrap().port();
    drop(closed);
    let there = |port| endpoint(server.ip, port, Some("api"));
    let both = vec![there(dead), there(apps[0].port)];
    client.set(vec![endpoints("api", both)]);
    let gone = by_address(&client, &server, dead);
    (client, server, apps, gone)
}

#[tokio::test]
async fn missing_pod_is_ejected_for_calls_by_service() {
    let (client, _server, apps, gone) = beside_one_that_is_gone().await;
    assert_eq!(ask(&client, gone, "POST", NAMED).await, BROKEN);
    assert_eq!(request_counts(&apps), [0], "nothing lets it go elsewhere");
    let ejection = Ejection {
        consecutive_failures: 1,
        base_time: Duration::from_secs(60),
        ..Ejection::DEFAULT
    };
    client.set(vec![policy_of(&EffectivePolicy {
        ejection: whole(ejection),
        ..EffectivePolicy::default()
    })]);
    let attempts = || sum(&client, "weft_attempts_total", &["service=\"shop/api\""]);
    let before = attempts();
    assert_eq!(ask(&client, gone, "POST", NAMED).await.0, 200);
    assert_eq!(attempts(), before + 2.0, "{}", client.metrics());
    let rested = ["service=\"shop/api\"", "cause=\"unreachable\""];
    assert_eq!(sum(&client, "weft_ejections_total", &rested), 1.0);
    assert_eq!(ask(&client, gone, "POST", NAMED).await.0, 200);
    assert_eq!(attempts(), before + 3.0, "it is not even tried");
    assert_eq!(ask(&client, gone, "POST", OTHER_ADDR).await.0, 503);
}

/// The same where no pod has a hostname of its own.
async fn interchangeable_beside_one_that_is_gone() -> (Pod, Vec<App>, SocketAddr) {
    let (client, server, apps, gone) = beside_one_that_is_gone().await;
    let there = |port| endpoint(server.ip, port, Some("api"));
    let list = v1::Endpoints {
        endpoints: vec![there(gone.port()), there(apps[0].port)],
        alike: true,
        ..v1::Endpoints::default()
    };
    client.set(vec![resource(
        &wire::names::endpoints("shop", "api", 80),
        v1::resource::Content::Endpoints(list),
    )]);
    (client, apps, gone)
}

#[tokio::test]
async fn dead_interchangeable_pod_is_passed_over_once() {
    let (client, apps, gone) = interchangeable_beside_one_that_is_gone().await;
    for method in ["GET", "POST"] {
        let mut stream = client.call(gone).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: {NAMED}\r\nContent-Length: 0\r\n\r\n");
        // The client keeps its connection, and the proxy does not.
        let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(5)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let answer = answer.to_lowercase();
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(request_counts(&apps), [2]);
    // What the application itself answers is its word.
    assert_eq!(retries(&client, "success"), 0.0, "{}", client.metrics());
    // A caller that names no Service called that pod, and gRPC balances by itself.
    assert_eq!(ask(&client, gone, "GET", OTHER_ADDR).await.0, 503);
    let mut stream = client.call(gone).await;
    let grpc = format!(
        "POST / HTTP/1.1\r\nHost: {NAMED}\r\nContent-Type: application/grpc\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let answer = raw(&mut stream, grpc.as_bytes(), Duration::from_secs(5)).await;
    assert_eq!(answer, "", "it is reset");
    assert_eq!(request_counts(&apps), [2]);
}

#[tokio::test]
async fn pod_that_answered_before_is_never_passed_over() {
    let (client, apps, gone) = interchangeable_beside_one_that_is_gone().await;
    let listener = TcpListener::bind(gone).await.unwrap();
    let mut stream = client.call(gone).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {NAMED}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut served, _) = listener.accept().await.unwrap();
    let mut head = [0; 1024];
    assert!(served.read(&mut head).await.unwrap() > 0);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    served.write_all(answer).await.unwrap();
    let count = stream.read(&mut head).await.unwrap();
    assert!(head[..count].starts_with(b"HTTP/1.1 200"));
    drop((served, listener));
    let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(5)).await;
    assert_eq!(answer, "", "it is reset");
    assert_eq!(request_counts(&apps), [0]);
}

#[tokio::test]
async fn failing_interchangeable_pod_keeps_its_calls() {
    let (client, server, apps) = fleet([UNAVAILABLE, OK]).await;
    let there = |app: &App| endpoint(server.ip, app.port, Some("api"));
    let list = v1::Endpoints {
        endpoints: apps.iter().map(there).collect(),
        alike: true,
        ..v1::Endpoints::default()
    };
    client.set(vec![resource(
        &wire::names::endpoints("shop", "api", 80),
        v1::resource::Content::Endpoints(list),
    )]);
    let bad = by_address(&client, &server, apps[0].port);
    assert_eq!(ask(&client, bad, "GET", NAMED).await.0, 503);
    assert_eq!(request_counts(&apps), [1, 0]);
}

#[tokio::test]
async fn breaker_applies_to_headless_calls_without_moving_them() {
    let (client, server, apps) = fleet([UNAVAILABLE, OK]).await;
    let bad = by_address(&client, &server, apps[0].port);
    let good = by_address(&client, &server, apps[1].port);
    let ten = Breaker {
        failure_percent: Percent::at_most(100),
        min_requests: 10,
        open_time: Duration::from_secs(60),
        ..Breaker::DEFAULT
    };
    client.set(vec![policy_of(&EffectivePolicy {
        breaker: whole(ten),
        ..EffectivePolicy::default()
    })]);
    for _ in 0..10 {
        let (status, answer) = ask(&client, bad, "GET", NAMED).await;
        assert_eq!(status, 503);
        assert!(!answer.contains(OPEN), "the application's own: {answer}");
    }
    assert_eq!(request_counts(&apps), [10, 0]);
    for addr in [bad, good] {
        let (status, answer) = ask(&client, addr, "GET", NAMED).await;
        assert_eq!(status, 503);
        assert!(answer.contains(OPEN), "{answer}");
    }
    let labels = ["service=\"shop/api\"", "backend=\"shop/api\""];
    assert_eq!(sum(&client, "weft_breaker_state", &labels), 2.0);
    assert_eq!(ask(&client, good, "GET", OTHER_ADDR).await.0, 200);
    assert_eq!(request_counts(&apps), [10, 1]);
}

#[tokio::test]
async fn a_breaker_alone_makes_no_pod_rest() {
    let (client, _server, apps, gone) = beside_one_that_is_gone().await;
    let hundred = Breaker {
        min_requests: 100,
        ..Breaker::DEFAULT
    };
    client.set(vec![policy_of(&EffectivePolicy {
        breaker: whole(hundred),
        ..EffectivePolicy::default()
    })]);
    for _ in 0..6 {
        assert_eq!(ask(&client, gone, "GET", NAMED).await.0, 503);
    }
    assert_eq!(request_counts(&apps), [0], "it moves nothing either");
    let ejections = sum(&client, "weft_ejections_total", &[]);
    assert_eq!(ejections, 0.0, "{}", client.metrics());
    let resting = sum(&client, "weft_ejected_endpoints", &[]);
    assert_eq!(resting, 0.0, "{}", client.metrics());
}

#[tokio::test]
async fn client_chosen_pod_goes_first_when_all_ejected() {
    let (client, server, _) = fleet([]).await;
    let chosen = TcpListener::bind((server.ip, 0)).await.unwrap();
    let other = TcpListener::bind((server.ip, 0)).await.unwrap();
    let ports = [&chosen, &other].map(|listener| listener.local_addr().unwrap().port());
    drop((chosen, other));
    let there = ports.map(|port| endpoint(server.ip, port, Some("api")));
    client.set(vec![endpoints("api", there.into())]);
    let addr = by_address(&client, &server, ports[0]);
    let ejection = Ejection {
        consecutive_failures: 1,
        base_time: Duration::from_secs(60),
        max_percent: Percent::at_most(100),
        ..Ejection::DEFAULT
    };
    client.set(vec![policy_of(&EffectivePolicy {
        ejection: whole(ejection),
        ..EffectivePolicy::default()
    })]);
    assert_eq!(ask(&client, addr, "POST", NAMED).await.0, 503);
    let resting = || sum(&client, "weft_ejected_endpoints", &[]);
    assert_eq!(resting(), 2.0, "{}", client.metrics());
    // It is back before this proxy knows.
    let app = App::on(TcpListener::bind(addr).await.unwrap(), OK);
    let attempts = || sum(&client, "weft_attempts_total", &["service=\"shop/api\""]);
    let before = attempts();
    for _ in 0..20 {
        assert_eq!(ask(&client, addr, "POST", NAMED).await.0, 200);
    }
    assert_eq!(app.request_count(), 20);
    assert_eq!(resting(), 2.0, "{}", client.metrics());
    assert_eq!(attempts(), before + 20.0, "no other endpoint was called");
}
