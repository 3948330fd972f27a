//! What the end of an attempt shows of its endpoint, and what it does not.
//!
//! Claims: calls-23, calls-24

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Retry;
use policy::traffic::endpoint::{Balance, Ejection};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use weft_proxy::{Budget, MESH_PORT};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::answers::{App, SLOW, UNAVAILABLE, ask, limited, policy_of, served_by, sum, whole};
use crate::support::{Authority, Pod, endpoint, endpoints, http_app, pair, service, vip};

const EJECTIONS: &str = "weft_ejections_total";
const RESTING: &str = "weft_ejected_endpoints";

/// Endpoints have all of their share at once, so that how fast they are is what counts.
pub(super) fn without_warmup(client: &Pod) {
    client.set(vec![policy_of(&EffectivePolicy {
        balance: whole(Balance {
            warmup: Duration::ZERO,
            ..Balance::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
}

/// How many of 100 POSTs came to an application that answers this at once, and how many to
/// one that takes 50 ms and works.
async fn fast_and_slow(answer: &'static str) -> [usize; 2] {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, answer).await,
        App::new(server.ip, SLOW).await,
    ];
    served_by(&client, &server, &[&apps[0], &apps[1]]);
    without_warmup(&client);
    for _ in 0..100 {
        ask(&client, "POST", "", "{}").await;
    }
    let request_count = apps.map(|app| app.request_count());
    assert_eq!(
        request_count[0] + request_count[1],
        100,
        "no POST was sent twice"
    );
    request_count
}

/// Whether or not it makes an endpoint rest.
#[tokio::test]
async fn fast_failing_endpoint_draws_no_extra_calls() {
    const BROKEN: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    for failure in [UNAVAILABLE, BROKEN] {
        let [_, good] = fast_and_slow(failure).await;
        assert!(good >= 40, "{good} of 100 were good: {failure}");
    }
}

#[tokio::test]
async fn fast_404_endpoint_counts_as_faster_one() {
    const NOT_FOUND: &str = "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n";
    let mut found = Vec::new();
    // Where its first answer took as long as the others that impression lasts for seconds.
    while found.len() < 5 {
        let [fast, _] = fast_and_slow(NOT_FOUND).await;
        if fast >= 80 {
            return;
        }
        found.push(fast);
    }
    panic!("of 100 each: {found:?}");
}

/// As in a rollout whose new pods refuse every caller.
#[tokio::test]
async fn nor_does_one_whose_proxy_refuses_at_once() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let serves = Pod::new(&authority, "api").await;
    let refuses = Pod::new(&authority, "api").await;
    refuses.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let mut all = Vec::new();
    for pod in [&serves, &refuses] {
        let app = App::new(pod.ip, SLOW).await;
        all.push(endpoint(pod.ip, app.port, Some("api")));
    }
    client.set(vec![endpoints("api", all)]);
    let mut good = 0;
    for _ in 0..100 {
        let (status, answer) = ask(&client, "POST", "", "{}").await;
        assert!([200, 403].contains(&status), "{answer}");
        good += usize::from(status == 200);
    }
    assert!((40..100).contains(&good), "{good} of 100 were good");
}

/// The same with concurrent calls: those that wait at the working one are no reason to prefer the
/// other. Neither is ejected or warms up, or that would decide.
#[tokio::test]
async fn nor_where_calls_wait_at_the_one_that_works() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, UNAVAILABLE).await,
        App::new(server.ip, SLOW).await,
    ];
    served_by(&client, &server, &[&apps[0], &apps[1]]);
    client.set(vec![policy_of(&EffectivePolicy {
        balance: whole(Balance {
            warmup: Duration::ZERO,
            ..Balance::DEFAULT
        }),
        ejection: whole(Ejection {
            consecutive_failures: 0,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let client = Arc::new(client);
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                for _ in 0..25 {
                    ask(&client, "POST", "", "{}").await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let [bad, good] = apps.map(|app| app.request_count());
    assert_eq!(bad + good, 200);
    assert!(good >= 80, "{good} of 200 were good");
}

/// Drops the first connection to the mesh port of `ip` after a while, and takes no other.
async fn breaks_off_once(ip: IpAddr) -> Arc<AtomicUsize> {
    let (listener, taken) = (
        TcpListener::bind((ip, MESH_PORT)).await.unwrap(),
        Arc::new(AtomicUsize::new(0)),
    );
    let log = Arc::clone(&taken);
    tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        log.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(400)).await;
        drop((first, listener));
    });
    taken
}

#[tokio::test]
async fn calls_awaiting_one_connection_count_its_failure_once() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let server = Pod::new(&authority, "api").await;
    let certs = authority.leaf("api", Duration::from_secs(3600), SystemTime::now());
    let budget = Budget::new(64 << 20);
    let late = Pod::unserved(&budget, authority.roots(), certs, "api");
    let (port, _) = http_app(&server, "api").await;
    let taken = breaks_off_once(late.ip).await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let all = [(server.ip, port), (late.ip, port)];
    let all = all.map(|(ip, port)| endpoint(ip, port, Some("api")));
    client.set(vec![endpoints("api", all.to_vec())]);
    // No call sees a response before all calls have chosen an endpoint.
    server.late.store(300, Relaxed);
    let client = Arc::new(client);
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { ask(&client, "POST", "", "{}").await })
        })
        .collect();
    for call in calls {
        let (status, answer) = call.await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(taken.load(Relaxed), 1, "the late one was asked");
    let moved = sum(&client, "weft_attempts_total", &["success=\"false\""]);
    assert!(moved >= 5.0, "calls waited for it: {moved}");
    assert_eq!(sum(&client, EJECTIONS, &[]), 0.0, "{}", client.metrics());
}

pub(super) async fn grpc(client: &Pod) -> SendRequest<Empty<Bytes>> {
    let io = TokioIo::new(client.call(vip()).await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn call() -> Request<Empty<Bytes>> {
    Request::post("http://web.shop/a.B/C")
        .header("content-type", "application/grpc")
        .body(Empty::<Bytes>::new())
        .unwrap()
}

/// What an HTTP/2 application does with each request.
#[derive(Clone, Copy)]
pub(super) enum Does {
    Refuses,
    /// Nothing, ever.
    Hangs,
    /// The head of a gRPC answer, and nothing behind it while its caller stays.
    Streams,
    Answers,
    /// 503, with a retry after a second.
    AsksForTime,
}

/// An HTTP/2 application on a given listener; its number of requests.
pub(super) fn serve(listener: TcpListener, does: Does) -> Arc<AtomicUsize> {
    let request_count = Arc::new(AtomicUsize::new(0));
    let log = Arc::clone(&request_count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(requests(stream, does, Arc::clone(&log)));
        }
    });
    request_count
}

pub(super) async fn requests(stream: TcpStream, does: Does, log: Arc<AtomicUsize>) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    let mut unanswered = Vec::new();
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request.ok()?;
        log.fetch_add(1, Relaxed);
        let head = Response::builder().header("content-type", "application/grpc");
        match does {
            Does::Refuses => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Does::Hangs => unanswered.push(respond),
            Does::AsksForTime => {
                let head = Response::builder().status(503).header("retry-after", "1");
                respond.send_response(head.body(()).unwrap(), true).ok()?;
            }
            Does::Answers => {
                let head = head.header("grpc-status", "0").body(()).unwrap();
                respond.send_response(head, true).ok()?;
            }
            Does::Streams => {
                let mut stream = respond.send_response(head.body(()).unwrap(), false).ok()?;
                tokio::spawn(async move { poll_fn(|cx| stream.poll_reset(cx)).await });
            }
        }
    }
    Some(())
}

