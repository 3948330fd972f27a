//! Callers that give up, slow callers, and endpoints that keep every caller waiting.
//!
//! Claims: calls-24

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Response, response};
use identity::tls::{self, ClientAuth, MESH_ALPN};
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Timeouts;
use policy::traffic::endpoint::Ejection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use weft_proxy::{Budget, MESH_PORT};
use wire::v1::Protocol;

use super::answers::{App, OK, SILENCE, ask, limited, policy_of, served_by, sum, whole};
use super::shown::{Does, call, grpc, serve, without_warmup};
use crate::support::{Authority, Pod, endpoint, endpoints, http_app, pair, service, vip};

const EJECTIONS: &str = "weft_ejections_total";
/// Kernels take megabytes of a body before a writer waits.
const LARGE: usize = 10 << 20;
const PART: usize = 128 << 10;
const HOUR: Duration = Duration::from_secs(3600);

/// It has hung from its start, so it has no measured latency.
#[tokio::test]
async fn hanging_endpoint_draws_few_calls_despite_cancelling_callers() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let (mut all, mut request_counts) = (Vec::new(), Vec::new());
    for does in [Does::Hangs, Does::Answers, Does::Answers] {
        let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        all.push(endpoint(server.ip, port, Some("api")));
        request_counts.push(serve(listener, does));
    }
    client.set(vec![endpoints("api", all)]);
    without_warmup(&client);
    let mut sender = grpc(&client).await;
    let mut answered = 0;
    for _ in 0..20 {
        // Long beside what an answer takes on a busy machine.
        let answer = timeout(Duration::from_secs(1), sender.send_request(call())).await;
        answered += usize::from(answer.is_ok_and(|answer| answer.is_ok()));
    }
    let hung = request_counts[0].load(Relaxed);
    assert!(
        (1..=5).contains(&hung),
        "{hung} of 20 hung, {answered} answered"
    );
    assert!(answered >= 15, "{answered} of 20, {hung} hung");
}

