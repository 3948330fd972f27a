//! What is written in one turn leaves at once.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{CHUNK, Coalescing, FULL, FlushHandle, LARGE, UNREAD, UNSENT};

async fn pair() -> (Coalescing, FlushHandle, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let (coalescing, flush_handle) = Coalescing::new(near);
    (coalescing, flush_handle, far)
}

/// Polls `task` to its end, as the owner of a flush handle does.
async fn drive<T: Future>(flush_handle: &FlushHandle, task: T) -> T::Output {
    let mut task = pin!(task);
    flush_handle.collect();
    poll_fn(|cx| {
        let polled = task.as_mut().poll(cx);
        flush_handle.flush(cx);
        polled
    })
    .await
}

#[tokio::test]
async fn before_an_outlet_takes_over_a_flush_sends() {
    let (mut coalescing, _flush_handle, mut far) = pair().await;
    coalescing.write_all(b"hello").await.unwrap();
    coalescing.flush().await.unwrap();
    let mut got = [0; 5];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn writes_of_one_turn_leave_at_its_end() {
    use std::io::Read;
    let (mut coalescing, flush_handle, far) = pair().await;
    // Read without the runtime, which would wait for the end of the turn itself.
    let mut far = far.into_std().unwrap();
    let mut buffer = vec![0; 20_000];
    drive(&flush_handle, async {
        for _ in 0..10 {
            coalescing.write_all(&[7; 1000]).await.unwrap();
            coalescing.flush().await.unwrap();
        }
        let early = far.read(&mut buffer).map_err(|error| error.kind());
        assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "left early");
    })
    .await;
    assert_eq!(far.read(&mut buffer).unwrap(), 10_000);
}

#[tokio::test]
async fn slow_reader_gets_ordered_bytes_and_blocks_writer() {
    let (mut coalescing, flush_handle, mut far) = pair().await;
    const CHUNKS: usize = 4000;
    let written = std::cell::Cell::new(0);
    let write = async {
        for chunk in 0..CHUNKS {
            // Sizes on both sides of every bound.
            let size = [10, 5000, 40_000, 1][chunk % 4];
            coalescing
                .write_all(&vec![chunk as u8; size])
                .await
                .unwrap();
            coalescing.flush().await.unwrap();
            written.set(written.get() + size);
        }
        coalescing.shutdown().await.unwrap();
    };
    let all: usize = (0..CHUNKS)
        .map(|chunk| [10, 5000, 40_000, 1][chunk % 4])
        .sum();
    let read = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(written.get() < all / 2, "nothing held the writer up");
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        got
    };
    let (got, ()) = tokio::join!(read, async {
        drive(&flush_handle, write).await;
    });
    let mut expected = Vec::with_capacity(all);
    for chunk in 0..CHUNKS {
        let size = [10, 5000, 40_000, 1][chunk % 4];
        expected.resize(expected.len() + size, chunk as u8);
    }
    assert!(got == expected, "{} of {all} bytes", got.len());
    assert!(flush_handle.0.lock().waiting.capacity() <= FULL * 2);
}

/// It takes as much as is written, so that what waits becomes neither more nor nothing.
#[tokio::test]
async fn sent_data_is_released_while_something_always_waits() {
    const PART: usize = 5000;
    const TURNS: usize = 400;
    const KERNEL: usize = 16 * 1024;
    let (mut coalescing, flush_handle, mut far) = pair().await;
    let near = SockRef::from(coalescing.stream.as_ref());
    near.set_send_buffer_size(KERNEL).unwrap();
    SockRef::from(&far).set_recv_buffer_size(KERNEL).unwrap();
    let waits = || {
        let out = flush_handle.0.lock();
        out.waiting.len() - out.at
    };
    let (mut part, mut read, mut least) = ([0; PART], 0, usize::MAX);
    for turn in 0..TURNS {
        let written = [turn as u8; PART];
        let writing = drive(&flush_handle, coalescing.write_all(&written));
        timeout(Duration::from_secs(5), writing)
            .await
            .unwrap()
            .unwrap();
        while waits() > FULL / 2 {
            // Which is sent on as the kernel reports room.
            let reading = drive(&flush_handle, far.read_exact(&mut part));
            timeout(Duration::from_secs(5), reading)
                .await
                .unwrap()
                .unwrap();
            assert!(part.iter().all(|byte| *byte == read as u8), "{read}");
            read += 1;
            least = least.min(waits());
        }
    }
    assert!(read > TURNS / 2, "{read} were read");
    assert!(least > 0, "nothing waited for a moment");
    let capacity = flush_handle.0.lock().waiting.capacity();
    assert!(capacity <= 4 * FULL, "{capacity} bytes");
}

#[tokio::test]
async fn buffer_of_bulk_turn_is_kept_for_next() {
    // The largest frame of HTTP/2, as it leaves TLS.
    const FRAME: usize = 16 * 1024 + 22;
    let (mut coalescing, flush_handle, mut far) = pair().await;
    let write = async {
        for _ in 0..8 {
            coalescing.write_all(&[7; FRAME]).await.unwrap();
        }
        coalescing.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(far.read_to_end(&mut got), drive(&flush_handle, write));
    assert_eq!(read.unwrap(), 8 * FRAME);
    let kept = UNSENT.with_borrow(|spares| spares.iter().map(Vec::capacity).max());
    let holds_a_turn = |kept| (8 * FRAME..=FULL + LARGE).contains(&kept);
    assert!(kept.is_some_and(holds_a_turn), "{kept:?}");
}

#[tokio::test]
async fn lost_peer_is_reported_to_writer() {
    let (mut coalescing, flush_handle, far) = pair().await;
    drop(far);
    let write = async {
        loop {
            coalescing.write_all(b"anybody there?").await?;
            coalescing.flush().await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ended: std::io::Result<()> =
        tokio::time::timeout(Duration::from_secs(5), drive(&flush_handle, write))
            .await
            .unwrap();
    assert!(ended.is_err());
}

/// Two connections in turns, so that each keeps what was left while the other takes
/// a buffer of the thread.
#[tokio::test]
async fn excess_of_one_read_goes_only_to_same_reader() {
    const ALL: usize = 500_000;
    let bytes = |first: usize| (first..first + ALL).map(|at| (at % 251) as u8);
    let (mut one, _one, mut far_one) = pair().await;
    let (mut two, _two, mut far_two) = pair().await;
    let sent = [bytes(0).collect::<Vec<u8>>(), bytes(100).collect()];
    let log = sent.clone();
    tokio::spawn(async move { far_one.write_all(&log[0]).await });
    let log = sent.clone();
    tokio::spawn(async move { far_two.write_all(&log[1]).await });
    let mut got = [Vec::new(), Vec::new()];
    for turn in 0.. {
        let size = [7, 1000, 20_000, 2 * CHUNK][turn % 4];
        for (coalescing, got) in [&mut one, &mut two].into_iter().zip(&mut got) {
            let mut chunk = vec![0; size.min(ALL - got.len())];
            coalescing.read_exact(&mut chunk).await.unwrap();
            got.extend(chunk);
        }
        if got[0].len() == ALL {
            break;
        }
    }
    assert!(got == sent, "not what was sent");
    assert!(UNREAD.with_borrow(Vec::len) > 0, "no buffer came back");
    assert!(one.rest.is_none(), "a buffer stays without anything in it");
}
