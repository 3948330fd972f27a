//! How the body of a request comes. One that its own sender breaks off, or that cannot be
//! read, says nothing about who was to receive it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::body::{Body, BoxError};

/// Knows whether the body of a request came whole, as far as it was read, and whether it
/// moves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upload(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    broke: AtomicBool,
    moved: AtomicBool,
}

impl Upload {
    /// `body`, and what watches it.
    pub(crate) fn watch(body: Body) -> (Body, Self) {
        let upload = Self::default();
        if body.is_end_stream() {
            return (body, upload);
        }
        let seen = Arc::clone(&upload.0);
        (Watched { body, seen }.boxed_unsync(), upload)
    }

    /// The failure as it is to be counted and answered.
    pub(crate) fn blame(&self, failure: Failure) -> Failure {
        if !self.broke() {
            return failure;
        }
        Failure::refused(
            Reason::BadRequest,
            "the request's body broke off or cannot be read",
        )
    }

    pub(crate) fn broke(&self) -> bool {
        self.0.broke.load(Relaxed)
    }

    /// Whether any of it came since this was asked last.
    pub(crate) fn moved(&self) -> bool {
        self.0.moved.swap(false, Relaxed)
    }
}

struct Watched {
    body: Body,
    seen: Arc<Seen>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match frame {
            Some(Err(_)) => this.seen.broke.store(true, Relaxed),
            Some(Ok(_)) | None => this.seen.moved.store(true, Relaxed),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