#[tokio::test]
async fn server_refusing_streams_is_busy_not_unreachable() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let apps = refusing(&client, &server).await;
    let mut sender = grpc(&client).await;
    for _ in 0..30 {
        assert_eq!(refused(&mut sender).await, Some(h2::Reason::REFUSED_STREAM));
    }
    for app in &apps {
        assert_eq!(
            app.request_count.load(Relaxed),
            30,
            "each once for each call"
        );
        assert_eq!(app.connections.load(Relaxed), 1, "which stays as good");
    }
    assert_eq!(sum(&client, EJECTIONS, &[]), 0.0, "{}", client.metrics());
}

#[tokio::test]
async fn refused_stream_stays_where_policy_forbids_retries() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let apps = refusing(&client, &server).await;
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(Retry {
            attempts: 0,
            ..Retry::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let mut sender = grpc(&client).await;
    for _ in 0..10 {
        assert_eq!(refused(&mut sender).await, Some(h2::Reason::REFUSED_STREAM));
    }
    let request_count = apps.iter().map(|app| app.request_count.load(Relaxed));
    assert_eq!(request_count.sum::<usize>(), 10);
}

/// An HTTP/2 application that takes no stream.
#[derive(Default)]
pub(super) struct Refusing {
    pub(super) request_count: Arc<AtomicUsize>,
    pub(super) connections: Arc<AtomicUsize>,
}

/// Three of them serve `api` from now on, each connection by `serves`.
pub(super) async fn three<F>(
    client: &Pod,
    server: &Pod,
    serves: impl Fn(TcpStream, Arc<AtomicUsize>) -> F + Clone + Send + 'static,
) -> Vec<Refusing>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let (mut all, mut apps) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        all.push(endpoint(server.ip, port, Some("api")));
        let app = Refusing::default();
        let (request_count, connections) =
            (Arc::clone(&app.request_count), Arc::clone(&app.connections));
        apps.push(app);
        let serves = serves.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Relaxed);
                tokio::spawn(serves(stream, Arc::clone(&request_count)));
            }
        });
    }
    client.set(vec![endpoints("api", all)]);
    apps
}

