//! HTTP/2 with itself, and frame by frame.
//!
//! Claims: attack-30

mod field_values;
mod floods;
mod frame_sizes;
mod goaway;
mod graceful_shutdown;
mod grpc_ends;
mod held_back;
mod resets;
mod server_floods;
mod silent;
mod stood_still;
mod undelivered;
mod weights;
mod windows;

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime::occupancy::Permit;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::io::InspectReader;
use weft_proxy_net::admission::AdmissionClass;
use weft_proxy_net::budget::Budget;

use super::client::{self, RequestSender};
use super::flow::{STREAM_WINDOW, WindowChanges};
use super::keepalive::Suspects;
use super::server::{self, Accept};
use super::{MESH, PLAIN, PLAIN_FRAME, SendError, Tuning};
use crate::body::{self, Body, BoxError};
use crate::byte_stream::ByteStream;
use crate::deadline::PreviousHop;

const PROFILE: Tuning = Tuning {
    frame: PLAIN_FRAME,
    unsent: 256 * 1024,
    learn_limit: false,
    windows: WindowChanges::Both,
    pings: true,
    spreads: false,
    resets: 512,
};

fn budget() -> Arc<Budget> {
    Budget::new(64 << 20)
}

/// A client of ours, and the other end of its connection.
async fn client() -> (RequestSender, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    let sender = client::handshake(near, PROFILE, budget(), None)
        .await
        .unwrap();
    (sender, far)
}

fn limits(profile: Tuning, permit: Arc<Permit>) -> server::Limits {
    server::Limits {
        profile,
        budget: budget(),
        class: AdmissionClass::Callers,
        from: PreviousHop::Outside,
        flush_handle: None,
        permit,
    }
}

/// A client and a server of ours.
async fn pair<F>(
    handler: impl Fn(Request<super::recv::RecvBody>) -> F + Send + Sync + 'static,
) -> RequestSender
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (sender, far) = client().await;
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let _ = server::serve(far, limits(PROFILE, Permit::unlisted()), close, handler).await;
    });
    sender
}

/// Type, flags and length of each frame of stream 1, up to its end.
async fn frames(io: &mut DuplexStream) -> Vec<(u8, u8, usize)> {
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut content = vec![0; size];
        io.read_exact(&mut content).await.unwrap();
        if head[8] != 1 {
            continue;
        }
        seen.push((head[3], head[4], size));
        let (kind, flags) = (head[3], head[4]);
        if kind == 3 || (kind <= 1 && flags & 1 == 1) {
            return seen;
        }
    }
}

fn later(
    parts: impl IntoIterator<Item = Result<Frame<Bytes>, BoxError>>,
) -> (
    tokio::sync::mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    Body,
) {
    let (sender, receiver) = unbounded_channel();
    for part in parts {
        sender.send(part).unwrap();
    }
    let body = StreamBody::new(UnboundedReceiverStream::new(receiver));
    (sender, body.boxed_unsync())
}

fn data(content: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(content.as_bytes())))
}

fn post(body: Body) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri("http://s/")
        .body(body)
        .unwrap()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const END: u8 = 1;

// Claims: R1
#[tokio::test]
async fn body_end_is_sent_with_its_last_frame() {
    let bodies = [
        body::text("hello"),
        later([data("hel"), data(""), data("lo")]).1,
        later([data(""), data("hello"), data("")]).1,
    ];
    for body in bodies {
        let (mut sender, mut io) = client().await;
        let asking = tokio::spawn(async move { sender.send(post(body)).await });
        let seen = frames(&mut io).await;
        assert!(seen.iter().skip(1).all(|frame| frame.2 > 0), "{seen:?}");
        let (kind, flags, _) = seen[seen.len() - 1];
        assert_eq!((kind, flags & END), (DATA, END), "{seen:?}");
        asking.abort();
    }
}

// Claims: R1
#[tokio::test]
async fn trailers_end_body_without_preceding_empty_frame() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let (_, body) = later([data("hello"), Ok(Frame::trailers(trailers))]);
    let (mut sender, mut io) = client().await;
    let asking = tokio::spawn(async move { sender.send(post(body)).await });
    let seen = frames(&mut io).await;
    let kinds: Vec<u8> = seen.iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [HEADERS, DATA, HEADERS], "{seen:?}");
    asking.abort();
}

