//! Applications whose queue of connections is full for a moment. The kernel drops what asks for
//! another one, and asks again by itself, so without proxies nothing is lost but time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use crate::support::{Pod, endpoint, endpoints, get_within, pair, vip};

/// By then the kernel has asked again in vain, after a second.
const FULL_FOR: Duration = Duration::from_millis(1500);
/// After three seconds it asks once more, or each second.
const IN_TIME: Duration = Duration::from_millis(2800);
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls, of which each may meet a machine that stands still.
const TRIES: usize = 5;

/// Somebody listens, nobody accepts, and there is no room for another connection.
struct FullQueue {
    listener: TcpListener,
    queued: Vec<TcpStream>,
}

impl FullQueue {
    async fn of(pod: &Pod) -> Self {
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

    fn port(&self) -> u16 {
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

/// The status of a call that meets a full queue. `None`: it failed where this process stood
/// still until nobody could have been served in time.
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
async fn a_queue_that_is_full_for_a_moment_costs_time_and_no_call() {
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
    // Whoever comes later is told in time to go elsewhere; each may meet a machine that stands
    // still.
    let mut soonest = PATIENCE;
    for _ in 0..TRIES {
        let began = Instant::now();
        assert_eq!(ask(&client, Protocol::Http1).await, 503);
        soonest = soonest.min(began.elapsed());
    }
    assert!(soonest < FULL_FOR, "{soonest:?}");
    // Nobody is forgotten for that.
    queue.serve();
    assert_eq!(ask(&client, Protocol::Http1).await, 200);
}