/// They refuse every stream.
async fn refusing(client: &Pod, server: &Pod) -> Vec<Refusing> {
    let serves = |stream, request_count| requests(stream, Does::Refuses, request_count);
    three(client, server, serves).await
}

/// The code by which a call was reset.
async fn refused(sender: &mut SendRequest<Empty<Bytes>>) -> Option<h2::Reason> {
    let error = sender.send_request(call()).await.err()?;
    let cause = std::error::Error::source(&error)?;
    cause.downcast_ref::<h2::Error>()?.reason()
}

#[tokio::test]
async fn started_stream_shows_endpoint_is_reachable_again() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let closed = TcpListener::bind((server.ip, 0)).await.unwrap();
    let there = closed.local_addr().unwrap();
    drop(closed);
    let good = TcpListener::bind((server.ip, 0)).await.unwrap();
    let all = [there.port(), good.local_addr().unwrap().port()];
    let all = all.map(|port| endpoint(server.ip, port, Some("api")));
    let _answers = serve(good, Does::Answers);
    client.set(vec![endpoints("api", all.to_vec())]);
    client.set(vec![policy_of(&EffectivePolicy {
        ejection: whole(Ejection {
            consecutive_failures: 1,
            base_time: Duration::from_secs(1),
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let mut sender = grpc(&client).await;
    let unreachable = ["cause=\"unreachable\""];
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while sum(&client, EJECTIONS, &unreachable) == 0.0 {
        sender.send_request(call()).await.unwrap();
        assert!(tokio::time::Instant::now() < until, "it must rest");
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(sum(&client, RESTING, &[]), 1.0, "{}", client.metrics());
    let streams = serve(TcpListener::bind(there).await.unwrap(), Does::Streams);
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while streams.load(Relaxed) == 0 {
        // Each answer is dropped here, as by a caller that leaves.
        sender.send_request(call()).await.unwrap();
        assert!(tokio::time::Instant::now() < until, "it must be probed");
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(streams.load(Relaxed), 1);
    assert_eq!(sum(&client, RESTING, &[]), 0.0, "{}", client.metrics());
}

#[tokio::test]
async fn failure_is_counted_though_caller_leaves_before_retry() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let (mut all, mut request_count) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        all.push(endpoint(server.ip, port, Some("api")));
        request_count.push(serve(listener, Does::AsksForTime));
    }
    client.set(vec![endpoints("api", all)]);
    let request_count = || {
        request_count
            .iter()
            .map(|request_count| request_count.load(Relaxed))
            .sum::<usize>()
    };
    let mut sender = grpc(&client).await;
    let get = Request::get("http://web.shop/").body(Empty::<Bytes>::new());
    let answer = tokio::spawn(sender.send_request(get.unwrap()));
    while request_count() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(200)).await;
    answer.abort();
    sleep(Duration::from_millis(300)).await;
    let (cancelled, attempts) = ("weft_requests_cancelled_total", "weft_attempts_total");
    assert_eq!(sum(&client, cancelled, &[]), 1.0, "{}", client.metrics());
    assert_eq!(request_count(), 1);
    let failed = ["success=\"false\""];
    assert_eq!(sum(&client, attempts, &failed), 1.0, "{}", client.metrics());
    assert_eq!(sum(&client, attempts, &[]), 1.0);
}
