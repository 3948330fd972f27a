//! Applications that respond before they have the body of a request: the caller gets one complete
//! response and knows whether another request may follow, and a retried request is complete.
//!
//! Claims: calls-7

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::Retry;
use policy::traffic::endpoint::Ejection;
use policy::traffic::set::Methods;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::answers::{UNAVAILABLE, limited, policy_of, retries, whole};
use super::leftover::{answer, closes, head};
use crate::support::{Pod, endpoint, endpoints, pair, vip};

/// A response that announces the end of its connection, and two that do not.
const TOO_LARGE: &str = "HTTP/1.1 413 No\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig";
const UNKNOWN: &str = "HTTP/1.1 401 No\r\ncontent-length: 3\r\n\r\nwho";
const ACCEPTED: &str = "HTTP/1.1 202 Yes\r\ncontent-length: 3\r\n\r\nyes";
const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The bodies of both ways to send them are of these bytes.
const BYTE: u8 = b'y';

/// Reads the head of one request on each connection and leaves the rest to `then`, which
/// counts in what is given here.
async fn at_head<F>(
    ip: IpAddr,
    then: impl Fn(TcpStream, Arc<AtomicUsize>) -> F + Copy + Send + 'static,
) -> (u16, Arc<AtomicUsize>)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                then(stream, count).await
            });
        }
    });
    (port, count)
}

/// Answers each head at once, and reads nothing of its body. The number of requests.
async fn hasty(ip: IpAddr, answer: &'static str) -> (u16, Arc<AtomicUsize>) {
    at_head(ip, move |mut stream, request_count| async move {
        request_count.fetch_add(1, Relaxed);
        stream.write_all(answer.as_bytes()).await?;
        if ![UNKNOWN, ACCEPTED].contains(&answer) {
            stream.shutdown().await?;
        }
        sleep(Duration::from_secs(2)).await;
        Ok(())
    })
    .await
}

/// A caller and the two ways by which it reaches what answers early.
struct Testbed {
    client: Pod,
    server: Pod,
    port: u16,
}

impl Testbed {
    async fn to(answer: &'static str) -> Self {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let (port, _) = hasty(server.ip, answer).await;
        client.reaches(&server, port);
        Self {
            client,
            server,
            port,
        }
    }

    async fn connections(&self) -> [(&'static str, TcpStream); 2] {
        [
            ("through two proxies", self.client.call(vip()).await),
            ("from outside", self.server.plain(self.port).await),
        ]
    }
}

/// Of the announced size, or in chunks.
fn body(bytes: usize, chunked: bool) -> Vec<u8> {
    let body = vec![BYTE; bytes];
    if !chunked {
        return body;
    }
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    let mut chunks = body.chunks(7000).flat_map(chunk).collect::<Vec<u8>>();
    chunks.extend(b"0\r\n\r\n");
    chunks
}

fn head_of(bytes: usize, chunked: bool) -> String {
    if chunked {
        CHUNKED.to_owned()
    } else {
        head(bytes, "")
    }
}

#[tokio::test]
async fn response_before_incomplete_body_announces_connection_close() {
    for early_head in [TOO_LARGE, UNKNOWN, ACCEPTED] {
        let testbed = Testbed::to(early_head).await;
        for (bytes, chunked, sent) in [(500_000, false, 90_000), (9000, true, 8000), (5, false, 3)]
        {
            let complete = body(bytes, chunked);
            for (route, mut stream) in testbed.connections().await {
                let case = format!("{route}, {sent} of {bytes}: {early_head}");
                let head = head_of(bytes, chunked);
                stream.write_all(head.as_bytes()).await.unwrap();
                // The other end may stop to read.
                let (mut reads, mut writes) = stream.into_split();
                let rest = complete[..sent].to_vec();
                let written = tokio::spawn(async move {
                    let _ = writes.write_all(&rest).await;
                    writes
                });
                let answer = answer(&mut reads).await;
                let answer = answer.unwrap_or_else(|what| panic!("{case}: {what}"));
                assert_eq!(answer[9..12], early_head[9..12], "{case}: {answer}");
                assert!(closes(&answer), "{case}: {answer}");
                assert!(
                    answer.ends_with(&early_head[early_head.len() - 3..]),
                    "{case}"
                );
                drop(written);
            }
        }
    }
}

#[tokio::test]
async fn response_before_timely_body_keeps_connection() {
    for early_head in [TOO_LARGE, UNKNOWN] {
        let testbed = Testbed::to(early_head).await;
        for chunked in [false, true] {
            for (route, mut stream) in testbed.connections().await {
                stream.set_nodelay(true).unwrap();
                for round in 0..4 {
                    let case = format!("{route}, {chunked}, {round}: {early_head}");
                    let head = head_of(5, chunked);
                    stream.write_all(head.as_bytes()).await.unwrap();
                    sleep(Duration::from_millis(10)).await;
                    stream.write_all(&body(5, chunked)).await.unwrap();
                    let answer = answer(&mut stream).await;
                    let answer = answer.unwrap_or_else(|what| panic!("{case}: {what}"));
                    assert_eq!(answer[9..12], early_head[9..12], "{case}: {answer}");
                    assert!(!closes(&answer), "{case}: {answer}");
                }
            }
        }
    }
}

/// Reads all of each body and returns its size; what it has seen.
async fn counts(ip: IpAddr) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            let service = service_fn(move |request: Request<Incoming>| {
                let log = Arc::clone(&log);
                async move {
                    let received = match request.into_body().collect().await {
                        Ok(body) => {
                            let bytes = body.to_bytes();
                            let right = bytes.iter().all(|byte| *byte == BYTE);
                            format!("{} right: {right}", bytes.len())
                        }
                        Err(_) => "broken off".to_owned(),
                    };
                    log.lock().push(received.clone());
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(received))))
                }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
        }
    });
    (port, seen)
}

