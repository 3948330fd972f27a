//! The body of a received message, over HTTP/1.1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::body::{Body, BoxError};
use crate::http2::recv::RecvBody;
use crate::unread_body::Returned;

#[must_use]
pub fn incoming(body: IncomingBody) -> Body {
    body.boxed_unsync()
}

/// The body of a message that came, by either version of HTTP.
#[derive(Debug)]
pub enum IncomingBody {
    Http1(Incoming),
    /// The same, as the request's sender sees it end. Boxed as below.
    Watched(Body),
    /// The same of a request that a server reads. Boxed: most requests have none, and all
    /// would be larger.
    Returned(Box<Returned>),
    Http2(RecvBody),
}

impl From<Incoming> for IncomingBody {
    fn from(body: Incoming) -> Self {
        Self::Http1(body)
    }
}

impl From<RecvBody> for IncomingBody {
    fn from(body: RecvBody) -> Self {
        Self::Http2(body)
    }
}

impl HttpBody for IncomingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Watched(body) => Pin::new(body).poll_frame(cx),
            Self::Returned(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Watched(body) => body.is_end_stream(),
            Self::Returned(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Watched(body) => body.size_hint(),
            Self::Returned(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
