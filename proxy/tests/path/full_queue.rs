//! Applications whose accept queue is full for a moment. The kernel drops the next connection
//! attempt and retries it by itself, so without proxies nothing is lost but time.
//!
//! Claims: calls-10

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Retry;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::answers::{limited, policy_of};
use super::deadlines::{by_address, timeouts};
use super::limits::guarded;
use crate::support::{Pod, endpoint, endpoints, get_within, pair, raw, vip};

/// By then the kernel has retried in vain, after a second.
const FULL_FOR: Duration = Duration::from_millis(1500);
/// After three seconds it retries once more, or each second.
const IN_TIME: Duration = Duration::from_millis(2800);
/// The next ones have 1.25 s where a queue stays full, and this machine some more.
const DECIDED_BY: Duration = Duration::from_millis(1750);
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls, of which each may meet a machine that stalls.
const TRIES: usize = 5;
/// A client that has been silent for so long may wait for its server to speak first.
const LATE: Duration = Duration::from_millis(200);

/// A listener that does not accept, without room for another connection.
pub(super) struct FullQueue {
    listener: TcpListener,
    queued: Vec<TcpStream>,
}

impl FullQueue {
    pub(super) async fn of(pod: &Pod) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(pod.ip, 0)).unwrap();
        let listener = socket.listen(1).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // A queue of one holds two.
        for _ in 0..2 {
            queued.push(TcpStream::connect(addr).await.unwrap());
        }
        let another = timeout(Duration::from_millis(200), TcpStream::connect(addr)).await;
        assert!(another.is_err(), "there is room for another one");
        Self { listener, queued }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Answers from now on, over either version of HTTP.
    fn serve(self) {
        drop(self.queued);
        let listener = self.listener;
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let service = service_fn(|_: Request<Incoming>| async {
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                    });
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    }
}

async fn ask(client: &Pod, protocol: Protocol) -> u16 {
    let stream = client.call(vip()).await;
    if protocol != Protocol::Http2 {
        return get_within(stream, "/", "", PATIENCE).await.0;
    }
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://api.shop/").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    answer.status().as_u16()
}

/// The status of a call that meets a full queue. `None`: it failed because this process stalled
/// until no call could have been served in time.
async fn status_behind(protocol: Protocol, meshed: bool) -> Option<u16> {
    let (client, server, _, _) = pair(protocol).await;
    let queue = FullQueue::of(&server).await;
    let there = endpoint(server.ip, queue.port(), meshed.then_some("api"));
    client.set(vec![endpoints("api", vec![there])]);
    let began = Instant::now();
    let served = async move {
        sleep(FULL_FOR).await;
        queue.serve();
        began.elapsed()
    };
    let (status, served) = tokio::join!(ask(&client, protocol), served);
    (status == 200 || served < IN_TIME).then_some(status)
}

#[tokio::test]
async fn briefly_full_accept_queue_loses_no_call() {
    let cases = [
        ("over HTTP/1.1", Protocol::Http1, true),
        ("over HTTP/2", Protocol::Http2, true),
        ("as bytes", Protocol::Opaque, true),
        ("over HTTP/1.1, without a proxy", Protocol::Http1, false),
        ("as bytes, without a proxy", Protocol::Opaque, false),
    ];
    let calls = cases.map(|(case, protocol, meshed)| async move {
        for _ in 0..TRIES {
            if let Some(status) = status_behind(protocol, meshed).await {
                assert_eq!(status, 200, "{case}");
                return;
            }
        }
        panic!("{case}: this process stood still each time");
    });
    join_all(calls).await;
}

#[tokio::test]
async fn a_queue_that_stays_full_ends_the_call() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let queue = FullQueue::of(&server).await;
    client.reaches(&server, queue.port());
    let (status, answer) = get_within(client.call(vip()).await, "/", "", PATIENCE).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("weft-reason: connect-failed"), "{answer}");
    // A later call is refused in time to go elsewhere; each may meet a machine that stalls.
    let mut soonest = PATIENCE;
    for _ in 0..TRIES {
        let began = Instant::now();
        assert_eq!(ask(&client, Protocol::Http1).await, 503);
        soonest = soonest.min(began.elapsed());
    }
    assert!(soonest < DECIDED_BY, "{soonest:?}");
    // The endpoint stays in use after that.
    queue.serve();
    assert_eq!(ask(&client, Protocol::Http1).await, 200);
}

/// A call with two seconds, to a pod whose queue stays full beside one that answers, and the next
/// call there: both statuses, and how long the second took.
async fn beside_one_that_answers() -> ([u16; 2], Duration) {
    let (client, server, port, _) = pair(Protocol::Http1).await;
    let queue = FullQueue::of(&server).await;
    let there = |port| endpoint(server.ip, port, Some("api"));
    let both = vec![there(queue.port()), there(port)];
    client.set(vec![endpoints("api", both)]);
    // The client chooses this one first; a policy allows it to go elsewhere.
    let full = by_address(&client, &server, queue.port());
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(Retry::DEFAULT),
        ..EffectivePolicy::default()
    })]);
    let post = || async {
        let mut stream = client.call(full).await;
        let request = b"POST / HTTP/1.1\r\nHost: api.shop\r\nConnection: close\r\n\
                        weft-timeout: 2000ms\r\nContent-Length: 2\r\n\r\n{}";
        let answer = raw(&mut stream, request, PATIENCE).await;
        let status = answer.get(9..12).and_then(|status| status.parse().ok());
        status.unwrap_or(0)
    };
    let first = post().await;
    let began = Instant::now();
    ([first, post().await], began.elapsed())
}

