//! Certificates that are revoked: handshakes, requests, bytes, and connections that stand.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use identity::tls::CertHandle;
use policy::origin::Origin;
use policy::revoked::{Revocation, Subject};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use weft_proxy::{Addresses, Process, ServedWorkload};
use wire::convert::revocations_message;
use wire::v1;
use wire::v1::Protocol;

use super::answers::{App, SILENCE, served_by, sum};
use super::authorities::{echoes, ends};
use super::mesh_port::{ask, peer};
use super::tcp::echo;
use crate::support::{Authority, Pod, get, get_within, http_app, pair, resource, service, vip};

const PATIENCE: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(3600);

/// What is revoked of an account of the tests.
fn revocation(account: &str) -> Revocation {
    Revocation {
        subject: Subject::ServiceAccount {
            namespace: "shop".into(),
            name: account.into(),
        },
        issued_before: None,
        announced: false,
        by: Origin::new("Revocation", "", "incident-42"),
    }
}

fn sent(revocation: &Revocation) -> Vec<v1::Resource> {
    let message = revocations_message([revocation]);
    let content = v1::resource::Content::Revocations(message);
    vec![resource(wire::names::REVOCATIONS, content)]
}

/// All certificates of an account, for good.
pub(super) fn revoked(account: &str) -> Vec<v1::Resource> {
    sent(&revocation(account))
}

/// Those that were issued before.
fn outdated(account: &str, issued_before: SystemTime) -> Revocation {
    Revocation {
        issued_before: Some(issued_before),
        ..revocation(account)
    }
}

/// A client whose calls of `api` are bytes to a server, with a connection that carries some.
async fn bytes() -> (Pod, Pod, TcpStream) {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let port = echo(&server, "").await;
    client.reaches(&server, port);
    let mut stream = client.call(vip()).await;
    assert!(echoes(&mut stream).await);
    (client, server, stream)
}

/// Runs what looks after the connections of a pod.
fn process_of(pod: &Pod) -> Process {
    let addresses = Addresses {
        outbound: Vec::new(),
        inbound: Vec::new(),
        mesh: Vec::new(),
        original: |_| Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    let served = ServedWorkload::new(Arc::clone(&pod.proxy), addresses);
    Process::start(vec![served], Arc::clone(pod.proxy.budget())).unwrap()
}

/// Connections that the pod has accepted of peers.
fn accepted(pod: &Pod) -> f64 {
    let parts = ["protocol=\"http2\"", "security=\"mtls\""];
    sum(pod, "weft_connections_total", &parts)
}

#[tokio::test]
async fn revoked_pod_is_not_called_until_lifted() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    client.set(revoked("api"));
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("weft-reason: revoked\r\n"), "{answer}");
    assert!(seen.lock().is_empty());
    assert!(sum(&client, "weft_revoked_refusals_total", &[]) >= 1.0);
    assert_eq!(accepted(&server), 0.0);

    client.replace(wire::names::REVOCATIONS, Vec::new());
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn application_of_revoked_pod_learns_why_calls_fail() {
    let (client, _server, _, seen) = pair(Protocol::Http1).await;
    client.set(revoked("web"));
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("weft-reason: revoked\r\n"), "{answer}");
    assert!(answer.contains("Revocation incident-42"), "{answer}");
    assert!(seen.lock().is_empty());
}

// Claims: trust-5a
#[tokio::test]
async fn revoked_caller_gets_no_connection() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    server.set(revoked("web"));
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_ne!(status, 200, "{answer}");
    assert!(seen.lock().is_empty());
    let parts = ["direction=\"inbound\"", "reason=\"revoked\""];
    assert!(sum(&server, "weft_tls_failures_total", &parts) >= 1.0);
    assert!(sum(&server, "weft_revoked_refusals_total", &[]) >= 1.0);
}

/// A peer of its own making, on the connection that it opened before.
#[tokio::test]
async fn open_connection_of_revoked_caller_brings_nothing_in() {
    let authority = Authority::new();
    let certs = authority.leaf("web", LIFE, SystemTime::now());
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let (uri, port) = (format!("http://{}:{port}/", server.ip), port.to_string());
    let mut sender = peer(&authority, &certs, &server).await.unwrap();
    let get = ask(&mut sender, Method::GET, "http1", &uri, &port).await;
    assert_eq!(get.unwrap(), 200);
    server.set(revoked("web"));
    for (method, protocol) in [
        (Method::GET, "http1"),
        (Method::POST, "tcp"),
        (Method::GET, "http1"),
    ] {
        let answer = ask(&mut sender, method, protocol, &uri, &port).await;
        assert!(matches!(answer, Ok(403) | Err(_)), "{protocol}: {answer:?}");
    }
    assert_eq!(seen.lock().len(), 1);
}

