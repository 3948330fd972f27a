//! What is kept of a body, for which request, and how long.
//!
//! Claims: calls-53

use http_body::Body as _;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Extensions;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime::occupancy::{Bounds, Occupancy};

use super::{Body, KeptBody, REPLAY_LIMIT, Replay};
use crate::body::text;

/// As a request of HTTP/2 without a body: its head ends the stream and announces no
/// length.
struct Ended(bool);

impl http_body::Body for Ended {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.0
    }
}

async fn read(body: Body) -> Vec<u8> {
    body.collect().await.unwrap().to_bytes().to_vec()
}

#[tokio::test]
async fn a_small_body_can_be_read_twice() {
    let replay = Replay::new(text("hello"));
    assert_eq!(read(replay.take().unwrap()).await, b"hello");
    assert_eq!(read(replay.take().unwrap()).await, b"hello");
}

#[tokio::test]
async fn partly_read_body_replays_from_its_start() {
    let replay = Replay::new(text("hello"));
    let mut first = replay.take().unwrap();
    first.frame().await.unwrap().unwrap();
    drop(first);
    assert_eq!(read(replay.take().unwrap()).await, b"hello");
}

/// As where the answer to it said that no application took the request.
#[tokio::test]
async fn replay_copy_aborts_when_next_is_taken_without_loss() {
    let frames = ["hel", "lo"].map(|part| Ok(Frame::data(Bytes::from(part))));
    let source = StreamBody::new(futures::stream::iter(frames));
    let replay = Replay::new(source.boxed_unsync());
    let mut first = replay.take().unwrap();
    first.frame().await.unwrap().unwrap();
    let second = replay.take().unwrap();
    assert!(first.frame().await.unwrap().is_err());
    assert_eq!(read(second).await, b"hello");
    assert!(!first.is_end_stream(), "it is not whole");
}

/// As where an application answers before it has the body.
#[tokio::test]
async fn what_is_forgotten_still_reaches_the_copy_in_use() {
    let frames = ["hel", "lo"].map(|part| Ok(Frame::data(Bytes::from(part))));
    let source = StreamBody::new(futures::stream::iter(frames));
    let replay = Replay::new(source.boxed_unsync());
    let mut first = replay.take().unwrap();
    first.frame().await.unwrap().unwrap();
    let second = replay.take().unwrap();
    replay.forget();
    assert_eq!(read(second).await, b"hello");
    assert!(replay.take().is_none() && !replay.is_kept());
}

#[tokio::test]
async fn a_body_above_the_limit_is_sent_once() {
    let replay = Replay::new(text(vec![0_u8; REPLAY_LIMIT + 1]));
    assert_eq!(read(replay.take().unwrap()).await.len(), REPLAY_LIMIT + 1);
    assert!(replay.take().is_none());
    assert!(!replay.is_kept());
}

#[tokio::test]
async fn a_body_that_broke_off_is_not_sent_again() {
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"hel"))),
        Err("reset".into()),
    ];
    let source = StreamBody::new(futures::stream::iter(frames));
    let replay = Replay::new(source.boxed_unsync());
    assert!(replay.take().unwrap().collect().await.is_err());
    assert!(replay.take().is_none() && !replay.is_kept());
}

#[test]
fn size_of_already_finished_body_is_known() {
    let body = |ended| Ended(ended).map_err(|never| match never {}).boxed_unsync();
    assert_eq!(Replay::new(body(false)).size(), None);
    assert_eq!(Replay::new(body(true)).size(), Some(0));
}

#[tokio::test]
async fn small_pieces_keep_only_their_bytes_counted_for_sender() {
    let bounds = Bounds {
        permits: 1,
        per_holder: 1,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    let occupancy = Occupancy::new(bounds, |_| {});
    let from = IpAddr::from([10, 0, 0, 1]).into();
    let permit = occupancy.try_admit(&from).unwrap().unwrap();
    let before = occupancy.weight();
    let kept = || occupancy.weight() - before;
    // As a reader hands them out: a byte each, of a large buffer each.
    let chunk = |at: usize| Bytes::from(vec![b'x'; 8192]).slice(at..=at);
    let weak: Vec<_> = (0..1000).map(chunk).collect();
    let unique = |chunks: &[Bytes]| chunks.iter().filter(|chunk| chunk.is_unique()).count();
    let frames = weak
        .clone()
        .into_iter()
        .map(|one| Ok::<_, Infallible>(Frame::data(one)));
    let source = StreamBody::new(futures::stream::iter(frames));
    let mut extensions = Extensions::new();
    extensions.insert(KeptBody::new(permit.reserve_bytes(0)));
    let source = source.map_err(|never| match never {}).boxed_unsync();
    let replay = Replay::new(source).counted(&mut extensions);
    assert_eq!(read(replay.take().unwrap()).await, [b'x'; 1000]);
    assert_eq!(unique(&weak), 1000, "no buffer is kept");
    assert!((1000..=2048).contains(&kept()), "{}", kept());
    assert_eq!(read(replay.take().unwrap()).await, [b'x'; 1000]);
    replay.forget();
    assert!(replay.take().is_none());
    assert_eq!(kept(), 0);
}

#[tokio::test]
async fn replay_waits_for_sender_while_reader_wants_more() {
    let (sender, source) = tokio::sync::mpsc::unbounded_channel();
    let parts = tokio_stream::wrappers::UnboundedReceiverStream::new(source);
    let source = http_body_util::StreamBody::new(parts).boxed_unsync();
    let say = |text: &'static str| {
        let frame = Frame::data(Bytes::from_static(text.as_bytes()));
        sender.send(Ok::<_, crate::body::BoxError>(frame)).unwrap();
    };
    let replay = Replay::new(source);
    let mut body = replay.take().unwrap();
    let waits = || replay.waits_for_sender();
    assert!(!waits(), "it is not read");
    let mut read = || futures::FutureExt::now_or_never(body.frame());
    assert!(read().is_none());
    assert!(waits());
    say("hel");
    assert!(read().is_some());
    assert!(!waits(), "no reader would go on");
    assert!(read().is_none());
    assert!(waits());
    say("lo");
    drop(sender);
    assert!(read().is_some() && read().unwrap().is_none());
    assert!(!waits(), "all of it came");
    assert!(!Replay::new(crate::body::empty()).waits_for_sender());
}

#[tokio::test]
async fn complete_body_is_available_only_once_it_has_arrived() {
    let replay = Replay::new(text("hello"));
    assert_eq!(replay.whole(), None);
    read(replay.take().unwrap()).await;
    assert_eq!(replay.whole(), Some(Bytes::from_static(b"hello")));
    // What has no body is whole.
    let empty = Replay::new(crate::body::empty());
    assert_eq!(empty.whole(), Some(Bytes::new()));
    // Too much, and of no request any more.
    let large = Replay::new(text(vec![0_u8; REPLAY_LIMIT + 1]));
    read(large.take().unwrap()).await;
    assert_eq!(large.whole(), None);
    replay.forget();
    assert_eq!(replay.whole(), None);
    // What broke off is a part, however much came before.
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"hel"))),
        Err("reset".into()),
    ];
    let source = StreamBody::new(futures::stream::iter(frames));
    let broken = Replay::new(source.boxed_unsync());
    assert!(broken.take().unwrap().collect().await.is_err());
    assert_eq!(broken.whole(), None);
}

#[tokio::test]
async fn body_is_kept_once_read_completely() {
    let replay = Replay::new(text("hello"));
    assert!(!replay.is_kept());
    read(replay.take().unwrap()).await;
    assert!(replay.is_kept());
    assert!(Replay::new(crate::body::empty()).is_kept());
}
