//! Callers that are distinguished by pod and not by account.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wire::v1::{Enforcement, MtlsMode, Protocol};

use crate::support::{
    Authority, Pod, endpoint, endpoints, get, http_app, rule, rule_for_pods, service, vip,
};

/// Within this a change of policy must be felt.
const SOON: Duration = Duration::from_secs(2);

/// A guarded server with an application on `port` and three clients of one account: two
/// whose certificates name their pods, and one whose certificate names none.
struct Scene {
    server: Pod,
    first: Pod,
    second: Pod,
    nameless: Pod,
}

async fn scene(protocol: Protocol) -> Scene {
    let authority = Authority::new();
    let scene = Scene {
        server: Pod::new(&authority, "api").await,
        first: Pod::of_uid(&authority, "web", "uid-1").await,
        second: Pod::of_uid(&authority, "web", "uid-2").await,
        nameless: Pod::new(&authority, "web").await,
    };
    let port = match protocol {
        Protocol::Opaque => echo(&scene.server).await,
        _ => http_app(&scene.server, "api").await.0,
    };
    for client in [&scene.first, &scene.second, &scene.nameless] {
        client.set(service("api", vip().ip(), protocol, Vec::new()));
        let at = endpoint(scene.server.ip, port, Some("api"));
        client.set(vec![endpoints("api", vec![at])]);
    }
    scene
        .server
        .mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    scene
}

async fn echo(pod: &Pod) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    port
}

/// Whether four bytes come back.
async fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").await.is_ok()
        && matches!(timeout(SOON, stream.read_exact(&mut back)).await, Ok(Ok(_)))
}

/// Sends one request on a connection that stays open; gives the status.
async fn ask(stream: &mut TcpStream) -> String {
    let request = b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut buffer = vec![0; 4096];
    let count = timeout(SOON, stream.read(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&buffer[9..count.min(12)]).into_owned()
}

#[tokio::test]
async fn pod_is_identified_by_uid_not_account_alone() {
    let scene = scene(Protocol::Http1).await;
    scene
        .server
        .set(vec![rule_for_pods("t", &["uid-1"], Some(&["/"]))]);
    assert_eq!(get(scene.first.call(vip()).await, "/", "").await.0, 200);
    for other in [&scene.second, &scene.nameless] {
        let (status, answer) = get(other.call(vip()).await, "/", "").await;
        assert_eq!(status, 403, "{answer}");
        assert!(answer.contains("weft-reason: not-allowed"), "{answer}");
    }
}

#[tokio::test]
async fn removed_pod_loses_its_connection_and_next_request() {
    let tcp = scene(Protocol::Opaque).await;
    tcp.server
        .set(vec![rule_for_pods("t", &["uid-1", "uid-2"], None)]);
    let mut first = tcp.first.call(vip()).await;
    let mut second = tcp.second.call(vip()).await;
    assert!(echoes(&mut first).await && echoes(&mut second).await);
    tcp.server.set(vec![rule_for_pods("t", &["uid-2"], None)]);
    let mut byte = [0; 1];
    let ended = timeout(SOON, first.read(&mut byte)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    assert!(echoes(&mut second).await, "the other one is not touched");

    let http = scene(Protocol::Http1).await;
    let allow = |uids: &[&str]| {
        http.server
            .set(vec![rule_for_pods("t", uids, Some(&["/"]))])
    };
    allow(&["uid-1"]);
    let mut kept = http.first.call(vip()).await;
    assert_eq!(ask(&mut kept).await, "200");
    allow(&["uid-2"]);
    assert_eq!(ask(&mut kept).await, "403");
}

#[tokio::test]
async fn rule_changing_kind_leaves_no_former_version() {
    let scene = scene(Protocol::Http1).await;
    scene.server.set(vec![rule("t", "web", None, Some(&["/"]))]);
    assert_eq!(get(scene.second.call(vip()).await, "/", "").await.0, 200);
    let extended = rule_for_pods("t", &["uid-1"], Some(&["/"]));
    scene.server.replace("rule/shop/t", vec![extended]);
    assert_eq!(get(scene.second.call(vip()).await, "/", "").await.0, 403);
    assert_eq!(get(scene.first.call(vip()).await, "/", "").await.0, 200);
    scene.server.replace("extended-rule/shop/t", Vec::new());
    assert_eq!(get(scene.first.call(vip()).await, "/", "").await.0, 403);
}
