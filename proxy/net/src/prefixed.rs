//! `Prefixed`: a connection of which the first bytes were read ahead, to detect its protocol, and
//! are read again.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::budget::Budget;
use crate::chunk::{ChunkIo, ReadSize};
use crate::forward::{forward_chunks_out, forward_shutdown, forward_write};
use crate::sniff::{SILENCE, Sniffed, begins_request, begins_tls, sniff_greeting};

/// Time for a head, from its first byte.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Vec<u8>,
    at: usize,
    pub inner: S,
}

impl<S> Prefixed<S> {
    pub const fn new(inner: S) -> Self {
        Self {
            prefix: Vec::new(),
            at: 0,
            inner,
        }
    }

    /// The same bytes before what `into` makes of the stream.
    pub fn map<T>(self, into: impl FnOnce(S) -> T) -> Prefixed<T> {
        Prefixed {
            prefix: self.prefix,
            at: self.at,
            inner: into(self.inner),
        }
    }

    /// What was read already and is not passed on yet.
    pub fn take_prefix(&mut self) -> Vec<u8> {
        let at = std::mem::take(&mut self.at);
        let mut prefix = std::mem::take(&mut self.prefix);
        prefix.drain(..at);
        prefix
    }

    /// Makes these bytes the next ones.
    pub fn put_back(&mut self, bytes: &[u8]) {
        let mut prefix = bytes.to_vec();
        prefix.extend_from_slice(&self.prefix[self.at..]);
        (self.prefix, self.at) = (prefix, 0);
    }

    /// True when what was read already is the beginning of TLS. Nothing is waited for.
    #[must_use]
    pub fn begins_as_tls(&self) -> bool {
        begins_tls(&self.prefix)
    }
}

