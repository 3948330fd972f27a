//! `ByteStream`: a tunnel between two proxies, made of the two directions of one HTTP/2 stream.
//! Bytes pass without another copy.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as HttpBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_proxy_net::abort::MayAbort;
use weft_proxy_net::chunk::{ChunkIo, ReadSize, SMALL_CHUNK};

use crate::http2::cost::StreamCost;
use crate::http2::recv::RecvBody;

/// Both directions. Dropped before its end, it resets the HTTP/2 stream.
#[derive(Debug)]
pub struct ByteStream {
    out: SendStream<Bytes>,
    incoming: RecvBody,
    /// What the stream costs its opener, where that is counted. Its request was answered and costs
    /// nothing more.
    cost: Option<StreamCost>,
    /// Came, and was not read yet.
    rest: Bytes,
    /// Nothing more will be sent.
    ended: bool,
}

impl ByteStream {
    #[must_use]
    pub fn new(out: SendStream<Bytes>, incoming: RecvBody) -> Self {
        Self {
            out,
            cost: incoming.cost_of_bytes(),
            incoming: incoming.of_no_request(),
            rest: Bytes::new(),
            ended: false,
        }
    }

    /// The next bytes; empty at the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.rest)));
        }
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => Ok(Bytes::new()),
                Some(Err(error)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => Ok(data),
                    // Empty frames and trailers have no meaning here.
                    _ => continue,
                },
            });
        }
    }

    /// Waits until the peer takes more.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || self.out.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.out.reserve_capacity(1);
        while self.out.capacity() == 0 {
            match ready!(self.out.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, chunk: Bytes, end: bool) -> io::Result<()> {
        let chunk = match &self.cost {
            // `h2` keeps what there is no credit for.
            Some(cost) => cost.counted(chunk),
            None => chunk,
        };
        self.out
            .send_data(chunk, end)
            .map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error))
    }

    /// Sends `chunk` as it is, and leaves it empty.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        if !chunk.is_empty() {
            let ready = self.poll_ready(cx);
            if let Some(cost) = &self.cost {
                cost.note_stuck(if ready.is_pending() { chunk.len() } else { 0 });
            }
            ready!(ready)?;
            self.send(std::mem::take(chunk), false)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the own direction.
    ///
    /// # Errors
    /// When the stream is over already.
    pub fn end(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.send(Bytes::new(), true)
    }

    /// Breaks both directions off.
    pub fn reset(&mut self) {
        self.out.send_reset(h2::Reason::CANCEL);
    }

    /// Whether the peer has broken the stream off, though bytes may be left to be read.
    pub(crate) fn is_broken(&mut self, cx: &mut Context<'_>) -> bool {
        self.out.poll_reset(cx).is_ready()
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut chunk = ready!(this.poll_chunk(cx))?;
        let now = chunk.split_to(chunk.len().min(out.remaining()));
        out.put_slice(&now);
        this.rest = chunk;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_ready(cx))?;
        let taken = data.len().min(SMALL_CHUNK);
        this.send(Bytes::copy_from_slice(&data[..taken]), false)?;
        Poll::Ready(Ok(taken))
    }

    /// HTTP/2 sends as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().end())
    }
}

impl ChunkIo for ByteStream {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, _: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        Self::poll_chunk(self, cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        Self::poll_send(self, cx, chunk)
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.is_broken(cx) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    fn abort(&mut self) {
        self.reset();
    }
}

impl MayAbort for ByteStream {
    fn abort(&mut self) {
        self.reset();
    }

    fn was_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_broken(cx)
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.poll_broken(cx)
    }
}
