//! Frames as they come, however they are cut.
//!
//! Claims: attack-17, calls-60

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use runtime::occupancy::Permit;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::time::{Instant, sleep, timeout};

use super::super::graceful_shutdown::{IN_HAND, SHUTDOWN_PING};
use super::super::send_window::{Credit, CreditSignal, INCREMENT};
use super::super::until_end::UntilEnd;
use super::{
    ACK, ALLOWED, DATA, FrameFilter, HEAD, HEADERS, PING, PREFACE, SendWindow, SmallFrames,
    WINDOW_UPDATE,
};

fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = (content.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, 1]);
    bytes.extend(content);
    bytes
}

/// What is read when `sent` comes in chunks of `chunk` bytes, by reads of `room`.
async fn read(sent: &[u8], chunk: usize, room: usize) -> Vec<u8> {
    let (mut near, far) = duplex(1 << 20);
    let small = SmallFrames::default();
    let mut far = FrameFilter::of_client(far, small.clone(), Permit::unlisted());
    let sent = sent.to_vec();
    let sending = tokio::spawn(async move {
        for chunk in sent.chunks(chunk) {
            near.write_all(chunk).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
    loop {
        small.begin_turn();
        let got = far.read(&mut buffer).await.unwrap();
        if got == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..got]);
    }
    sending.await.unwrap();
    all
}

#[tokio::test]
async fn only_empty_non_final_frames_are_skipped() {
    let preface = vec![b'p'; PREFACE];
    let kept = [
        preface.clone(),
        frame(4, 0, b""),
        frame(1, 4, b"head"),
        frame(0, 0, b"abc"),
        frame(0, 0, &[7; 300]),
        frame(0, 1, b""),
        frame(1, 5, b"x"),
    ];
    let empty = frame(0, 0, b"");
    let mut sent = Vec::new();
    for (at, part) in kept.iter().enumerate() {
        sent.extend(part);
        for _ in 0..at {
            sent.extend(&empty);
        }
    }
    let kept = kept.concat();
    for chunk in [1, 2, 8, 9, 10, 33, 5000] {
        for room in [1, 5, 9, 64, 5000] {
            assert_eq!(read(&sent, chunk, room).await, kept, "{chunk} {room}");
        }
    }
}

/// So many bytes, by reads of `room`.
async fn next(far: &mut (impl AsyncReadExt + Unpin), count: usize, room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let mut buffer = vec![0; room.min(count - all.len())];
        let got = far.read(&mut buffer).await.unwrap();
        assert!(got > 0, "ended after {} of {count}", all.len());
        all.extend_from_slice(&buffer[..got]);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn client_goodbye_ack_is_delayed_and_placed_between_frames() {
    const EARLY: Duration = Duration::from_millis(1);
    let preface = [b'p'; PREFACE];
    let mut ack = frame(PING, ACK, &SHUTDOWN_PING);
    // Of no stream.
    ack[HEAD - 1] = 0;
    let others = [
        frame(PING, ACK, b"pingpong"),
        frame(PING, 0, &SHUTDOWN_PING),
    ]
    .concat();
    let data = frame(DATA, 0, &[7; 30]);
    for chunk in [1, 5, 9, 13, 17, 5000] {
        for room in [1, 9, 5000] {
            // Up to the middle of a frame, and to its end.
            for cut in [20, data.len()] {
                let at = format!("{chunk} {room} {cut}");
                let (start, rest) = data.split_at(cut);
                let sent = [&preface[..], &others, &ack, &others, start].concat();
                let kept = [&preface[..], &others, &others, start].concat();
                let (mut near, far) = duplex(1 << 20);
                let mut far =
                    FrameFilter::of_client(far, SmallFrames::default(), Permit::unlisted());
                let then = Instant::now();
                let sending = tokio::spawn(async move {
                    for chunk in sent.chunks(chunk) {
                        near.write_all(chunk).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    near
                });
                assert_eq!(next(&mut far, kept.len(), room).await, kept, "{at}");
                let mut near = sending.await.unwrap();
                let none = if rest.is_empty() {
                    IN_HAND - EARLY
                } else {
                    2 * IN_HAND
                };
                let early = timeout(none, far.read(&mut [0; 1])).await;
                assert!(early.is_err(), "{at}: {early:?}");
                near.write_all(rest).await.unwrap();
                let kept = [rest, &ack].concat();
                assert_eq!(next(&mut far, kept.len(), room).await, kept, "{at}");
                assert!(then.elapsed() >= IN_HAND, "{at}");
            }
        }
    }
}

#[tokio::test]
async fn trailers_exceeding_head_field_limit_close_connection() {
    let head = frame(1, 4, &[0x82; 150]);
    let trailers = |fields: usize, cut: usize| {
        // Padded, with a priority, and in two frames.
        let block = vec![0x82; fields];
        let before = [&[0, 0, 0, 0, 0, 0][..], &block[..cut]].concat();
        [frame(1, 0x28, &before), frame(9, 4, &block[cut..])].concat()
    };
    let preface = [b'p'; PREFACE];
    for (fields, passes) in [(100, true), (101, false)] {
        for chunk in [1, 9, 60, 5000] {
            let sent = [&preface[..], &head, &trailers(fields, 60)].concat();
            let (mut near, far) = duplex(1 << 20);
            let mut far = FrameFilter::of_client(far, SmallFrames::default(), Permit::unlisted());
            let mut all = Vec::new();
            let mut read = Ok(0);
            for chunk in sent.chunks(chunk) {
                near.write_all(chunk).await.unwrap();
                let mut buffer = vec![0; 5000];
                let before = all.len();
                while read.is_ok() && all.len() - before < chunk.len() {
                    let reading = far.read(&mut buffer);
                    // A head that has not come whole is kept.
                    let patience = std::time::Duration::from_millis(5);
                    let Ok(got) = tokio::time::timeout(patience, reading).await else {
                        break;
                    };
                    all.extend_from_slice(&buffer[..*got.as_ref().unwrap_or(&0)]);
                    read = got;
                }
            }
            assert_eq!(read.is_ok(), passes, "{fields} {chunk}");
            assert!(!passes || all == sent, "{fields} {chunk}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_empty_frames_is_passed_on() {
    let mut sent = vec![b'p'; PREFACE];
    let flood = frame(0, 0, b"").repeat(3 * ALLOWED as usize);
    sent.extend(&flood);
    let got = read(&sent, 5000, 5000).await;
    assert_eq!(got.len(), PREFACE + flood.len() / 3 * 2);
}

#[tokio::test]
async fn connection_closed_within_head_is_closed_for_reader() {
    let mut sent = vec![b'p'; PREFACE];
    sent.extend([0, 0, 9, 0]);
    assert_eq!(read(&sent, 3, 64).await, sent);
}

/// `h2` keeps up to 64 KiB of a head that goes on, and its connection has no stream yet.
#[tokio::test(start_paused = true)]
async fn head_starts_with_first_frame_and_completes_with_last() {
    const WITHIN: Duration = Duration::from_secs(10);
    let (mut near, far) = duplex(1 << 20);
    let permit = Permit::unlisted();
    let mut far = FrameFilter::of_client(far, SmallFrames::default(), Arc::clone(&permit));
    permit.idle();
    tokio::spawn(async move {
        let mut buffer = [0; 7];
        while far.read(&mut buffer).await.is_ok_and(|got| got > 0) {}
    });
    near.write_all(&[b'p'; PREFACE]).await.unwrap();
    near.write_all(&frame(4, 0, b"")).await.unwrap();
    sleep(WITHIN * 2).await;
    assert!(!permit.head_is_overdue(WITHIN), "nothing was started");
    near.write_all(&frame(1, 0, b"half a head")).await.unwrap();
    sleep(WITHIN * 9 / 10).await;
    assert!(!permit.head_is_overdue(WITHIN));
    let last = frame(9, 4, b"the other half");
    let (but_one, end) = last.split_at(last.len() - 1);
    near.write_all(but_one).await.unwrap();
    sleep(WITHIN / 5).await;
    assert!(permit.head_is_overdue(WITHIN), "though more of it came");
    near.write_all(end).await.unwrap();
    sleep(WITHIN / 5).await;
    assert!(!permit.head_is_overdue(WITHIN));
    // A head in one frame, and one that is empty.
    for whole in [frame(1, 4, b"head"), frame(1, 4, b"")] {
        near.write_all(&whole).await.unwrap();
        sleep(WITHIN * 2).await;
        assert!(!permit.head_is_overdue(WITHIN));
    }
}

/// A server announces that it takes so many bytes more of `stream`.
fn update(stream: u8, increment: u32) -> Vec<u8> {
    let mut bytes = frame(WINDOW_UPDATE, 0, &increment.to_be_bytes());
    bytes[HEAD - 1] = stream;
    bytes
}

#[tokio::test(start_paused = true)]
async fn server_window_increase_counts_regardless_of_splits() {
    let sent = [update(1, 1 << 20), frame(4, ACK, b""), update(0, 16_380)].concat();
    for chunk in [1, 8, 9, 10, 12, 13, 5000] {
        for room in [1, 5, 9, 64, 5000] {
            let at = format!("{chunk} {room}");
            let (mut near, far) = duplex(1 << 20);
            let signal = Arc::<CreditSignal>::default();
            let window = SendWindow::new(Arc::clone(&signal));
            let mut far = FrameFilter::of_server(far, SmallFrames::default(), window);
            far.write_all(&[b'p'; PREFACE]).await.unwrap();
            for _ in 0..4 {
                // Three bytes are left of the window behind these.
                far.write_all(&frame(DATA, 0, &[7; 16_383])).await.unwrap();
            }
            assert_eq!(signal.credit(), Credit::Low, "{at}");
            let bytes = sent.clone();
            let sending = tokio::spawn(async move {
                for chunk in bytes.chunks(chunk) {
                    near.write_all(chunk).await.unwrap();
                    tokio::task::yield_now().await;
                }
                near
            });
            assert_eq!(next(&mut far, sent.len(), room).await, sent, "{at}");
            assert_eq!(
                signal.credit(),
                Credit::Low,
                "{at}, a byte less than a frame"
            );
            let mut near = sending.await.unwrap();
            near.write_all(&update(0, 1)).await.unwrap();
            next(&mut far, HEAD + INCREMENT, room).await;
            assert_eq!(signal.credit(), Credit::Enough, "{at}");
        }
    }
}

/// TLS may have put out a record of it before it failed.
#[tokio::test]
async fn head_in_failed_write_counts_unless_server_closed() {
    for is_end_read in [false, true] {
        let (near, io) = duplex(1000);
        drop(near);
        let signal = Arc::<CreditSignal>::default();
        let window = SendWindow::new(Arc::clone(&signal));
        let mut io = FrameFilter::of_server(UntilEnd::new(io), SmallFrames::default(), window);
        if is_end_read {
            assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
        }
        let sent = [vec![b'p'; PREFACE], frame(HEADERS, 4, b"head")].concat();
        assert!(io.write_all(&sent).await.is_err());
        assert_eq!(signal.has_started(1), !is_end_read);
    }
}

/// What a server is sent is not bounded in that way: it has windows.
#[tokio::test]
async fn client_reading_no_responses_stops_being_written_to() {
    const MOST: usize = 4 * 1024 * 1024;
    let (_unread, io) = duplex(1000);
    let mut of_client = FrameFilter::of_client(io, SmallFrames::default(), Permit::unlisted());
    let (_unread, io) = duplex(1000);
    let window = SendWindow::new(Arc::<CreditSignal>::default());
    let mut of_server = FrameFilter::of_server(io, SmallFrames::default(), window);
    let waits = vec![0; MOST];
    let mut refused_at = None;
    for offered in (1000..MOST).step_by(50_000) {
        let offered = &waits[..offered];
        let written = poll_fn(|cx| Poll::Ready(Pin::new(&mut of_client).poll_write(cx, offered)));
        if let Poll::Ready(Err(error)) = written.await {
            refused_at = Some((offered.len(), error.to_string()));
            break;
        }
        let written = poll_fn(|cx| Poll::Ready(Pin::new(&mut of_server).poll_write(cx, offered)));
        assert!(!matches!(written.await, Poll::Ready(Err(_))));
    }
    let (at, error) = refused_at.expect("it goes on for ever");
    assert!((1_000_000..1_200_000).contains(&at), "{at}: {error}");
}

/// Reads to the end. Gives the bytes of all turns, and of the largest one.
async fn turns(far: &mut FrameFilter<DuplexStream>, frames: &SmallFrames) -> (usize, usize) {
    let (mut all, mut most, mut ended) = (0, 0, false);
    while !ended {
        let turn = poll_fn(|cx| {
            frames.begin_turn();
            let mut turn = 0;
            let mut room = [0; 8 * 1024];
            loop {
                let mut out = ReadBuf::new(&mut room);
                match Pin::new(&mut *far).poll_read(cx, &mut out) {
                    Poll::Ready(read) => read.unwrap(),
                    Poll::Pending => return Poll::Ready(turn),
                }
                turn += out.filled().len();
                if out.filled().is_empty() {
                    ended = true;
                    return Poll::Ready(turn);
                }
            }
        });
        let turn = turn.await;
        (all, most) = (all + turn, most.max(turn));
        tokio::task::yield_now().await;
    }
    (all, most)
}

/// Whatever they are: of bodies that come in large frames as much is read as ever.
#[tokio::test]
async fn one_turn_reads_few_control_frames_but_all_body() {
    // Fewer than are a flood.
    const ALL: usize = 150_000;
    let window_update = frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
    let of = |content: &[u8]| frame(DATA, 0, content);
    let kinds = [
        (frame(PING, 0, &[7; 8]), true),
        (frame(4, 0, b""), true),
        (frame(2, 0, &[0; 5]), true),
        (frame(77, 0, b""), true),
        (window_update, true),
        (of(&[1; 4096]), false),
    ];
    for (one, small) in kinds {
        let (mut near, far) = duplex(2 * ALL);
        let sent = one.repeat(ALL / one.len());
        near.write_all(&[&[b'p'; PREFACE][..], &sent].concat())
            .await
            .unwrap();
        drop(near);
        let frames = SmallFrames::default();
        let mut far = FrameFilter::of_client(far, frames.clone(), Permit::unlisted());
        let (all, most) = turns(&mut far, &frames).await;
        assert_eq!(all, PREFACE + sent.len(), "{one:?}");
        let few = most <= 12 * 1024;
        assert_eq!(few, small, "{most} bytes of {:?} in one turn", &one[..HEAD]);
    }
}

/// A server may send heads before its answer (1xx) without end, and `h2` keeps each until the
/// connection's task has had its turn.
#[tokio::test]
async fn one_turn_reads_few_server_heads_but_all_body() {
    // Fewer than are a flood.
    const ALL: usize = 150_000;
    for (one, few) in [
        (frame(HEADERS, 4, &[0x88]), true),
        (frame(DATA, 0, &[1; 4096]), false),
    ] {
        let (mut near, far) = duplex(2 * ALL);
        let sent = one.repeat(ALL / one.len());
        near.write_all(&sent).await.unwrap();
        drop(near);
        let frames = SmallFrames::default();
        let window = SendWindow::new(Arc::<CreditSignal>::default());
        let mut far = FrameFilter::of_server(far, frames.clone(), window);
        let (all, most) = turns(&mut far, &frames).await;
        assert_eq!(all, sent.len());
        let kind = one[3];
        assert_eq!(most <= 12 * 1024, few, "{most} bytes of {kind} in one turn");
    }
}
