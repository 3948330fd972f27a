//! Each decision is made from one configuration, however often the configuration changes.
//!
//! A program of its own: swapping configurations takes a core, and other tests measure time.
//!
//! Claims: attack-53

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use support::{
    Authority, Pod, endpoint, endpoints, http_app, id, resource, rule, service, split, vip,
};

const SWAPPED_EVERY: Duration = Duration::from_micros(50);
/// Calls of one caller: by HTTP/1.1, by HTTP/2, by an upgrade each, by TCP.
const HTTP_CALLS: usize = 4000;
const UPGRADES: usize = 1000;
const TCP_CALLS: usize = 2000;
/// Not in its normal form, which only HTTP rules of the called pod make of it.
const RAW: &str = "/x/../ok";
const NORMAL: &str = "/ok";

/// Requests that an application saw, by caller and path.
type RequestCounts = Arc<Mutex<BTreeMap<(String, String), usize>>>;

/// Answers requests of both versions, and switches on request.
async fn app(pod: &Pod) -> (u16, RequestCounts) {
    let seen = RequestCounts::default();
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&log, request.uri().path(), request.headers());
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let io = TokioIo::new(stream);
                let _ = builder.serve_connection_with_upgrades(io, service).await;
            });
        }
    });
    (port, seen)
}

fn answer(seen: &RequestCounts, path: &str, map: &HeaderMap) -> Response<Empty<Bytes>> {
    let caller = map.get("weft-client-id").unwrap().to_str().unwrap();
    let key = (caller.to_owned(), path.to_owned());
    *seen.lock().entry(key).or_default() += 1;
    let mut response = Response::new(Empty::new());
    if let Some(upgrade) = map.get(header::UPGRADE) {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let map = response.headers_mut();
        map.insert(header::UPGRADE, upgrade.clone());
        map.insert(header::CONNECTION, "upgrade".parse().unwrap());
    }
    response
}

/// Sends bytes back.
async fn echo(pod: &Pod) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    port
}

/// The address of a Service of bytes.
fn bytes_vip() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 81], 80))
}

/// Two configurations that never stand beside each other.
type Two = [v1::Batch; 2];

fn batch(resources: Vec<v1::Resource>) -> v1::Batch {
    v1::Batch {
        id: 1,
        set: resources.into_iter().map(wire::version::stamp).collect(),
        ..v1::Batch::default()
    }
}

/// A caller's: a split to one backend, whose endpoints are `right` as long as that split
/// is in force and `wrong` otherwise.
fn outbound(server: &Pod, right: [u16; 2], wrong: u16) -> Two {
    [["a", "b"], ["b", "a"]].map(|[chosen, other]| {
        let services = [("web", vip()), ("bytes", bytes_vip())];
        let protocols = [Protocol::Detect, Protocol::Opaque];
        let mut resources = Vec::new();
        for (at, (name, addr)) in services.into_iter().enumerate() {
            let backend = format!("{name}-{chosen}");
            let named = split(&format!("to-{backend}"), &[(&backend, 1)]);
            resources.extend(service(name, addr.ip(), protocols[at], vec![named]));
            for (one, port) in [(chosen, right[at]), (other, wrong)] {
                let to = endpoint(server.ip, port, Some("api"));
                resources.push(endpoints(&format!("{name}-{one}"), vec![to]));
            }
            let root = endpoint(server.ip, wrong, Some("api"));
            resources.push(endpoints(name, vec![root]));
        }
        batch(resources)
    })
}

/// The called pod's. With the first only `raw` may send requests, which pass as they are,
/// and the port of bytes is declared, which its rule relies on. With the second only
/// `web` may, by a rule about paths, and what the first relied on does not hold.
fn inbound(port: u16, bytes: u16, wrong: u16) -> Two {
    let workload = |declared: &[u16]| {
        let opaque = declared.iter().map(|port| v1::PortProtocol {
            first: u32::from(*port),
            last: u32::from(*port),
            protocol: Protocol::Opaque as i32,
        });
        let workload = v1::Workload {
            identity: id("api").as_str().to_owned(),
            enforcement: Enforcement::Enforce as i32,
            mtls: MtlsMode::Strict as i32,
            ports: opaque.collect(),
            ..v1::Workload::default()
        };
        let content = v1::resource::Content::Workload(workload);
        resource(wire::names::WORKLOAD, content)
    };
    let (port, on_bytes) = (u32::from(port), [u32::from(bytes)]);
    // Misrouted requests show there.
    let mistakes = || {
        let port = [u32::from(wrong)];
        ["web", "raw"].map(|who| rule(&format!("wrong-{who}"), who, Some(&port), None))
    };
    let of_requests = rule("bytes", "web", Some(&on_bytes), Some(&["/"]));
    let mut two = [
        batch(vec![
            workload(&[bytes]),
            rule("requests", "raw", Some(&[port]), None),
            of_requests,
        ]),
        batch(vec![
            workload(&[]),
            rule("requests", "web", Some(&[port]), Some(&[NORMAL])),
            rule("bytes", "web", Some(&on_bytes), None),
        ]),
    ];
    for one in &mut two {
        one.set.extend(mistakes().map(wire::version::stamp));
    }
    two
}

/// How often one caller was served and refused.
#[derive(Debug, Default)]
struct Tally {
    served: usize,
    refused: usize,
    /// Upgrades that a newer configuration ended as they began.
    ended: usize,
}