/// The head of a request and half of its body; what is answered to that.
async fn half_a_post(client: &Pod) -> String {
    let mut stream = client.call(vip()).await;
    let half = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 10\r\n\r\nhello";
    stream.write_all(half.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let patience = Duration::from_secs(10);
    let read = timeout(patience, stream.read(&mut answer)).await;
    answer.truncate(read.expect("an answer in time").unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}

/// An attempt may take as many milliseconds, and one that fails makes its endpoint rest.
fn strict(millis: u64) -> EffectivePolicy {
    EffectivePolicy {
        timeouts: limited(Timeouts {
            backend_request: Some(Duration::from_millis(millis)),
            ..Timeouts::DEFAULT
        }),
        ejection: whole(Ejection {
            consecutive_failures: 1,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

#[tokio::test]
async fn slow_callers_eject_no_endpoint() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, OK).await,
        App::new(server.ip, OK).await,
        App::new(server.ip, OK).await,
    ];
    served_by(&client, &server, &[&apps[0], &apps[1], &apps[2]]);
    client.set(vec![policy_of(&strict(300))]);
    for _ in 0..60 {
        assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
    }
    for _ in 0..6 {
        let answer = half_a_post(&client).await;
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    }
    assert_eq!(sum(&client, EJECTIONS, &[]), 0.0, "{}", client.metrics());
    // Where all of the request was sent it is the endpoint that is late.
    let silent = App::new(server.ip, SILENCE).await;
    served_by(&client, &server, &[&silent, &apps[0], &apps[1]]);
    let mut posts = 0;
    while sum(&client, EJECTIONS, &[]) == 0.0 {
        ask(&client, "POST", "", "{}").await;
        posts += 1;
        assert!(posts < 500, "it must rest: {}", client.metrics());
    }
}

/// Accepts, and reads nothing ever.
async fn stuck(ip: IpAddr) -> u16 {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    port
}

/// The status of a POST whose body comes in parts, so that the proxy waits for its sender
/// between them until the server takes nothing more.
async fn large_post(client: &Pod) -> String {
    let (mut read, mut write) = client.call(vip()).await.into_split();
    let sending = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {LARGE}\r\n\r\n");
        let _ = write.write_all(head.as_bytes()).await;
        for _ in 0..LARGE / PART {
            let _ = write.write_all(&[b'y'; PART]).await;
            sleep(Duration::from_millis(1)).await;
        }
        // Not closed before the answer has come.
        write
    });
    let mut status = [0; 12];
    let patience = Duration::from_secs(10);
    let read = timeout(patience, read.read_exact(&mut status)).await;
    read.expect("an answer in time").unwrap();
    sending.abort();
    String::from_utf8_lossy(&status).into_owned()
}

/// The body waits for the endpoint then, and not for its sender.
#[tokio::test]
async fn an_endpoint_that_takes_no_body_rests() {
    for account in [None, Some("api")] {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let apps = [App::new(server.ip, OK).await, App::new(server.ip, OK).await];
        // No more than 34 % rest, which is one of three.
        let ports = [apps[0].port, apps[1].port, stuck(server.ip).await];
        let all = ports.map(|port| endpoint(server.ip, port, account));
        client.set(vec![endpoints("api", all[..2].to_vec())]);
        client.set(vec![policy_of(&strict(500))]);
        // An ejected endpoint ranks below the others, which are measured by now.
        for _ in 0..60 {
            assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
        }
        client.set(vec![endpoints("api", all.to_vec())]);
        let mut posts = 0;
        while sum(&client, EJECTIONS, &[]) == 0.0 {
            large_post(&client).await;
            posts += 1;
            assert!(posts < 100, "{account:?}: {}", client.metrics());
        }
        // The remaining one takes them.
        assert_eq!(large_post(&client).await, "HTTP/1.1 200", "{account:?}");
    }
}

/// A peer proxy that has no memory for any request, and reports that at once; its number of
/// requests.
async fn full(authority: &Authority) -> (IpAddr, Arc<AtomicUsize>) {
    stand_in(authority, |_| {
        Response::builder()
            .status(503)
            .header("weft-unsent", "1")
            .header("weft-reason", "overload")
    })
    .await
}

/// What a peer proxy answers to a request with this head.
type Answer = fn(&HeaderMap) -> response::Builder;

/// A stand-in for a peer proxy, and its number of requests.
pub(super) async fn stand_in(authority: &Authority, answer: Answer) -> (IpAddr, Arc<AtomicUsize>) {
    let leaf = || authority.leaf("api", HOUR, SystemTime::now());
    let config = tls::mesh_server_config(
        &authority.roots(),
        &leaf(),
        &[MESH_ALPN],
        ClientAuth::Required,
    );
    let ip = Pod::unserved(&Budget::new(64 << 20), authority.roots(), leaf(), "api").ip;
    let listener = TcpListener::bind((ip, MESH_PORT)).await.unwrap();
    let request_count = Arc::new(AtomicUsize::new(0));
    let log = Arc::clone(&request_count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            tokio::spawn(answer_all(stream, acceptor, answer, Arc::clone(&log)));
        }
    });
    (ip, request_count)
}

async fn answer_all(
    stream: TcpStream,
    by: TlsAcceptor,
    answer: Answer,
    log: Arc<AtomicUsize>,
) -> Option<()> {
    let stream = by.accept(stream).await.ok()?;
    let mut connection = h2::server::handshake(stream).await.ok()?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request.ok()?;
        log.fetch_add(1, Relaxed);
        let head = answer(request.headers()).body(()).unwrap();
        respond.send_response(head, true).ok()?;
    }
    Some(())
}

#[tokio::test]
async fn call_finding_no_memory_moves_only_once() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let (mut all, mut request_counts) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (ip, log) = full(&authority).await;
        all.push(endpoint(ip, 8080, Some("api")));
        request_counts.push(log);
    }
    client.set(vec![endpoints("api", all)]);
    for (method, times) in [("POST", 2), ("GET", 4)] {
        let (status, answer) = ask(&client, method, "", "").await;
        assert_eq!(status, 503, "{answer}");
        assert!(answer.contains("weft-reason: overload"), "{answer}");
        let request_counts = request_counts.iter().map(|log| log.load(Relaxed));
        assert_eq!(request_counts.sum::<usize>(), times, "{method}");
    }
    // Where the other one has room all are served.
    let server = Pod::new(&authority, "api").await;
    let (port, _) = http_app(&server, "api").await;
    let (full, request_counts) = full(&authority).await;
    let both = [(full, 8080), (server.ip, port)];
    let both = both.map(|(ip, port)| endpoint(ip, port, Some("api")));
    client.set(vec![endpoints("api", both.to_vec())]);
    let mut posts = 0;
    while request_counts.load(Relaxed) == 0 {
        let (status, answer) = ask(&client, "POST", "", "{}").await;
        assert_eq!(status, 200, "{answer}");
        posts += 1;
        assert!(posts < 300, "the full one must be asked");
    }
}