#[tokio::test]
async fn short_call_fails_over_from_full_queue() {
    let mut last = None;
    // Each may meet a machine that stalls.
    for _ in 0..TRIES {
        let (statuses, second_took) = beside_one_that_answers().await;
        if statuses == [200, 200] && second_took < DECIDED_BY {
            return;
        }
        last = Some((statuses, second_took));
    }
    panic!("the call did not go elsewhere in time: {last:?}");
}

/// The response to a call of two seconds to the only pod, whose queue stays full: from a caller
/// without a proxy, or to the pod's own address.
async fn sent_to_this_very_pod(outside: bool) -> (u16, String) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let queue = FullQueue::of(&server).await;
    server.set(vec![guarded(queue.port(), timeouts(Some(2000), None))]);
    let stream = if outside {
        server.plain(queue.port()).await
    } else {
        // It knows no Service of this name.
        client
            .call(by_address(&client, &server, queue.port()))
            .await
    };
    get_within(stream, "/", "", PATIENCE).await
}

#[tokio::test]
async fn no_failover_time_is_reserved_without_other_pod() {
    for outside in [true, false] {
        let (status, answer) = sent_to_this_very_pod(outside).await;
        assert_eq!(status, 504, "outside: {outside}, {answer}");
        assert!(answer.contains("weft-reason: deadline"), "{answer}");
    }
    // Control: a caller's proxy that may know of another one. Each may meet a machine that stalls.
    let mut last = String::new();
    for _ in 0..TRIES {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let queue = FullQueue::of(&server).await;
        client.reaches(&server, queue.port());
        client.set(vec![policy_of(&timeouts(Some(2000), None))]);
        let (status, answer) = get_within(client.call(vip()).await, "/", "", PATIENCE).await;
        if status == 503 && answer.contains("weft-reason: connect-failed") {
            return;
        }
        last = answer;
    }
    panic!("no time was kept: {last}");
}

/// A client of an undeclared port, which waits until the proxy opens a connection to a server whose
/// queue is full; that queue; and how long the client has waited.
async fn late_client(meshed: bool) -> (Pod, TcpStream, FullQueue, Duration) {
    let (client, server, _, _) = pair(Protocol::Detect).await;
    let queue = FullQueue::of(&server).await;
    let there = endpoint(server.ip, queue.port(), meshed.then_some("api"));
    client.set(vec![endpoints("api", vec![there])]);
    let stream = client.call(vip()).await;
    let began = Instant::now();
    sleep(LATE).await;
    (client, stream, queue, began.elapsed())
}

/// How long the proxy takes to answer a request that it refuses by itself.
async fn refused_within(meshed: bool) -> Duration {
    let (_client, mut stream, _queue, _) = late_client(meshed).await;
    let two_hosts = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n";
    let began = Instant::now();
    let answer = raw(&mut stream, two_hosts, PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    began.elapsed()
}

#[tokio::test]
async fn http_is_recognized_while_server_queue_is_full() {
    for meshed in [true, false] {
        let mut soonest = PATIENCE;
        for _ in 0..TRIES {
            soonest = soonest.min(refused_within(meshed).await);
            if soonest < FULL_FOR {
                break;
            }
        }
        assert!(soonest < FULL_FOR, "meshed: {meshed}, {soonest:?}");
    }
}

/// The response to bytes that arrive while the queue is full, once the server accepts. `None`:
/// none, because this process stalled until no call could have been served in time.
async fn answer_behind(meshed: bool) -> Option<String> {
    let (_client, mut stream, queue, waited) = late_client(meshed).await;
    let began = Instant::now();
    let served = async move {
        sleep(FULL_FOR).await;
        queue.serve();
        waited + began.elapsed()
    };
    // What a server of HTTP answers to that is its own.
    let no_http = b"\x01late\r\n\r\n";
    let (answer, served) = tokio::join!(raw(&mut stream, no_http, PATIENCE), served);
    // A way that took so long before anything came is known to be one to a full queue.
    let in_time = served < IN_TIME && waited < 4 * LATE;
    (!answer.is_empty() || in_time).then_some(answer)
}

#[tokio::test]
async fn bytes_at_full_queue_wait_for_opening_connection() {
    let calls = [true, false].map(|meshed| async move {
        for _ in 0..TRIES {
            if let Some(answer) = answer_behind(meshed).await {
                assert!(answer.starts_with("HTTP/1.1 400"), "{meshed}: {answer:?}");
                return;
            }
        }
        panic!("meshed: {meshed}: this process stood still each time");
    });
    join_all(calls).await;
}