/// Whether an empty line, in either spelling, ends a head behind the first `looked` bytes.
/// Empty lines before a head are none of it, as parsers read them.
fn ends_head(bytes: &[u8], looked: usize) -> bool {
    let blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let begins = bytes.iter().position(|byte| !blank(byte));
    let from = begins.unwrap_or(bytes.len()).max(looked);
    let bytes = &bytes[from..];
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|pair| pair == b"\n\r\n")
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// Reads until the protocol is clear, the stream ends, or `until` passes.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn look(
        &mut self,
        until: Instant,
        sniff: fn(&[u8]) -> Sniffed,
    ) -> io::Result<Sniffed> {
        loop {
            let sniffed = sniff(&self.prefix);
            if sniffed != Sniffed::Unsure {
                return Ok(sniffed);
            }
            let Ok(read) = timeout_at(until, self.more()).await else {
                return Ok(Sniffed::Unsure);
            };
            if read? == 0 {
                return Ok(if self.prefix.is_empty() {
                    Sniffed::Unsure
                } else {
                    Sniffed::Opaque
                });
            }
        }
    }

    /// Reads until `read` makes something of the first bytes. `None`: it has not before the stream
    /// ended, `until` passed or `most` bytes had come.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn look_for<T>(
        &mut self,
        until: Instant,
        most: usize,
        read: fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        loop {
            let found = read(&self.prefix);
            if found.is_some() || self.prefix.len() >= most {
                return Ok(found);
            }
            let Ok(came) = timeout_at(until, self.more()).await else {
                return Ok(None);
            };
            if came? == 0 {
                return Ok(None);
            }
        }
    }

    /// The same where HTTP is declared: as long as `patience` for the first byte,
    /// and for the others as long as for any head.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn look_at_head(
        &mut self,
        patience: Duration,
        sniff: fn(&[u8]) -> Sniffed,
        permit: &Permit,
    ) -> io::Result<Sniffed> {
        match timeout(patience, self.first_bytes()).await {
            Ok(Ok(true)) => permit.head_begins(),
            Ok(Ok(false)) | Err(_) => return Ok(Sniffed::Unsure),
            Ok(Err(error)) => return Err(error),
        }
        self.look(Instant::now() + HEAD_WITHIN, sniff).await
    }

    /// Reads what has come into the prefix; 0: the stream ended. The buffer is no
    /// part of the future, so waiting connections stay small.
    async fn more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = [0_u8; 512];
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
        self.prefix.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Ready when the other end has closed its side, or broken it off. To see that, up to
    /// about `most` bytes are read ahead; behind more of them it is not seen.
    pub fn poll_left(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        while self.ahead() < most {
            match ready!(self.poll_more(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Waits for the first bytes, which stay to be read. `false`: the stream ended.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn first_bytes(&mut self) -> io::Result<bool> {
        if self.prefix.is_empty() {
            self.more().await?;
        }
        Ok(!self.prefix.is_empty())
    }

    /// Whether what a server sends first is HTTP/2. Its client will send that as well, and
    /// decides.
    pub async fn greets_in_http2(&mut self) -> bool {
        let until = Instant::now() + SILENCE;
        matches!(self.look(until, sniff_greeting).await, Ok(Sniffed::Http2))
    }

    /// Reads on until the prefix holds the end of a head, or `limit` bytes, or the
    /// stream ends.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn whole_head(&mut self, limit: usize, budget: &Budget) -> io::Result<()> {
        let mut looked = 0;
        while !ends_head(&self.prefix, looked) && self.prefix.len() < limit {
            poll_fn(|cx| budget.poll_room(cx)).await;
            // The end may lie across two reads.
            looked = self.prefix.len().saturating_sub(2);
            if self.more().await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Whether a whole head was read ahead.
    pub fn has_head(&self) -> bool {
        ends_head(&self.prefix[self.at..], 0)
    }

    /// What was read ahead.
    #[must_use]
    pub fn read_ahead(&self) -> &[u8] {
        &self.prefix[self.at..]
    }

    /// Bytes that were read ahead.
    #[must_use]
    pub const fn ahead(&self) -> usize {
        self.prefix.len() - self.at
    }

    /// True once the client sent anything at all.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// True when what came is the beginning of a request, and of little else.
    #[must_use]
    pub fn begins_as_http(&self) -> bool {
        begins_request(&self.prefix)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.prefix.len() {
            let count = out.remaining().min(self.prefix.len() - self.at);
            out.put_slice(&self.prefix[self.at..self.at + count]);
            self.at += count;
            if self.at == self.prefix.len() {
                self.prefix = Vec::new();
                self.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    forward_write!(inner);
    forward_shutdown!(inner);
}

impl<S: ChunkIo> ChunkIo for Prefixed<S> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        let prefix = self.take_prefix();
        if !prefix.is_empty() {
            return Poll::Ready(Ok(prefix.into()));
        }
        self.inner.poll_chunk(cx, room)
    }

    forward_chunks_out!(inner);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn empty_lines_before_a_head_do_not_end_it() {
        for (bytes, ends) in [
            ("\r\n\r\n", false),
            ("\n\n\n", false),
            ("\r\n\r\nGET / HTTP/1.1\r\n", false),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\nHost: a\n\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n", false),
            ("", false),
        ] {
            assert_eq!(ends_head(bytes.as_bytes(), 0), ends, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_head_is_whole_however_it_comes_in_pieces() {
        const HEAD: &[u8] = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..HEAD.len() {
            let (mut near, far) = duplex(4096);
            let mut io = Prefixed::new(far);
            near.write_all(&HEAD[..cut]).await.unwrap();
            assert!(io.first_bytes().await.unwrap());
            assert!(!io.has_head(), "{cut}");
            let budget = Budget::new(1 << 26);
            let mut whole = Box::pin(io.whole_head(4096, &budget));
            assert!(futures::poll!(whole.as_mut()).is_pending(), "{cut}");
            near.write_all(&HEAD[cut..]).await.unwrap();
            whole.await.unwrap();
            assert!(io.has_head(), "{cut}");
            assert_eq!(io.take_prefix(), HEAD);
        }
    }
}
