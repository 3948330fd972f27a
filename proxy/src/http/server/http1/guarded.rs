//! The body of an answer, handed to hyper no faster than the client takes it.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{Body, BoxError};
use crate::http::limits::size;
use crate::http::server::http1::activity::Busy;

/// `old`: who asked speaks HTTP/1.0.
pub(super) fn guard(mut answer: Response<Body>, old: bool, mut busy: Busy) -> Response<Guarded> {
    let by_close = old && !answer.headers().contains_key(header::CONTENT_LENGTH);
    let connection = answer.headers().get(header::CONNECTION);
    if old && connection.is_some_and(|connection| connection == "close") {
        // To an answer of HTTP/1.1 hyper would add that the connection is kept.
        *answer.version_mut() = Version::HTTP_10;
    }
    busy.reserved.add(size(answer.headers()));
    busy.answered();
    answer.map(|body| Guarded {
        body,
        by_close,
        busy,
    })
}

/// The body of an answer. hyper drops it once it has taken the last of it.
pub(super) struct Guarded {
    body: Body,
    /// Nothing but the end of the connection tells its end.
    by_close: bool,
    busy: Busy,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let used = &this.busy.used;
        if used.is_full() {
            // hyper would take more, up to a fixed size that many slow readers together
            // do not fit.
            used.taken.register(cx.waker());
            if used.is_full() {
                return Poll::Pending;
            }
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            used.unsent
                .fetch_add(isize::try_from(data.len()).unwrap_or(isize::MAX), Relaxed);
        }
        if let (true, Poll::Ready(Some(Err(_)))) = (this.by_close, &polled) {
            this.busy.used.abort.set();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
