//! Connections that applications keep after their target has gone: a pod whose address another pod
//! has now, and a Service.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use http::Request;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use weft_proxy::Budget;
use wire::v1::destination::Target;
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use super::answers::{App, OK};
use super::switching::{WEBSOCKET, accept_upgrade, head};
use crate::support::{
    Authority, Pod, endpoint, endpoints, external, get, http_app, id, resource, service, vip,
    workload,
};

/// Within this a change is felt.
const SOON: Duration = Duration::from_secs(5);
const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: api.shop\r\n\r\n";

/// A pod that ends as pods do: all its sockets close at once, as it has a runtime of its own.
struct Incarnation {
    app: App,
    ip: IpAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Incarnation {
    /// With a proxy, at an address of its own.
    async fn first(authority: &Arc<Authority>, uid: &'static str) -> Self {
        Self::start(authority, None, Some(uid)).await
    }

    /// At the address and port of a former one; without a proxy where there is no uid.
    async fn next(authority: &Arc<Authority>, addr: SocketAddr, uid: Option<&'static str>) -> Self {
        Self::start(authority, Some(addr), uid).await
    }

    async fn start(
        authority: &Arc<Authority>,
        addr: Option<SocketAddr>,
        uid: Option<&'static str>,
    ) -> Self {
        let authority = Arc::clone(authority);
        let (begins, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let life = async move {
            let mut at = addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
            if let Some(uid) = uid {
                let life = Duration::from_secs(3600);
                let certs = authority.leaf_named(id("api"), Some(uid), life, SystemTime::now());
                let (budget, roots) = (Budget::new(64 * 1024 * 1024), authority.roots());
                let pod = match addr {
                    Some(addr) => Pod::unserved_at(addr.ip(), &budget, roots, certs, "api"),
                    None => Pod::unserved(&budget, roots, certs, "api"),
                };
                at.set_ip(pod.ip);
                pod.set(vec![workload(
                    "api",
                    Enforcement::Open,
                    MtlsMode::Permissive,
                )]);
                pod.listen().await;
            }
            let app = App::on(TcpListener::bind(at).await.unwrap(), OK);
            let _ = begins.send((app, at.ip()));
            let _ = stopped.await;
        };
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(life);
        });
        let (app, ip) = started.await.unwrap();
        Self {
            app,
            ip,
            stop,
            thread,
        }
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.app.port)
    }

    /// Its address is free afterwards.
    fn end(self) -> SocketAddr {
        let addr = self.addr();
        let _ = self.stop.send(());
        self.thread.join().unwrap();
        addr
    }
}

/// The controller's resource of an address: a pod of headless Service `api`, of account `api` or
/// without a proxy.
fn pod_at(addr: SocketAddr, account: Option<&str>, uid: &str, protocol: Protocol) -> v1::Resource {
    let pod = v1::PodTarget {
        endpoint: Some(v1::Endpoint {
            pod_uid: uid.to_owned(),
            ..endpoint(addr.ip(), addr.port(), account)
        }),
        protocol: protocol as i32,
        headless: vec![v1::Headless {
            service: wire::names::service("shop", "api", 80),
            hosts: vec!["api.shop".into()],
        }],
    };
    resource(
        &wire::names::destination(addr.ip(), addr.port()),
        v1::resource::Content::Destination(v1::Destination {
            target: Some(Target::Pod(pod)),
        }),
    )
}

/// A client in the mesh, and a pod with a proxy that it calls by its address.
async fn scene(protocol: Protocol) -> (Arc<Authority>, Pod, Incarnation) {
    let authority = Arc::new(Authority::new());
    let client = Pod::new(&authority, "web").await;
    let server = Incarnation::first(&authority, "uid-1").await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.set(vec![
        endpoints("api", Vec::new()),
        pod_at(server.addr(), Some("api"), "uid-1", protocol),
    ]);
    (authority, client, server)
}

/// One request on a connection that stays open: the head of its answer, or `None` where the
/// connection ends instead.
async fn ask(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(GET).await.ok()?;
    let mut answer = vec![0; 4096];
    let read = timeout(SOON, stream.read(&mut answer)).await;
    match read.expect("an answer or the end must come") {
        Ok(0) | Err(_) => None,
        Ok(count) => Some(String::from_utf8_lossy(&answer[..count]).into_owned()),
    }
}