impl Tally {
    fn note(&mut self, status: StatusCode, body: &[u8]) {
        match status {
            StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => self.served += 1,
            StatusCode::FORBIDDEN => self.refused += 1,
            other => panic!("{other}: {}", String::from_utf8_lossy(body)),
        }
    }
}

fn request(uri: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(uri).header(header::HOST, "web.shop");
    request.body(Empty::new()).unwrap()
}

async fn by_http1(client: &Pod) -> Tally {
    let io = TokioIo::new(client.call(vip()).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut tally = Tally::default();
    for _ in 0..HTTP_CALLS {
        let answer = sender.send_request(request(RAW)).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        tally.note(status, &body);
        sender.ready().await.unwrap();
    }
    tally
}

async fn by_http2(client: &Pod) -> Tally {
    let io = TokioIo::new(client.call(vip()).await);
    let executor = TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut tally = Tally::default();
    for _ in 0..HTTP_CALLS {
        let request = request(&format!("http://web.shop{RAW}"));
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        tally.note(status, &body);
    }
    tally
}

async fn by_upgrade(client: &Pod) -> Tally {
    let request = format!(
        "GET {RAW} HTTP/1.1\r\nHost: web.shop\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
    );
    let mut tally = Tally::default();
    for _ in 0..UPGRADES {
        let mut stream = client.call(vip()).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut head));
        let read = read.await.expect("an answer").unwrap();
        let (status, rest) = head[9..read].split_at(3);
        match StatusCode::from_bytes(status).unwrap() {
            StatusCode::BAD_GATEWAY => tally.ended += 1,
            status => tally.note(status, rest),
        }
    }
    tally
}

async fn by_tcp(client: &Pod) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..TCP_CALLS {
        let mut stream: TcpStream = client.call(bytes_vip()).await;
        stream.write_all(b"\x00raw").await.unwrap();
        let mut back = [0; 4];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut back));
        match read.await.expect("an end") {
            Ok(_) => tally.served += 1,
            Err(_) => tally.refused += 1,
        }
    }
    tally
}

// Claims: A5
#[tokio::test]
async fn no_decision_mixes_two_configurations_that_swap_under_it() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let web = Pod::new(&authority, "web").await;
    let raw = Pod::new(&authority, "raw").await;
    let (port, seen) = app(&server).await;
    let bytes = echo(&server).await;
    let (wrong, mixed) = http_app(&server, "wrong").await;
    let two = [
        (Arc::clone(&server.proxy), inbound(port, bytes, wrong)),
        (
            Arc::clone(&web.proxy),
            outbound(&server, [port, bytes], wrong),
        ),
        (
            Arc::clone(&raw.proxy),
            outbound(&server, [port, bytes], wrong),
        ),
    ];
    let swap = move |at: usize| {
        for (proxy, two) in &two {
            let nacks = proxy.config.apply(two[at % 2].clone());
            assert!(nacks.is_empty(), "{nacks:?}");
        }
    };
    swap(0);
    let over = Arc::new(AtomicBool::new(false));
    let swaps = Arc::new(AtomicU64::new(0));
    let swapping = std::thread::spawn({
        let (over, swaps) = (Arc::clone(&over), Arc::clone(&swaps));
        move || {
            for at in 1.. {
                if over.load(Relaxed) {
                    return;
                }
                swap(at);
                swaps.fetch_add(1, Relaxed);
                std::thread::sleep(SWAPPED_EVERY);
            }
        }
    });
    let started = std::time::Instant::now();
    let calls = async {
        tokio::join!(
            by_http1(&web),
            by_http2(&web),
            by_upgrade(&web),
            by_http1(&raw),
            by_http2(&raw),
            by_upgrade(&raw),
            by_tcp(&web),
        )
    };
    let all = tokio::time::timeout(Duration::from_secs(300), calls).await;
    over.store(true, Relaxed);
    swapping.join().expect("no configuration is refused");
    let (a, b, c, d, e, f, tcp) = all.expect("every call ends");
    let swaps = swaps.load(Relaxed);
    eprintln!(
        "{swaps} swaps in {:?}: {a:?} {b:?} {c:?} {d:?} {e:?} {f:?} {tcp:?}",
        started.elapsed()
    );

    // Outbound: the endpoints of one configuration under the split of the other.
    assert!(mixed.lock().is_empty(), "{:?}", mixed.lock().first());
    // Inbound: the rule of one, and the path as the other sends it on.
    let seen = seen.lock();
    let of = |who: &str, path: &str| {
        let key = (id(who).as_str().to_owned(), path.to_owned());
        seen.get(&key).copied().unwrap_or_default()
    };
    for (saw, tallies) in [
        (of("web", NORMAL), [&a, &b, &c]),
        (of("raw", RAW), [&d, &e, &f]),
    ] {
        let served: usize = tallies.iter().map(|tally| tally.served).sum();
        let ended: usize = tallies.iter().map(|tally| tally.ended).sum();
        assert!(
            (served..=served + ended).contains(&saw),
            "{saw}: {tallies:?}"
        );
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    // Inbound bytes: the rule of one, and what the other declares of the port.
    assert_eq!((tcp.served, tcp.refused), (TCP_CALLS, 0));
    // Control: both were in force while calls were made of every kind.
    for tally in [&a, &b, &c, &d, &e, &f] {
        assert!(tally.served > 0 && tally.refused > 0, "{tally:?}");
    }
    assert!(swaps > 1000, "{swaps}");
}
