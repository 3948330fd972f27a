//! What open streams of bytes cost the clients that opened them.
//!
//! Claims: attack-42

use std::net::IpAddr;

use runtime::occupancy::{Bounds, Occupancy};
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::cost::{SmallChunks, StreamCost};
use super::super::recv::RecvBody;
use super::*;

const BYTE_STREAM: usize = 8 * 1024;
/// Nothing moves any more by then.
const STILL: Duration = Duration::from_millis(300);

/// A connection of a caller, and what that counts for.
fn one_caller() -> (Arc<Occupancy>, Arc<Permit>) {
    let bounds = Bounds {
        permits: 10,
        per_holder: usize::MAX,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    let occupancy = Occupancy::new(bounds, |_| {});
    let caller = IpAddr::from([10, 0, 0, 1]).into();
    let permit = occupancy.try_admit(&caller).unwrap().unwrap();
    (occupancy, permit)
}

/// A server that accepts every request for bytes both ways: what its client counts for, the
/// client, and the streams as the server has them.
async fn accepting() -> (Arc<Occupancy>, RequestSender, UnboundedReceiver<ByteStream>) {
    let (occupancy, permit) = one_caller();
    let (sender, far) = client().await;
    let (opened, streams) = unbounded_channel();
    let handler = move |request: Request<RecvBody>| {
        let opened = opened.clone();
        async move {
            let (accept, out) = Accept::new();
            let mut response = Response::new(body::empty());
            response.extensions_mut().insert(accept);
            tokio::spawn(async move {
                let stream = ByteStream::new(out.await.unwrap(), request.into_body());
                let _ = opened.send(stream);
            });
            response
        }
    };
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let _ = server::serve(far, limits(PROFILE, permit), close, handler).await;
    });
    (occupancy, sender, streams)
}

fn asks() -> Request<()> {
    Request::post("http://s/").body(()).unwrap()
}

/// Its request has been answered, and costs nothing any more.
#[tokio::test]
async fn a_silent_stream_counts_until_it_ends() {
    let (occupancy, mut sender, mut streams) = accepting().await;
    let _first = sender.open(asks(), None).await.unwrap();
    let _kept = streams.recv().await.unwrap();
    let with_one = occupancy.weight();

    let _second = sender.open(asks(), None).await.unwrap();
    let second = streams.recv().await.unwrap();
    assert_eq!(occupancy.weight() - with_one, BYTE_STREAM);
    drop(second);
    assert_eq!(occupancy.weight(), with_one);

    // A client that ends its own direction with its request has the other one.
    let _third = sender.send(post(body::empty())).await.unwrap();
    let third = streams.recv().await.unwrap();
    assert_eq!(occupancy.weight() - with_one, BYTE_STREAM);
    drop(third);
    assert_eq!(occupancy.weight(), with_one);
}

#[tokio::test]
async fn unread_bytes_of_stream_count() {
    const CHUNK: &[u8] = &[7; 60_000];
    let (occupancy, mut sender, mut streams) = accepting().await;
    let _unread = sender.open(asks(), None).await.unwrap();
    let mut stream = streams.recv().await.unwrap();
    let before = occupancy.weight();
    let sending = async { while send(&mut stream, CHUNK).await.is_ok() {} };
    assert!(timeout(STILL, sending).await.is_err(), "all of it is taken");
    // One waits in `h2` behind a window of 64 KiB, and the next one before that.
    let waits = occupancy.weight() - before;
    assert!(waits >= 2 * CHUNK.len(), "{waits}");
}

/// It waits for credit, and what its sender may send behind it is as much as a stream's window
/// where that follows from how many share the pool.
#[tokio::test]
async fn unread_response_counts_with_window_behind_it() {
    const KIB: usize = 1024;
    /// A request and its head, and what waits of the answer in small frames.
    const BESIDE: usize = 24 * KIB;
    for (others, ahead) in [(0, 64 * KIB), (1000, 16 * KIB)] {
        let (occupancy, permit) = one_caller();
        let limits = limits(PROFILE, permit);
        let others: Vec<_> = (0..others).map(|_| limits.budget.enter()).collect();
        // Small ones are not counted once they are handed over.
        let frames = (0..1000).map(|_| Ok(Frame::data(Bytes::from_static(&[7; KIB]))));
        let (endless, body) = later(frames);
        let body = parking_lot::Mutex::new(Some(body));
        let (mut sender, far) = client().await;
        tokio::spawn(async move {
            let close = pin!(pending::<()>());
            let handler = |_: Request<RecvBody>| {
                let body = body.lock().take().unwrap();
                async move { Response::new(body) }
            };
            let _ = server::serve(far, limits, close, handler).await;
        });
        tokio::time::sleep(STILL).await;
        let before = occupancy.weight();
        let _unread = sender.send(post(body::empty())).await.unwrap();
        tokio::time::sleep(STILL).await;
        let counts = occupancy.weight() - before;
        let expected = ahead..ahead + BESIDE;
        assert!(expected.contains(&counts), "{counts} with {}", others.len());
        drop(endless);
    }
}

#[test]
fn waiting_chunks_count_with_overhead_except_one_small() {
    const QUEUED: usize = 512;
    const LARGE: usize = 4 * 1024;
    let (occupancy, permit) = one_caller();
    let before = occupancy.weight();
    let weight = || occupancy.weight() - before;
    let (cost, mut small) = (StreamCost::new(permit.reserve_bytes(0)), SmallChunks::new());
    let chunks: Vec<_> = (0..100)
        .map(|_| small.queued(Bytes::from_static(b"x"), Some(&cost), None))
        .collect();
    assert_eq!(weight(), 99 * (1 + QUEUED));
    let large = small.queued(Bytes::from(vec![b'y'; LARGE]), Some(&cost), None);
    assert_eq!(weight(), 99 * (1 + QUEUED) + LARGE + QUEUED);
    drop((chunks, large));
    assert_eq!(weight(), 0);
}