async fn ends(stream: &mut TcpStream) -> bool {
    let ended = timeout(SOON, stream.read(&mut [0])).await;
    matches!(ended, Ok(Ok(0) | Err(_)))
}

fn status(answer: Option<&String>) -> &str {
    answer.map_or("none", |answer| &answer[9..12])
}

#[tokio::test]
async fn kept_connection_never_reaches_next_pod_of_address() {
    // Also of the same account, as a pod of a StatefulSet is.
    for (uid, account) in [(Some("uid-2"), Some("api")), (None, None)] {
        let (authority, client, server) = scene(Protocol::Http1).await;
        let mut kept = client.call(server.addr()).await;
        assert_eq!(status(ask(&mut kept).await.as_ref()), "200");
        let next = Incarnation::next(&authority, server.end(), uid).await;
        // Before the controller's word comes: what answers is another pod, or no proxy does.
        let answer = ask(&mut kept).await;
        assert_eq!(answer, None, "it breaks as it does without a mesh: {uid:?}");
        client.set(vec![pod_at(next.addr(), account, "uid-2", Protocol::Http1)]);
        assert_eq!(next.app.request_count(), 0, "{uid:?}");
        // A new connection reaches the pod that has the address now.
        let (fresh, answer) = get(client.call(next.addr()).await, "/", "").await;
        assert_eq!(fresh, 200, "{answer}");
        assert_eq!(next.app.request_count(), 1);
        next.end();
    }
}

#[tokio::test]
async fn older_controller_without_uids_leads_to_address() {
    let (authority, client, server) = scene(Protocol::Http1).await;
    client.set(vec![pod_at(
        server.addr(),
        Some("api"),
        "",
        Protocol::Http1,
    )]);
    let mut kept = client.call(server.addr()).await;
    assert_eq!(status(ask(&mut kept).await.as_ref()), "200");
    let next = Incarnation::next(&authority, server.end(), Some("uid-2")).await;
    client.set(vec![pod_at(next.addr(), Some("api"), "", Protocol::Http1)]);
    let answer = ask(&mut kept).await;
    assert_eq!(status(answer.as_ref()), "200", "{answer:?}");
    next.end();
}

#[tokio::test]
async fn idle_connection_to_gone_pod_is_closed() {
    let (_, client, server) = scene(Protocol::Http1).await;
    let mut used = client.call(server.addr()).await;
    assert_eq!(status(ask(&mut used).await.as_ref()), "200");
    let mut other = client.call(server.addr()).await;
    assert_eq!(status(ask(&mut other).await.as_ref()), "200");
    let mut silent = client.call(server.addr()).await;
    let addr = server.end();
    client.set(vec![external(addr)]);
    assert!(ends(&mut used).await && ends(&mut other).await && ends(&mut silent).await);
}

#[tokio::test]
async fn http2_connection_to_gone_pod_goes_away() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let server = Pod::of_uid(&authority, "api", "uid-1").await;
    let (port, _) = http_app(&server, "api").await;
    let addr = SocketAddr::new(server.ip, port);
    client.set(service("api", vip().ip(), Protocol::Http2, Vec::new()));
    client.set(vec![pod_at(addr, Some("api"), "uid-1", Protocol::Http2)]);
    let stream = client.call(addr).await;
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = || {
        let request = Request::get("http://api.shop/a");
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let answer = sender.send_request(request()).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    client.set(vec![external(addr)]);
    let ended = timeout(SOON, connection).await;
    assert!(matches!(ended, Ok(Ok(Ok(())))), "{ended:?}");
}