// Claims: trust-5a
#[tokio::test]
async fn request_in_flight_of_revoked_caller_is_refused() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, SILENCE).await;
    served_by(&client, &server, &[&app]);
    let stream = client.call(vip()).await;
    let asking = tokio::spawn(async move { get_within(stream, "/", "", PATIENCE).await });
    while app.request_count() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    // Without the grace of a request that rules no longer allow.
    server.set(revoked("web"));
    let (status, answer) = asking.await.unwrap();
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("weft-reason: revoked\r\n"), "{answer}");
}

/// Its caller may be the thief of a key, who waits for no end.
#[tokio::test]
async fn request_in_flight_of_outdated_caller_ends_in_seconds() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let _process = process_of(&server);
    let app = App::new(server.ip, SILENCE).await;
    served_by(&client, &server, &[&app]);
    let stream = client.call(vip()).await;
    let asking = tokio::spawn(async move { get_within(stream, "/", "", PATIENCE).await });
    while app.request_count() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    server.set(sent(&outdated("web", SystemTime::now() + LIFE)));
    let (status, answer) = asking.await.unwrap();
    assert!(status >= 500, "{answer}");
}

/// Where nothing is enforced.
// Claims: trust-5a
#[tokio::test]
async fn bytes_of_revoked_and_outdated_callers_end() {
    let later = SystemTime::now() + LIFE;
    for revocation in [revocation("web"), outdated("web", later)] {
        let (_client, server, mut stream) = bytes().await;
        server.set(sent(&revocation));
        assert!(ends(&mut stream).await, "{revocation:?}");
    }
}

// Claims: trust-5a
#[tokio::test]
async fn connections_to_revoked_pod_end_at_once() {
    let (client, _server, mut stream) = bytes().await;
    let _process = process_of(&client);
    client.set(revoked("api"));
    // Connections of a root that is replaced would have until the second look, five seconds.
    let ended = timeout(Duration::from_secs(4), ends(&mut stream)).await;
    assert_eq!(ended, Ok(true));
}

#[tokio::test]
async fn connections_of_revoked_pod_end_by_its_own_proxy() {
    let (client, _server, mut stream) = bytes().await;
    client.set(revoked("web"));
    client.proxy.end_revoked();
    assert!(ends(&mut stream).await);
}

// Claims: trust-5b
#[tokio::test]
async fn stolen_key_is_refused_and_its_workload_loses_nothing() {
    let (authority, now) = (Authority::new(), SystemTime::now());
    let certs = authority.leaf("web", LIFE, now - Duration::from_secs(600));
    let stolen = CertHandle::empty();
    stolen.store((*certs.current().unwrap()).clone());
    let client = Pod::with(authority.roots(), certs.clone(), "web").await;
    let thief = Pod::with(authority.roots(), stolen, "web").await;
    let server = Pod::new(&authority, "api").await;
    let (port, _) = http_app(&server, "api").await;
    for pod in [&client, &thief] {
        pod.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        pod.reaches(&server, port);
        assert_eq!(get(pod.call(vip()).await, "/", "").await.0, 200);
    }
    let renewed = authority.leaf("web", LIFE, now);
    certs.store((*renewed.current().unwrap()).clone());
    let revocation = outdated("web", now - Duration::from_secs(300));
    server.set(sent(&revocation));
    for _ in 0..20 {
        let (status, answer) = get(client.call(vip()).await, "/", "").await;
        assert_eq!(status, 200, "{answer}");
    }
    let refused = async {
        while get(thief.call(vip()).await, "/", "").await.0 == 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test]
async fn renewed_proxy_opens_new_connections_before_it_must() {
    let (authority, now) = (Authority::new(), SystemTime::now());
    let certs = authority.leaf("web", LIFE, now - Duration::from_secs(600));
    let client = Pod::with(authority.roots(), certs.clone(), "web").await;
    let server = Pod::new(&authority, "api").await;
    client.set(service("api", vip().ip(), Protocol::Opaque, Vec::new()));
    let port = echo(&server, "").await;
    client.reaches(&server, port);
    let _process = process_of(&client);
    let mut under_way = client.call(vip()).await;
    assert!(echoes(&mut under_way).await);
    let announced = Revocation {
        announced: true,
        ..outdated("web", now - Duration::from_secs(300))
    };
    client.set(sent(&announced));
    let renewed = authority.leaf("web", LIFE, now);
    certs.store((*renewed.current().unwrap()).clone());
    let opened_anew = async {
        while accepted(&server) < 2.0 {
            sleep(Duration::from_millis(20)).await;
            assert!(echoes(&mut client.call(vip()).await).await);
        }
    };
    timeout(PATIENCE, opened_anew).await.unwrap();
    assert!(echoes(&mut under_way).await, "what is under way goes on");
}
