//! Notices that a controller and this proxy do not take each other's certificates, and wakes the
//! task that requests another one.
//!
//! In TLS 1.3 the handshake is over for a client before the server has read the client's
//! certificate. A refusal is an alert on a connection that stands, and HTTP/2 passes on nothing
//! but the text of an error: so it is read here, below HTTP/2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Something that has happened and that one task waits for.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    raised: AtomicBool,
    news: Notify,
}

impl Flag {
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// Whether it was raised; from now on it is not.
    pub(super) fn take(&self) -> bool {
        self.raised.swap(false, Ordering::Relaxed)
    }

    pub(super) async fn raised(&self) {
        while !self.raised.load(Ordering::Relaxed) {
            self.news.notified().await;
        }
    }
}

/// A connection, and what is raised when an alert ends it.
#[derive(Debug)]
pub(super) struct AlertWatch<S> {
    stream: S,
    alerted: Option<Arc<Flag>>,
}

impl<S> AlertWatch<S> {
    pub(super) const fn new(stream: S, alerted: Option<Arc<Flag>>) -> Self {
        Self { stream, alerted }
    }
}

/// An end without a fault is none: it reads as the end of the stream.
fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

impl<S: AsyncRead + Unpin> AsyncRead for AlertWatch<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if let (Err(error), Some(alerted)) = (&read, &self.alerted)
            && is_alert(error)
        {
            alerted.raise();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AlertWatch<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
