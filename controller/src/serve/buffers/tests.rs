//! Messages that come in parts, or stall.
//!
//! Claims: calls-61

use std::convert::Infallible;

use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

/// The head of a message of so many bytes.
fn head(length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = u32::try_from(length).unwrap().to_be_bytes();
    [0, a, b, c, d]
}

fn message(length: usize) -> Vec<u8> {
    [head(length).as_slice(), vec![1; length].as_slice()].concat()
}

/// The body of a call of `pod`, and where its bytes come from.
fn call(
    buffers: &Buffers,
    pod: &str,
) -> (
    mpsc::Sender<Bytes>,
    CountedRequest<impl Body<Data = Bytes, Error = Infallible> + Unpin + use<>>,
) {
    let (outbox, chunks) = mpsc::channel(4);
    let frames = ReceiverStream::new(chunks).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    (outbox, buffers.count(StreamBody::new(frames), pod.into()))
}

/// What the body gives for these bytes, or why it ends.
async fn read<B>(
    (outbox, body): &mut (mpsc::Sender<Bytes>, CountedRequest<B>),
    bytes: Vec<u8>,
) -> Result<(), Code>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin,
{
    outbox.send(bytes.into()).await.unwrap();
    next(body).await
}

async fn next<B>(body: &mut CountedRequest<B>) -> Result<(), Code>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin,
{
    let frame = body.frame().await.unwrap();
    frame
        .map(drop)
        .map_err(|error| error.downcast_ref::<Status>().unwrap().code())
}

#[test]
fn messages_end_by_header_length_in_any_chunks() {
    let all = [message(3), message(0), message(300)].concat();
    for size in [1, 2, 7, 1000] {
        let mut framing = Framing::default();
        for chunk in all.chunks(size) {
            framing.advance(chunk);
        }
        assert_eq!(framing.came, 0, "in chunks of {size}");
        let mut framing = Framing::default();
        for chunk in all[..all.len() - 1].chunks(size) {
            framing.advance(chunk);
        }
        assert_eq!(framing.came, HEAD + 299, "in chunks of {size}");
    }
}

#[tokio::test]
async fn full_buffers_close_call_of_largest_pod() {
    let room = Limits {
        total: 1_000_000,
        per_holder: 1_000_000,
    };
    let limits = Reached::default();
    let buffers = Buffers::of(room, &limits);
    let mut greedy = call(&buffers, "greedy");
    // It has ended, and its room stays with the call.
    assert_eq!(read(&mut greedy, message(900_000)).await, Ok(()));
    let mut honest = call(&buffers, "honest");
    assert_eq!(read(&mut honest, message(50_000)).await, Ok(()));
    assert_eq!(buffers.room.holders(), 1, "usual ones are not counted");
    let mut late = call(&buffers, "late");
    let unfinished = message(500_000)[..400_000].to_vec();
    assert_eq!(read(&mut late, unfinished).await, Ok(()));
    assert_eq!(next(&mut greedy.1).await, Err(Code::ResourceExhausted));
    assert_eq!(limits.count("message-buffers"), 1);
    assert!(buffers.room.peak() <= room.total);
    // The other unfinished messages go on.
    assert_eq!(read(&mut late, vec![1; 100_005]).await, Ok(()));
    assert_eq!(read(&mut honest, message(50_000)).await, Ok(()));
    drop((greedy, honest, late));
    assert_eq!(buffers.room.in_use(), 0);
}

fn is_part_timeout(passed: Duration) -> bool {
    (PART_TIMEOUT..PART_TIMEOUT + Duration::from_secs(1)).contains(&passed)
}

#[tokio::test(start_paused = true)]
async fn stalled_message_closes_call_but_slow_one_passes() {
    let buffers = Buffers::new(100, 4 * PART, &Reached::default());
    let mut still = call(&buffers, "still");
    let began = Instant::now();
    let cut = [message(10), head(1_000_000).to_vec()].concat();
    assert_eq!(read(&mut still, cut).await, Ok(()));
    assert_eq!(next(&mut still.1).await, Err(Code::DeadlineExceeded));
    assert!(is_part_timeout(began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(buffers.stood_still.get(), 1);
    // Bytes that come now and then do not make it one that goes on.
    let mut trickle = call(&buffers, "trickle");
    let began = Instant::now();
    assert_eq!(read(&mut trickle, head(1_000).to_vec()).await, Ok(()));
    let ended = loop {
        let byte = timeout(Duration::from_secs(3), next(&mut trickle.1)).await;
        match byte {
            Ok(ended) => break ended,
            Err(_) => read(&mut trickle, vec![1]).await.unwrap(),
        }
    };
    assert_eq!(ended, Err(Code::DeadlineExceeded));
    assert!(is_part_timeout(began.elapsed()), "{:?}", began.elapsed());

    let mut slow = call(&buffers, "slow");
    assert_eq!(read(&mut slow, head(4 * PART).to_vec()).await, Ok(()));
    for _ in 0..4 {
        let waits = timeout(PART_TIMEOUT * 9 / 10, next(&mut slow.1)).await;
        assert!(waits.is_err(), "{waits:?}");
        assert_eq!(read(&mut slow, vec![1; PART]).await, Ok(()));
    }
    // Between messages nothing is waited for.
    assert!(timeout(LONG, next(&mut slow.1)).await.is_err());
}