/// The answer to a POST of so many bytes, the second half of which may come later.
async fn post(client: &Pod, bytes: usize, chunked: bool, later: Duration) -> String {
    let (mut reads, mut writes) = client.call(vip()).await.into_split();
    let head = head_of(bytes, chunked);
    let body = body(bytes, chunked);
    let sending = async {
        let (first_half, rest) = body.split_at(body.len() / 2);
        writes.write_all(head.as_bytes()).await?;
        writes.write_all(first_half).await?;
        sleep(later).await;
        writes.write_all(rest).await
    };
    // When the response came first, the body may stay unread.
    let (answer, _) = tokio::join!(answer(&mut reads), sending);
    let answer = answer.unwrap_or_else(|what| panic!("{bytes}, {chunked}, {later:?}: {what}"));
    let mut behind = Vec::new();
    let more = timeout(Duration::from_millis(5), reads.read_to_end(&mut behind)).await;
    assert!(behind.is_empty(), "{bytes}: {answer}{behind:?} {more:?}");
    answer
}

// Claims: calls-12
#[tokio::test]
async fn request_answered_early_is_resent_complete_or_never() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (hasty, request_count) = hasty(server.ip, UNAVAILABLE).await;
    let (counts, seen) = counts(server.ip).await;
    let all = [hasty, counts].map(|port| endpoint(server.ip, port, Some("api")));
    client.set(vec![endpoints("api", all.to_vec())]);
    let mut retry = Retry {
        attempts: 1,
        methods: Methods::Any,
        ..Retry::DEFAULT
    };
    retry.budget.min_per_second = 1000;
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(retry),
        ejection: whole(Ejection {
            consecutive_failures: 0,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let (mut expected, mut passed) = (Vec::new(), 0);
    for bytes in [10, 60_000, 70_000, 300_000] {
        for chunked in [false, true] {
            for later in [Duration::ZERO, Duration::from_millis(30)] {
                for _ in 0..4 {
                    let answer = post(&client, bytes, chunked, later).await;
                    let case = format!("{bytes}, {chunked}, {later:?}: {answer}");
                    if answer.starts_with("HTTP/1.1 503") {
                        assert!(answer.ends_with("\r\n\r\nno"), "{case}");
                        passed += 1;
                        continue;
                    }
                    assert!(answer.starts_with("HTTP/1.1 200"), "{case}");
                    let body = format!("{bytes} right: true");
                    assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{case}");
                    expected.push(body);
                }
            }
        }
    }
    assert_eq!(*seen.lock(), expected, "nothing else reached it");
    // The control: all three ways were gone.
    let (request_count, again) = (request_count.load(Relaxed), retries(&client, "success"));
    assert!(
        again > 0.0 && passed > 0,
        "{request_count}: {again}, {passed}"
    );
    assert!(expected.len() as f64 > again, "some were not asked twice");
}

/// Half of a body; its receiver reads on after its response.
const HALF: usize = 300_000;
const TRAILED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                       2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n";

/// Answers each head at once, with trailers, and then reads the body; how much of it came.
async fn trailing(ip: IpAddr) -> (u16, Arc<AtomicUsize>) {
    at_head(ip, |mut stream, came| async move {
        stream.write_all(TRAILED.as_bytes()).await?;
        let mut part = vec![0; 64 * 1024];
        while let size @ 1.. = stream.read(&mut part).await? {
            came.fetch_add(size, Relaxed);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn body_continues_behind_response_with_trailers() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (port, came) = trailing(server.ip).await;
    client.reaches(&server, port);
    for route in ["through two proxies", "through one"] {
        let mut stream = match route {
            "through one" => server.plain(port).await,
            _ => client.call(vip()).await,
        };
        came.store(0, Relaxed);
        let half = vec![BYTE; HALF];
        let head = format!(
            "POST / HTTP/1.1\r\nHost: web.shop\r\nTE: trailers\r\nContent-Length: {}\r\n\r\n",
            2 * HALF
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&half).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n0\r\nx-sum: 2\r\n\r\n") {
            let read = timeout(Duration::from_secs(5), stream.read_u8()).await;
            answer.push(read.expect(route).expect(route));
        }
        stream.write_all(&half).await.unwrap();
        let until = tokio::time::Instant::now() + Duration::from_secs(5);
        while came.load(Relaxed) < 2 * HALF && tokio::time::Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(came.load(Relaxed), 2 * HALF, "{route}");
    }
}
