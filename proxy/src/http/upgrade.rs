//! A connection of HTTP/1.1 that carries another protocol from now on.
//!
//! hyper keeps the socket to itself, also then. So that its close can be made a reset,
//! the socket is wrapped before hyper gets it, and whoever relays holds the switch.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::{Extensions, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot::Receiver;

use crate::http::byte_stream::Stream;
use crate::http::http2::recv::RecvBody;
use crate::net::abort::Abort;
use crate::net::budget::Holder;
use crate::net::chunk::read_at_most;
use crate::net::chunk::{Pieces, Plain, Room};
use crate::net::connect;

/// One side of an upgrade, before it carries the other protocol.
#[derive(Debug)]
pub enum Side {
    /// A connection that hyper gives up once the answer is out.
    Http1(OnUpgrade, Abort),
    /// What a caller sends by HTTP/2; the other direction opens with the answer.
    Mesh(RecvBody),
    Open(Stream),
}

impl Side {
    /// Of a request that came by HTTP/1.1.
    pub fn of(extensions: &mut Extensions) -> Option<Self> {
        let switch = extensions.remove::<OnUpgrade>()?;
        Some(Self::Http1(
            switch,
            extensions.remove::<Abort>().unwrap_or_default(),
        ))
    }

    /// Of an answer that came by HTTP/1.1.
    pub fn of_answer<B>(response: &mut Response<B>) -> Self {
        let switch = hyper::upgrade::on(&mut *response);
        let abort = response.extensions_mut().remove::<Abort>();
        Self::Http1(switch, abort.unwrap_or_default())
    }

    /// The same as [`Self::switched`], also for a caller that sends by HTTP/2, whose
    /// stream opens to the other direction as `out`.
    pub async fn opened(self, out: Receiver<SendStream<Bytes>>) -> Option<Switched> {
        match self {
            Self::Mesh(incoming) => Some(Switched::Mesh(Stream::new(out.await.ok()?, incoming))),
            other => other.switched().await,
        }
    }

    /// The bytes of the other protocol; `None` when the connection was lost before.
    pub async fn switched(self) -> Option<Switched> {
        match self {
            Self::Http1(switch, abort) => {
                let io = TokioIo::new(switch.await.ok()?);
                Some(Switched::Http1(Upgrade { io, abort }))
            }
            Self::Open(stream) => Some(Switched::Mesh(stream)),
            Self::Mesh(_) => None,
        }
    }
}

/// One side of an upgrade.
#[derive(Debug)]
pub enum Switched {
    Http1(Upgrade),
    Mesh(Stream),
}

impl Pieces for Switched {
    fn poll_piece(&mut self, cx: &mut Context<'_>, room: &mut Room) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Http1(io) => io.poll_piece(cx, room),
            Self::Mesh(stream) => stream.poll_piece(cx),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, piece: &mut Bytes) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(io) => io.poll_send(cx, piece),
            Self::Mesh(stream) => stream.poll_send(cx, piece),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(io) => io.poll_end(cx),
            Self::Mesh(stream) => stream.poll_end(cx),
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self {
            Self::Http1(io) => io.poll_broken(cx),
            Self::Mesh(stream) => stream.poll_broken(cx),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Http1(io) => io.abort.set(),
            Self::Mesh(stream) => stream.reset(),
        }
    }
}

/// What hyper gave up.
#[derive(Debug)]
pub struct Upgrade {
    io: TokioIo<Upgraded>,
    abort: Abort,
}

impl Plain for Upgrade {
    fn broken(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) {
        self.abort.set();
    }
}

impl AsyncRead for Upgrade {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, out)
    }
}

impl AsyncWrite for Upgrade {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// A connection to an application, as hyper gets it.
///
/// It is reset when it is dropped, if somebody said so. And an application may answer
/// and close before it has taken the request: what it did not take is dropped then, so
/// that hyper reads the answer and does not stop at the error of writing.
#[derive(Debug)]
pub struct Upstream {
    io: TcpStream,
    abort: Abort,
    holder: Holder,
    /// The application takes no more.
    deaf: bool,
    /// It broke off, and the error of writing was the only sign of that.
    broken: bool,
}

impl Upstream {
    #[must_use]
    pub const fn new(io: TcpStream, abort: Abort, holder: Holder) -> Self {
        Self {
            io,
            abort,
            holder,
            deaf: false,
            broken: false,
        }
    }

    fn written(
        &mut self,
        size: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.deaf = true;
                // After an end in good order the first error is a broken pipe.
                self.broken |= error.kind() == io::ErrorKind::ConnectionReset;
                Poll::Ready(Ok(size))
            }
            other => other,
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if self.abort.is_set() {
            connect::reset(&self.io);
        }
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (out.filled().len(), out.remaining());
        let read = read_at_most(Pin::new(&mut this.io), cx, out, this.holder.piece());
        let ended = matches!(read, Poll::Ready(Ok(()))) && out.filled().len() == before;
        if this.broken && room > 0 && ended {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut this.io).poll_write(cx, data);
        this.written(data.len(), written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let size = data.iter().map(|part| part.len()).sum();
        if this.deaf {
            return Poll::Ready(Ok(size));
        }
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, data);
        this.written(size, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
