//! A request whose answer comes before its body, and a peer that is played by hand.
//!
//! Claims: calls-7

use http::header;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::stuck_upload::MOVES_WITHIN;

const MOMENT: Duration = Duration::from_millis(10);
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

type Parts = UnboundedSender<Result<Frame<Bytes>, BoxError>>;

/// A dedicated connection, and its peer.
async fn opened() -> (Arc<Dedicated>, DuplexStream) {
    let dedicated = Arc::<Dedicated>::default();
    assert!(matches!(dedicated.offer(), Acquire::No));
    let Acquire::Open(opening) = dedicated.offer() else {
        panic!("none is to be opened");
    };
    let (near, peer) = duplex(64 * 1024);
    opening.opened(near, http1::Builder::new()).await;
    (dedicated, peer)
}

/// Sends a request of ten bytes, none of which have come, and gets this answer.
async fn ask(
    dedicated: &Arc<Dedicated>,
    peer: &mut DuplexStream,
    answer: &str,
) -> (Parts, Response<ResponseBody>) {
    let Acquire::Leased(lease) = dedicated.offer() else {
        panic!("it is not free");
    };
    let (parts, body) = unbounded_channel();
    let body = StreamBody::new(UnboundedReceiverStream::new(body)).boxed_unsync();
    let request = Request::post("/").header(header::CONTENT_LENGTH, "10");
    let sent = lease.send(request.body(body).unwrap());
    let answers = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(peer.read_u8().await.unwrap());
        }
        peer.write_all(answer.as_bytes()).await.unwrap();
    };
    let (response, ()) = tokio::join!(sent, answers);
    (parts, response.unwrap())
}

/// The same, with the answer read to its end.
async fn answered(dedicated: &Arc<Dedicated>, peer: &mut DuplexStream, answer: &str) -> Parts {
    let (parts, response) = ask(dedicated, peer, answer).await;
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "ok");
    parts
}

/// Sends a part of a body, which comes to the peer.
async fn passes(parts: &Parts, peer: &mut DuplexStream, part: &'static str) {
    let frame = Frame::data(Bytes::from_static(part.as_bytes()));
    parts.send(Ok(frame)).unwrap();
    let mut came = vec![0; part.len()];
    let read = timeout(MOMENT, peer.read_exact(&mut came));
    read.await.expect(part).unwrap();
    assert_eq!(came, part.as_bytes());
}

/// The peer reads the end of the connection, and nothing before it.
async fn ends(dedicated: &Dedicated, peer: &mut DuplexStream) {
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    sleep(MOMENT).await;
    assert_eq!(dedicated.used().0, 0);
}

#[tokio::test(start_paused = true)]
async fn body_continues_after_response_and_connection_is_reused() {
    let (dedicated, mut peer) = opened().await;
    for _ in 0..3 {
        let parts = answered(&dedicated, &mut peer, ANSWER).await;
        assert!(matches!(dedicated.offer(), Acquire::No), "it is in use");
        passes(&parts, &mut peer, "hello").await;
        sleep(MOVES_WITHIN - MOMENT).await;
        assert!(matches!(dedicated.offer(), Acquire::No), "it is in use");
        passes(&parts, &mut peer, "world").await;
        sleep(MOMENT).await;
    }
    assert_eq!(dedicated.used(), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn body_after_last_response_completes_before_connection_closes() {
    let (dedicated, mut peer) = opened().await;
    let last = ANSWER.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let parts = answered(&dedicated, &mut peer, &last).await;
    passes(&parts, &mut peer, "hello").await;
    sleep(MOMENT).await;
    assert_eq!(dedicated.used().0, 1, "as long as there is something left");
    passes(&parts, &mut peer, "world").await;
    ends(&dedicated, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn remaining_body_is_dropped_once_it_stalls() {
    let (dedicated, mut peer) = opened().await;
    let parts = answered(&dedicated, &mut peer, ANSWER).await;
    for _ in 0..3 {
        sleep(MOVES_WITHIN - MOMENT).await;
        passes(&parts, &mut peer, "z").await;
    }
    let moved = Instant::now();
    ends(&dedicated, &mut peer).await;
    assert!(moved.elapsed() < MOVES_WITHIN + 3 * MOMENT);
    assert!(moved.elapsed() >= MOVES_WITHIN);
    assert!(parts.is_closed(), "nor is the rest read");
}

#[tokio::test(start_paused = true)]
async fn body_broken_after_response_closes_connection() {
    let (dedicated, mut peer) = opened().await;
    let parts = answered(&dedicated, &mut peer, ANSWER).await;
    passes(&parts, &mut peer, "hello").await;
    let left = Instant::now();
    parts.send(Err("its sender left".into())).unwrap();
    ends(&dedicated, &mut peer).await;
    assert!(left.elapsed() < 3 * MOMENT);
}

#[tokio::test(start_paused = true)]
async fn caller_leaving_before_response_end_closes_connection() {
    let (dedicated, mut peer) = opened().await;
    let half = ANSWER.strip_suffix('k').unwrap();
    let (parts, response) = ask(&dedicated, &mut peer, half).await;
    let left = Instant::now();
    drop(response);
    ends(&dedicated, &mut peer).await;
    assert!(left.elapsed() < 3 * MOMENT);
    assert!(parts.is_closed());
}
