//! An HTTP/1.1 connection that was upgraded to another protocol.
//!
//! hyper owns the socket, also then. So that its close can be made a reset, the socket is wrapped
//! before hyper gets it, and the relay holds the handle that aborts it. By the same handle the
//! relay checks whether the other end is still there, and ends one direction alone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::{Extensions, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot::Receiver;
use weft_proxy_net::abort::Abort;
use weft_proxy_net::chunk::{ChunkIo, Plain, ReadSize};
use weft_proxy_net::forward::{forward_read, forward_write};
use weft_proxy_net::relay::Flows;

use crate::byte_stream::ByteStream;
use crate::http2::recv::RecvBody;

/// One side of an upgrade, before it carries the other protocol.
#[derive(Debug)]
pub enum Side {
    /// A connection that hyper hands over once the answer is out, with its permit where it has one.
    Http1(OnUpgrade, Abort, Option<Arc<Permit>>),
    /// What a caller sends by HTTP/2, behind the request's body; the other direction opens with
    /// the answer.
    Mesh(RecvBody),
    Open(ByteStream),
}

impl Side {
    /// Of a request that came by HTTP/1.1.
    pub fn of(extensions: &mut Extensions) -> Option<Self> {
        let switch = extensions.remove::<OnUpgrade>()?;
        Some(Self::Http1(
            switch,
            extensions.remove::<Abort>().unwrap_or_default(),
            extensions.remove::<Arc<Permit>>(),
        ))
    }

    /// Of an answer that came by HTTP/1.1.
    pub fn of_answer<B>(response: &mut Response<B>) -> Self {
        let switch = hyper::upgrade::on(&mut *response);
        let abort = response.extensions_mut().remove::<Abort>();
        Self::Http1(switch, abort.unwrap_or_default(), None)
    }

    /// The same as [`Self::switched`], also for a caller that sends by HTTP/2, whose
    /// stream opens to the other direction as `out`.
    pub async fn opened(self, out: Receiver<SendStream<Bytes>>) -> Option<Switched> {
        match self {
            Self::Mesh(incoming) => {
                Some(Switched::Mesh(ByteStream::new(out.await.ok()?, incoming)))
            }
            other => other.switched().await,
        }
    }

    /// The bytes of the other protocol; `None` when the connection was lost before.
    pub async fn switched(self) -> Option<Switched> {
        match self {
            Self::Http1(switch, abort, permit) => {
                let io = TokioIo::new(switch.await.ok()?);
                Some(Switched::Http1(Upgrade { io, abort, permit }))
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
    Mesh(ByteStream),
}

impl Switched {
    /// It, and in `own` the bytes that pass it: where a relay counts, others do as well.
    pub const fn metered<'a>(&'a mut self, own: &'a Flows) -> Metered<'a> {
        Metered { side: self, own }
    }

    /// Returns when the connection is to be cut off, whatever it does.
    pub fn cut(&self) -> impl Future<Output = ()> + Send + use<> {
        let permit = match self {
            Self::Http1(upgrade) => upgrade.permit.clone(),
            // That is up to the connection of the stream.
            Self::Mesh(_) => None,
        };
        async move {
            match permit {
                Some(permit) => permit.cut().await,
                None => std::future::pending().await,
            }
        }
    }
}

/// The caller's side of an upgrade, of which it is known what passed.
#[derive(Debug)]
pub struct Metered<'a> {
    side: &'a mut Switched,
    own: &'a Flows,
}

impl ChunkIo for Metered<'_> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        let chunk = ready!(self.side.poll_chunk(cx, room))?;
        self.own.sent.fetch_add(chunk.len() as u64, Relaxed);
        Poll::Ready(Ok(chunk))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        let before = chunk.len();
        let sent = self.side.poll_send(cx, chunk);
        let taken = before.saturating_sub(chunk.len());
        self.own.received.fetch_add(taken as u64, Relaxed);
        sent
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.side.poll_end(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.side.poll_broken(cx)
    }

    fn abort(&mut self) {
        self.side.abort();
    }
}

impl ChunkIo for Switched {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Http1(io) => io.poll_chunk(cx, room),
            Self::Mesh(stream) => stream.poll_chunk(cx),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(io) => io.poll_send(cx, chunk),
            Self::Mesh(stream) => stream.poll_send(cx, chunk),
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
    /// Of the caller's connection.
    permit: Option<Arc<Permit>>,
}

impl Plain for Upgrade {
    fn broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.abort.check_next_flush();
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn abort(&mut self) {
        self.abort.set();
    }
}

impl AsyncRead for Upgrade {
    forward_read!(io);
}

impl AsyncWrite for Upgrade {
    forward_write!(io);

    /// The other direction goes on, and belongs to the relay: a close that lingers would drop what
    /// comes.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.abort.half_close();
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
