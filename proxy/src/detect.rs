//! What a connection speaks, from its first bytes.
//!
//! Only ports without a declared protocol are looked at. A client that says
//! nothing may be waiting for the server to speak first, so silence is no
//! reason to wait long: the caller meanwhile opens the way to the server, and
//! whoever speaks first decides.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use policy::protocol::Protocol;
use runtime::occupancy::Place;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::HEAD_WITHIN;

/// How long the first bytes may take on a port that has no declaration.
pub const DETECT_WITHIN: Duration = Duration::from_secs(1);
/// Silence after which the server may be the one that speaks first.
pub const SILENCE: Duration = Duration::from_millis(50);
/// Longest method that is recognised, with the blank after it.
const ENOUGH: usize = 24;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
}

/// An empty line, in either spelling.
fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|pair| pair == b"\n\r\n")
}

/// What the first bytes say so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Http1,
    Http2,
    Opaque,
    /// Too few bytes to tell.
    Unsure,
}

impl Seen {
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Http1 => Protocol::Http1,
            Self::Http2 => Protocol::Http2,
            Self::Opaque | Self::Unsure => Protocol::Opaque,
        }
    }
}

/// Judges the first bytes of a connection.
///
/// HTTP/1 is a token, a blank and a target that starts as targets do. CONNECT
/// counts as opaque: it is a conversation with a forward proxy, whose bytes
/// are none of ours.
#[must_use]
pub fn judge(bytes: &[u8]) -> Seen {
    if bytes.is_empty() {
        return Seen::Unsure;
    }
    if HTTP2_PREFACE.starts_with(bytes) && bytes.len() < 14 && bytes.len() < HTTP2_PREFACE.len() {
        return Seen::Unsure;
    }
    if bytes.starts_with(&HTTP2_PREFACE[..14]) {
        return Seen::Http2;
    }
    let Some(blank) = bytes.iter().position(|byte| *byte == b' ') else {
        let token = bytes.iter().all(u8::is_ascii_uppercase) && bytes.len() < ENOUGH;
        return if token { Seen::Unsure } else { Seen::Opaque };
    };
    let method = &bytes[..blank];
    let plausible = !method.is_empty()
        && method
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'));
    if !plausible || method == b"CONNECT" {
        return Seen::Opaque;
    }
    match bytes.get(blank + 1) {
        None => Seen::Unsure,
        Some(b'/' | b'*' | b'h' | b'H') => Seen::Http1,
        Some(_) => Seen::Opaque,
    }
}

/// The same for ports that HTTP rules protect, where letting HTTP through as
/// opaque bytes would go around the rules: whatever a lenient server might
/// still read as HTTP counts as HTTP, and the strict parser refuses the rest.
#[must_use]
pub fn judge_strictly(bytes: &[u8]) -> Seen {
    match judge(bytes) {
        Seen::Opaque | Seen::Unsure
            if bytes
                .first()
                .is_some_and(|byte| byte.is_ascii_alphabetic() || byte.is_ascii_whitespace()) =>
        {
            if HTTP2_PREFACE.starts_with(bytes) {
                Seen::Unsure
            } else {
                Seen::Http1
            }
        }
        seen => seen,
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// Reads until the protocol is clear, the stream ends, or `until` passes.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn look(&mut self, until: Instant, judge: fn(&[u8]) -> Seen) -> io::Result<Seen> {
        loop {
            let seen = judge(&self.prefix);
            if seen != Seen::Unsure {
                return Ok(seen);
            }
            let Ok(read) = timeout_at(until, self.more()).await else {
                return Ok(Seen::Unsure);
            };
            if read? == 0 {
                return Ok(if self.prefix.is_empty() {
                    Seen::Unsure
                } else {
                    Seen::Opaque
                });
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
        judge: fn(&[u8]) -> Seen,
        place: &Place,
    ) -> io::Result<Seen> {
        match timeout(patience, self.first_bytes()).await {
            Ok(Ok(true)) => place.head_begins(),
            Ok(Ok(false)) | Err(_) => return Ok(Seen::Unsure),
            Ok(Err(error)) => return Err(error),
        }
        self.look(Instant::now() + HEAD_WITHIN, judge).await
    }

    /// Reads what has come into the prefix; 0: the stream ended. The buffer is no
    /// part of the future, so waiting connections stay small.
    async fn more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut buffer = [0_u8; 512];
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            self.prefix.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
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

    /// Reads on until the prefix holds the end of a head, or `limit` bytes, or the
    /// stream ends.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn whole_head(&mut self, limit: usize) -> io::Result<()> {
        let mut looked = 0;
        while !ends_head(&self.prefix[looked..]) && self.prefix.len() < limit {
            // The end may lie across two reads.
            looked = self.prefix.len().saturating_sub(2);
            if self.more().await? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// True once the client sent anything at all.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        !self.prefix.is_empty()
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
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::{DETECT_WITHIN, Prefixed, Seen, judge};

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (bytes, seen) in [
            (&b"GET / HTTP/1.1\r\n"[..], Seen::Http1),
            (b"OPTIONS * HTTP/1.1\r\n", Seen::Http1),
            (b"GET http://a/ HTTP/1.1\r\n", Seen::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Seen::Http2),
            (b"PRI * HT", Seen::Unsure),
            (b"P", Seen::Unsure),
            (b"GET ", Seen::Unsure),
            (b"CONNECT a:1 HTTP/1.1\r\n", Seen::Opaque),
            (b"\x16\x03\x01", Seen::Opaque),
            (b"EHLO mail", Seen::Opaque),
            (b"hello /x", Seen::Opaque),
            (b"\0", Seen::Opaque),
            (b"", Seen::Unsure),
        ] {
            assert_eq!(judge(bytes), seen, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_unsure_after_the_limit_and_loses_no_byte() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut stream = Prefixed::new(server);
        client.write_all(b"G").await.unwrap();
        let seen = stream
            .look(Instant::now() + DETECT_WITHIN, judge)
            .await
            .unwrap();
        assert_eq!(seen, Seen::Unsure);
        client.write_all(b"ET / HTTP/1.1").await.unwrap();
        drop(client);
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1");
    }
}
