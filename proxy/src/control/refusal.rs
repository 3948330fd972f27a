//! Detects that a controller and this proxy refuse each other's certificates, and wakes the task
//! that requests another one.
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

/// A connection, and what is raised when an alert about this proxy's certificate ends it.
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

/// Whether the controller refused this proxy's certificate. Other alerts say nothing about it: an
/// attacker on the way who garbles a record draws one.
fn is_refusal(error: &io::Error) -> bool {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown,
        DecryptError, UnknownCA, UnsupportedCertificate,
    };
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else {
        return false;
    };
    matches!(
        alert,
        AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRevoked
            | CertificateUnknown
            | DecryptError
            | UnknownCA
            | UnsupportedCertificate
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for AlertWatch<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if let (Err(error), Some(alerted)) = (&read, &self.alerted)
            && is_refusal(error)
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

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn alerts_about_the_certificate_alone_are_refusals() {
        let is_refusal = |alert| is_refusal(&io::Error::other(rustls::Error::AlertReceived(alert)));
        assert!(is_refusal(AlertDescription::UnknownCA));
        assert!(is_refusal(AlertDescription::CertificateExpired));
        assert!(!is_refusal(AlertDescription::BadRecordMac));
        assert!(!is_refusal(AlertDescription::InternalError));
        let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(!super::is_refusal(&ended));
    }
}