#[tokio::test]
async fn body_breaking_while_waiting_for_credit_resets_stream() {
    let (mut sender, mut io) = client().await;
    // More than the window of a peer that announces none.
    let large = Bytes::from(vec![7; 100_000]);
    let (parts, body) = later([
        Ok(Frame::data(large.clone())),
        Ok(Frame::data(Bytes::from_static(b"x"))),
    ]);
    let asking = tokio::spawn(async move { sender.send(post(body)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    parts.send(Err("broken".into())).unwrap();
    let seen = timeout(Duration::from_secs(5), frames(&mut io)).await;
    let seen = seen.expect("a reset must come while there is no credit");
    assert_eq!(seen[seen.len() - 1].0, RESET, "{seen:?}");
    asking.abort();
}

// Claims: R9, attack-34
#[tokio::test(start_paused = true)]
async fn silent_peer_is_avoided_then_abandoned_within_ten_seconds() {
    let (sender, far) = client().await;
    let suspects = Suspects::default();
    sender.counts_in(&suspects);
    let mut busy = sender.clone();
    let start = Instant::now();
    let asking = tokio::spawn(async move { busy.send(post(body::empty())).await.map(|_| ()) });
    while sender.is_usable() {
        assert!(!suspects.any() && !sender.is_suspect());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let avoided = start.elapsed();
    assert!(!sender.is_closed(), "given up at {avoided:?}");
    assert!(suspects.any() && sender.is_suspect());
    assert!(avoided <= Duration::from_millis(7600), "{avoided:?}");
    let outcome = asking.await.unwrap();
    let took = start.elapsed();
    assert!(matches!(outcome, Err(SendError::Lost(_))), "{outcome:?}");
    assert!(took <= Duration::from_millis(10_100), "{took:?}");
    assert!(!suspects.any() && !sender.is_suspect());
    drop(far);
}

// Claims: R9
#[tokio::test(start_paused = true)]
async fn pinged_peer_shows_life_immediately_or_never() {
    let within = Duration::from_secs(5);
    let start = Instant::now();
    let sender = pair(|_| async { Response::new(body::empty()) }).await;
    assert!(sender.gives_sign(within).await);
    assert!(start.elapsed() < Duration::from_secs(1));
    let (silent, far) = client().await;
    assert!(!silent.gives_sign(within).await);
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn peer_slow_to_send_settings_is_still_monitored() {
    let (near, far) = duplex(1 << 20);
    let profile = Tuning {
        learn_limit: true,
        ..PROFILE
    };
    let mut sender = client::handshake(near, profile, budget(), None)
        .await
        .unwrap();
    let start = Instant::now();
    let response = timeout(Duration::from_secs(60), sender.send(post(body::empty())));
    let outcome = response.await.expect("it is not watched").map(|_| ());
    assert!(matches!(outcome, Err(SendError::Lost(_))), "{outcome:?}");
    let took = start.elapsed();
    assert!(took <= Duration::from_millis(10_100), "{took:?}");
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn server_closing_immediately_is_not_awaited() {
    let (near, mut far) = duplex(1 << 20);
    tokio::spawn(async move {
        let mut preface = [0; 24];
        far.read_exact(&mut preface).await.unwrap();
        drop(far);
    });
    let profile = Tuning {
        learn_limit: true,
        ..PROFILE
    };
    let start = Instant::now();
    let made = client::handshake(near, profile, budget(), None).await;
    assert!(made.is_err(), "a connection without a server");
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn server_after_goaway_finishes_streams_without_new_requests() {
    let (mut sender, far) = client().await;
    let (go, mut gone) = unbounded_channel();
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        connection.graceful_shutdown();
        tokio::spawn(async move {
            let () = gone.recv().await.unwrap();
            stream.send_data(Bytes::from_static(b"late"), true).unwrap();
        });
        while connection.accept().await.is_some() {}
    });
    let answer = sender.send(post(body::empty())).await.unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while sender.takes_requests() {
        assert!(Instant::now() < until, "GOAWAY is not noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!sender.is_closed());
    go.send(()).unwrap();
    let rest = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, "late");
}

#[tokio::test]
async fn request_continues_after_early_complete_response() {
    let (tx, mut rx) = unbounded_channel();
    let mut sender = pair(move |request| {
        let tx = tx.clone();
        async move {
            tokio::spawn(async move {
                let all = request.into_body().collect().await;
                let _ = tx.send(all.map(|all| all.to_bytes().len()).ok());
            });
            Response::new(body::empty())
        }
    })
    .await;
    let (parts, body) = later([data("first")]);
    let answer = sender.send(post(body)).await.unwrap();
    drop(answer);
    tokio::time::sleep(Duration::from_millis(50)).await;
    parts.send(data("second")).unwrap();
    drop(parts);
    assert_eq!(rx.recv().await.unwrap(), Some(11), "it was broken off");
}

/// An application that computes answers no ping, nor does a caller that reads only when
/// it wants something.
// Claims: attack-59
#[tokio::test(start_paused = true)]
async fn peers_without_proxy_may_be_silent_for_minutes() {
    const MINUTES: Duration = Duration::from_secs(10 * 60);
    // As an application: it has the request, and is silent.
    let (near, mut far) = duplex(1 << 20);
    let silent = Tuning {
        learn_limit: false,
        ..PLAIN
    };
    let mut sender = client::handshake(near, silent, budget(), None)
        .await
        .unwrap();
    let mut other = sender.clone();
    let asking = tokio::spawn(async move { sender.send(post(body::empty())).await });
    let mut preface = [0; 24];
    far.read_exact(&mut preface).await.unwrap();
    tokio::time::sleep(MINUTES).await;
    assert!(!asking.is_finished(), "the application was given up");
    assert!(other.is_usable() && other.takes_requests());
    // As a caller: it has sent a request, and does not read.
    let (near, far) = duplex(1 << 10);
    let permit = Permit::unlisted();
    let serving = tokio::spawn(async move {
        let handler = |_| async {
            let (_, body) = later([data("one")]);
            Response::new(body)
        };
        let close = pin!(pending::<()>());
        server::serve(far, limits(PLAIN, permit), close, handler).await
    });
    let (mut caller, connection) = h2::client::handshake(near).await.unwrap();
    let mut connection = Box::pin(connection);
    let request = Request::get("http://s/").body(()).unwrap();
    let (answer, _) = caller.send_request(request, true).unwrap();
    let response = tokio::select! {
        answer = answer => answer.unwrap(),
        _ = &mut connection => panic!("the connection ended"),
    };
    tokio::time::sleep(MINUTES).await;
    assert!(!serving.is_finished(), "the caller was given up");
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn live_peer_without_data_is_kept() {
    let mut sender = pair(|_| async {
        tokio::time::sleep(Duration::from_secs(120)).await;
        Response::new(body::text("late"))
    })
    .await;
    let answer = sender.send(post(body::empty())).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "late");
}

/// A stream in both directions, as the client has it; the server's side is `serve`d.
async fn opened<F>(
    serve: impl Fn(ByteStream) -> F + Clone + Send + Sync + 'static,
) -> (ByteStream, RequestSender)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut sender = pair(move |request| {
        let serve = serve.clone();
        async move {
            let (accept, out) = Accept::new();
            let mut response = Response::new(body::empty());
            response.extensions_mut().insert(accept);
            tokio::spawn(async move {
                serve(ByteStream::new(out.await.unwrap(), request.into_body())).await;
            });
            response
        }
    })
    .await;
    let head = Request::post("http://s/").body(()).unwrap();
    let (response, out) = sender.open(head, None).await.unwrap();
    (ByteStream::new(out, response.into_body()), sender)
}

async fn send(stream: &mut ByteStream, chunk: &'static [u8]) -> std::io::Result<()> {
    let mut chunk = Bytes::from_static(chunk);
    poll_fn(|cx| stream.poll_send(cx, &mut chunk)).await
}

#[tokio::test]
async fn pieces_arrive_in_order_and_end_is_reported() {
    let (mut stream, _sender) = opened(|mut stream: ByteStream| async move {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    for chunk in [&b"one"[..], b"two", b"three"] {
        send(&mut stream, chunk).await.unwrap();
    }
    stream.end().unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "onetwothree");
}

#[tokio::test]
async fn sender_dropped_early_aborts_body() {
    let (tx, mut rx) = unbounded_channel();
    let (mut stream, _sender) = opened(move |mut stream: ByteStream| {
        let tx = tx.clone();
        async move {
            let mut got = Vec::new();
            let outcome = stream.read_to_end(&mut got).await;
            let _ = tx.send(outcome.is_err());
        }
    })
    .await;
    send(&mut stream, b"one").await.unwrap();
    drop(stream);
    assert!(rx.recv().await.unwrap(), "an end was reported");
}

#[tokio::test]
async fn sender_stops_when_receiver_is_gone() {
    let (mut stream, _sender) = opened(|stream: ByteStream| async move { drop(stream) }).await;
    let sending = async { while send(&mut stream, &[7; 60_000]).await.is_ok() {} };
    timeout(Duration::from_secs(5), sending).await.unwrap();
}

#[tokio::test]
async fn a_sender_waits_until_its_last_piece_was_taken() {
    let (mut stream, _sender) = opened(|stream: ByteStream| async move {
        let _held = stream;
        pending::<()>().await;
    })
    .await;
    let mut sent = 0;
    let sending = async {
        while send(&mut stream, &[7; 60_000]).await.is_ok() {
            sent += 1;
        }
    };
    let stuck = timeout(Duration::from_millis(300), sending).await;
    assert!(
        stuck.is_err(),
        "a reader that does not read was sent everything"
    );
    assert!(sent <= 3, "{sent} chunks for a window of 64 KiB");
}
