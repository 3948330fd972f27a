//! HTTP/2 servers that end their connections with GOAWAY: the proxy resends what they did not
//! take, with a bound.
//!
//! Claims: attack-25, calls-14

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::v1::Protocol;

use super::shown::{call, grpc, three};
use crate::support::{listening, pair};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
/// END_HEADERS alone.
const GOES_ON: u8 = 4;
/// `:method: GET` and `:status: 200`, as every head of a request and an answer begins here.
const GET: u8 = 0x82;
const OK: u8 = 0x88;
/// `content-length: 10485760`, as a literal that is not indexed.
const LARGE: &[u8] = b"\x0f\x0d\x0810485760";
/// A server that refused a connection gets no other one before that.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// A connection of HTTP/2 to a server, frame by frame.
struct Server(TcpStream);

impl Server {
    async fn accept(mut stream: TcpStream) -> io::Result<Self> {
        stream.read_exact(&mut [0; 24]).await?;
        let mut server = Self(stream);
        server.write([SETTINGS, 0], 0, &[]).await?;
        Ok(server)
    }

    /// A frame of this kind and with these flags.
    async fn write(&mut self, [kind, flags]: [u8; 2], id: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await
    }

    /// The next stream that is opened, and whether by a GET.
    async fn opened(&mut self) -> io::Result<(u32, bool)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await?;
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                // A connecting client waits for this.
                PING if head[4] == 0 => self.write([PING, ACK], 0, &payload).await?,
                HEADERS => return Ok((id, payload.first() == Some(&GET))),
                _ => {}
            }
        }
    }

    async fn answer(&mut self, id: u32) -> io::Result<()> {
        self.write([HEADERS, WHOLE], id, &[OK]).await
    }

    /// Takes no stream behind this one, and is gone a moment later.
    async fn leave(mut self, last: u32) -> io::Result<()> {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend([0; 4]);
        self.write([GOAWAY, 0], 0, &payload).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(())
    }
}

fn request(method: &str) -> Request<Empty<Bytes>> {
    let request = Request::builder().method(method).uri("http://web.shop/");
    request.body(Empty::new()).unwrap()
}

async fn status(sender: &mut SendRequest<Empty<Bytes>>, method: &str) -> u16 {
    let answer = sender.send_request(request(method)).await;
    answer.map_or(0, |answer| answer.status().as_u16())
}

/// Takes no stream of the connection.
async fn leaves(stream: TcpStream, request_count: Arc<AtomicUsize>) -> io::Result<()> {
    let mut server = Server::accept(stream).await?;
    server.opened().await?;
    request_count.fetch_add(1, Relaxed);
    server.leave(0).await
}

#[tokio::test]
async fn servers_refusing_stream_by_goaway_get_three_tries() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let apps = three(&client, &server, leaves).await;
    let mut sender = grpc(&client).await;
    for _ in 0..10 {
        let answer = sender.send_request(call()).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14");
    }
    let request_count = apps.iter().map(|app| app.request_count.load(Relaxed));
    assert_eq!(request_count.sum::<usize>(), 30);
}

/// As where a new process has taken over the port, and the old one still gets a connection.
#[tokio::test]
async fn server_leaving_after_response_gets_one_more_try() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let listener = listening(&client, &server).await;
    let request_count = Arc::new(AtomicUsize::new(0));
    let log = Arc::clone(&request_count);
    tokio::spawn(async move {
        // Every second connection takes nothing.
        for nth in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut server = Server::accept(stream).await?;
                let (id, _) = server.opened().await?;
                log.fetch_add(1, Relaxed);
                if nth % 2 == 1 {
                    return server.leave(0).await;
                }
                server.answer(id).await?;
                server.leave(id).await
            });
        }
    });
    let mut sender = grpc(&client).await;
    for round in 0..5 {
        assert_eq!(status(&mut sender, "POST").await, 200, "round {round}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first of them met a server that took it.
    assert_eq!(request_count.load(Relaxed), 1 + 4 * 2);
}

/// Each GET has the server end its connection, as one of its callers may bring it to.
#[tokio::test]
async fn calls_beside_those_causing_goaway_are_answered() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let listener = listening(&client, &server).await;
    let left = Arc::new(AtomicUsize::new(0));
    let log = Arc::clone(&left);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut server = Server::accept(stream).await?;
                loop {
                    let (id, leaves) = server.opened().await?;
                    if leaves {
                        log.fetch_add(1, Relaxed);
                        return server.leave(id).await;
                    }
                    server.answer(id).await?;
                }
            });
        }
    });
    let sender = grpc(&client).await;
    for round in 0..5 {
        let calls = ["GET", "POST"].into_iter().flat_map(|method| [method; 8]);
        let calls: Vec<_> = calls
            .map(|method| {
                let mut sender = sender.clone();
                tokio::spawn(async move { (method, status(&mut sender, method).await) })
            })
            .collect();
        for call in calls {
            let (method, status) = call.await.unwrap();
            let expected = if method == "GET" { 502 } else { 200 };
            assert_eq!(status, expected, "round {round}: {method}");
        }
    }
    assert!(left.load(Relaxed) >= 5 * 8, "{left:?}");
}

/// Begins a large answer on its first connection, and takes whatever else comes by that. On any
/// other one it speaks HTTP/2 and takes nothing.
async fn serves_one(stream: TcpStream, nth: usize, says_so: bool) -> io::Result<()> {
    let mut server = Server::accept(stream).await?;
    let (id, _) = server.opened().await?;
    if nth > 0 {
        return if says_so {
            server.leave(0).await
        } else {
            Ok(())
        };
    }
    let mut head = vec![OK];
    head.extend(LARGE);
    server.write([HEADERS, GOES_ON], id, &head).await?;
    loop {
        let (id, _) = server.opened().await?;
        server.answer(id).await?;
    }
}

#[tokio::test]
async fn single_connection_server_gets_calls_beside_large_response() {
    for says_so in [true, false] {
        let (client, server, _, _) = pair(Protocol::Http2).await;
        let listener = listening(&client, &server).await;
        let opened = Arc::new(AtomicUsize::new(0));
        let log = Arc::clone(&opened);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let nth = log.fetch_add(1, Relaxed);
                tokio::spawn(serves_one(stream, nth, says_so));
            }
        });
        let mut sender = grpc(&client).await;
        let large = sender.send_request(request("GET")).await.unwrap();
        assert_eq!(large.status(), 200);
        let began = Instant::now();
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(status(&mut sender, "POST").await);
        }
        // A silent server may have processed the request.
        let first = if says_so { 200 } else { 502 };
        let stood_still = began.elapsed() >= REFUSED_FOR;
        assert!(
            stood_still || statuses == [first, 200, 200, 200],
            "{says_so}: {statuses:?}"
        );
        assert!(stood_still || opened.load(Relaxed) == 2, "{opened:?}");
        drop(large);
    }
}
