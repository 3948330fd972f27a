//! Byte streams that a relay reads and writes in chunks, which it passes on without a copy.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that the kernel sends as one packet, if it has them, at the least: it splits
/// at 64 KiB less headers and at whole segments, so this is for MTUs near 9000.
/// Smaller ones leave more, and so does loopback.
const PACKET: usize = 7 * 8896;
/// Bytes of a stream in one frame. Each write is sent as soon as it can be, so what a write has
/// above whole packets becomes a packet of its own, and a packet costs nearly as much with one
/// byte as with 64 KiB. Two packets hold this: one would cost more, with three and four senders
/// and receivers wait for each other longer.
pub const LARGEST_CHUNK: usize = 121 * 1024;
/// Bytes of a stream that is not fast yet: one packet.
pub const SMALL_CHUNK: usize = 60 * 1024;
const _: () = {
    assert!(with_heads(LARGEST_CHUNK) <= 2 * PACKET, "needs a third");
    assert!(with_heads(SMALL_CHUNK) <= PACKET, "needs a second");
};

/// Bytes of a chunk with the heads of its frame and of its TLS records.
const fn with_heads(chunk: usize) -> usize {
    let frame = chunk + 9;
    frame + 22 * frame.div_ceil(16 * 1024)
}

/// Bytes that TLS takes at once: two largest frames with their heads.
pub const TLS_BUFFER: usize = 2 * (LARGEST_CHUNK + 9);

/// What one read may bring at first.
const LEAST: usize = SMALL_CHUNK;
/// What one read of a fast stream may bring: fewer and larger writes wake the peer
/// less often.
const MOST: usize = LARGEST_CHUNK;

thread_local! {
    /// Where reads go. It belongs to the thread, not to the connection, so it may be
    /// large: idle connections hold none of it.
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Bytes that one direction of a relay reads at once: more while it gets all that it reads.
#[derive(Debug)]
pub struct ReadSize(usize);

impl Default for ReadSize {
    fn default() -> Self {
        Self(LEAST)
    }
}

impl ReadSize {
    /// Reads no more than `most` at once.
    pub fn limit(&mut self, most: usize) {
        if self.0 > most {
            self.0 = most;
        } else if self.0 < LEAST {
            self.0 = most.min(LEAST);
        }
    }

    fn note(&mut self, got: usize) {
        if got >= self.0 {
            self.0 = (self.0 * 2).min(MOST);
        } else if got < self.0 / 4 {
            self.0 = (self.0 / 2).max(LEAST);
        }
    }
}

/// One side of a relay.
pub trait ChunkIo {
    /// The next bytes; empty at the end. `room` belongs to the direction that reads.
    ///
    /// # Errors
    /// Whatever ended the stream early.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>>;

    /// Sends what it can of `chunk`, and takes that away from it. Ready once it is
    /// empty.
    ///
    /// # Errors
    /// When the receiver takes no more.
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>>;

    /// Sends the end: nothing more follows.
    ///
    /// # Errors
    /// When that cannot be sent.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether the other end has broken it off, though bytes may be left to be read.
    ///
    /// # Errors
    /// When it has.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// Makes its close look like what it is: not the end of what was sent.
    fn abort(&mut self);
}

/// Streams of plain bytes.
pub trait Plain: AsyncRead + AsyncWrite + Unpin {
    /// As [`ChunkIo::poll_broken`].
    ///
    /// # Errors
    /// As there.
    fn broken(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// As [`ChunkIo::abort`].
    fn abort(&mut self);
}

impl Plain for TcpStream {
    fn broken(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        crate::connect::broken(self)
    }

    fn abort(&mut self) {
        crate::connect::reset(self);
    }
}

/// A pipe in memory, by which tests stand in for a socket: there is nothing below it to reset.
impl Plain for tokio::io::DuplexStream {
    fn broken(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) {}
}

impl<S: Plain> ChunkIo for S {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.capacity() != room.0 {
                *buffer = BytesMut::with_capacity(room.0);
            }
            let got = ready!(pin!(self.read_buf(buffer)).poll(cx))?;
            // A chunk without a taker must not keep much more than itself.
            let chunk = if got < room.0 / 2 {
                let chunk = Bytes::copy_from_slice(buffer);
                buffer.clear();
                chunk
            } else {
                std::mem::take(buffer).freeze()
            };
            room.note(got);
            Poll::Ready(Ok(chunk))
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        while !chunk.is_empty() {
            let written = ready!(Pin::new(&mut *self).poll_write(cx, chunk))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // Not `advance`: the whole chunk is freed with its last byte.
            drop(chunk.split_to(written));
        }
        Pin::new(self).poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.broken(cx)
    }

    fn abort(&mut self) {
        Plain::abort(self);
    }
}

/// Reads no more than `most` bytes, at least one.
pub fn read_at_most<I: AsyncRead>(
    io: Pin<&mut I>,
    cx: &mut Context<'_>,
    out: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<()>> {
    let most = most.max(1);
    if out.remaining() <= most {
        return io.poll_read(cx, out);
    }
    let mut part = ReadBuf::new(out.initialize_unfilled_to(most));
    let polled = io.poll_read(cx, &mut part);
    let got = part.filled().len();
    out.advance(got);
    polled
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::{ChunkIo, LEAST, MOST, ReadSize};

    /// Sends `sizes`, each when the one before was read, and gives what was read.
    async fn read(room: &mut ReadSize, sizes: &[usize]) -> Vec<Bytes> {
        let (mut near, mut far) = duplex(4 * MOST);
        let mut chunks = Vec::new();
        for size in sizes {
            near.write_all(&vec![b'x'; *size]).await.unwrap();
            chunks.push(poll_fn(|cx| far.poll_chunk(cx, room)).await.unwrap());
        }
        chunks
    }

    #[tokio::test]
    async fn stream_filling_its_reads_gets_larger_chunks() {
        let mut room = ReadSize::default();
        let (mut near, mut far) = duplex(MOST);
        let sending =
            tokio::spawn(async move { while near.write_all(&[b'x'; 4096]).await.is_ok() {} });
        let mut largest = 0;
        for _ in 0..16 {
            tokio::task::yield_now().await;
            let chunk = poll_fn(|cx| far.poll_chunk(cx, &mut room)).await.unwrap();
            largest = largest.max(chunk.len());
        }
        assert_eq!(room.0, MOST, "the largest chunk had {largest} bytes");
        drop(far);
        sending.await.unwrap();
        read(&mut room, &[1; 8]).await;
        assert_eq!(room.0, LEAST, "a slow stream keeps room for a fast one");
    }

    /// What a reader leaves lying must not cost many times its size.
    #[tokio::test]
    async fn a_piece_keeps_no_more_than_twice_its_size() {
        let mut room = ReadSize(MOST);
        let sizes = [1, 1000, LEAST, MOST / 2 + 1, MOST, 3, 70_000, 70_001];
        for chunk in read(&mut room, &sizes).await {
            let size = chunk.len();
            let kept = chunk.try_into_mut().unwrap().capacity();
            assert!(kept <= 2 * size, "{size} bytes keep {kept}");
        }
    }
}