#[tokio::test]
async fn pod_that_lives_keeps_its_connections() {
    let (_, client, server) = scene(Protocol::Http1).await;
    let mut kept = client.call(server.addr()).await;
    for zone in ["a", "b"] {
        assert_eq!(status(ask(&mut kept).await.as_ref()), "200");
        let mut moved = pod_at(server.addr(), Some("api"), "uid-1", Protocol::Http1);
        let Some(v1::resource::Content::Destination(destination)) = &mut moved.content else {
            unreachable!("it is one");
        };
        if let Some(Target::Pod(pod)) = &mut destination.target {
            pod.endpoint.as_mut().unwrap().zone = zone.to_owned();
            pod.headless.clear();
        }
        client.set(vec![moved]);
    }
    let answer = ask(&mut kept).await.unwrap();
    assert!(
        !answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    server.end();
}

#[tokio::test]
async fn connection_to_moved_service_closes_after_its_response() {
    let (_, client, server) = scene(Protocol::Http1).await;
    let there = endpoint(server.ip, server.app.port, Some("api"));
    client.set(vec![endpoints("api", vec![there.clone()])]);
    let mut kept = client.call(vip()).await;
    let answer = ask(&mut kept).await.unwrap();
    assert!(
        !answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    // The cluster address passes to another Service, which has the same pods here.
    client.set(service("other", vip().ip(), Protocol::Http1, Vec::new()));
    client.set(vec![endpoints("other", vec![there])]);
    let answer = ask(&mut kept).await.unwrap();
    assert_eq!(&answer[9..12], "200", "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert!(ends(&mut kept).await);
    server.end();
}

#[tokio::test]
async fn bytes_and_upgrades_end_with_their_pod() {
    let (_, client, server) = scene(Protocol::Opaque).await;
    // Listeners of this runtime, which stay: nothing but the controller's word ends them.
    let bytes = TcpListener::bind((server.ip, 0)).await.unwrap();
    let upgrades = TcpListener::bind((server.ip, 0)).await.unwrap();
    let [to_bytes, to_upgrades] = [&bytes, &upgrades].map(|one| one.local_addr().unwrap());
    client.set(vec![
        pod_at(to_bytes, Some("api"), "uid-1", Protocol::Opaque),
        pod_at(to_upgrades, Some("api"), "uid-1", Protocol::Http1),
    ]);
    let mut relayed = client.call(to_bytes).await;
    relayed.write_all(b"ping").await.unwrap();
    let (mut application, _) = timeout(SOON, bytes.accept()).await.unwrap().unwrap();
    application.read_exact(&mut [0; 4]).await.unwrap();

    let mut upgraded = client.call(to_upgrades).await;
    upgraded.write_all(WEBSOCKET).await.unwrap();
    let mut switched = accept_upgrade(&upgrades).await;
    let answer = b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    switched.write_all(answer).await.unwrap();
    assert!(head(&mut upgraded).await.starts_with("HTTP/1.1 101"));

    client.set(vec![external(to_bytes), external(to_upgrades)]);
    assert!(ends(&mut relayed).await && ends(&mut upgraded).await);
    server.end();
}

#[tokio::test]
async fn plaintext_relay_ends_where_address_becomes_meshed() {
    let authority = Arc::new(Authority::new());
    let client = Pod::new(&authority, "web").await;
    let listener = TcpListener::bind((client.ip, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    client.set(vec![external(addr)]);
    let mut relayed = client.call(addr).await;
    relayed.write_all(b"ping").await.unwrap();
    let (mut application, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    application.read_exact(&mut [0; 4]).await.unwrap();
    client.set(vec![pod_at(addr, Some("api"), "uid-1", Protocol::Http1)]);
    assert!(ends(&mut relayed).await);
}

#[tokio::test]
async fn plaintext_relay_ends_where_endpoints_name_its_address() {
    let client = Pod::new(&Authority::new(), "web").await;
    let listener = TcpListener::bind((client.ip, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    client.set(vec![external(addr)]);
    let mut relayed = client.call(addr).await;
    relayed.write_all(b"ping").await.unwrap();
    let (mut application, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    application.read_exact(&mut [0; 4]).await.unwrap();
    // On this one no byte has passed by then, so it is not relayed yet.
    let mut silent = client.call(addr).await;
    let (mut accepted, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();

    // What stands at the address is as before, by the destination alone.
    let there = endpoint(addr.ip(), addr.port(), Some("api"));
    client.set(vec![endpoints("api", vec![there])]);
    assert!(ends(&mut relayed).await);
    let _ = silent.write_all(b"secret").await;
    assert!(ends(&mut silent).await);
    let mut leaked = Vec::new();
    let read = timeout(SOON, accepted.read_to_end(&mut leaked)).await;
    assert!(read.is_ok() && leaked.is_empty(), "{leaked:?}");
}
