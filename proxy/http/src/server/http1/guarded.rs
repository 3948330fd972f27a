//! Wraps the body of an HTTP/1.1 response, so that hyper gets it no faster than the client takes
//! it.
//!
//! hyper ends a connection as soon as it gets the error of a body, and drops what it has not
//! written. So the error waits until all of that is written.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{self, Body, BoxError};
use crate::ending_body::{Undelivered, is_delivered};
use crate::head::size;
use crate::server::http1::activity::{Busy, ConnectionUse};

/// The error of a body that broke off, from then on.
const BROKE_OFF: &str = "the answer's body broke off";

/// `old`: the client speaks HTTP/1.0.
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
        broken: None,
        busy,
    })
}

/// The body of an answer. hyper drops it once it has taken the last of it.
pub(super) struct Guarded {
    body: Body,
    /// Only the end of the connection marks its end.
    by_close: bool,
    /// Boxed: hardly any breaks off.
    broken: Option<Box<Broken>>,
    busy: Busy,
}

/// How it broke off.
struct Broken {
    /// `None` once hyper has it.
    error: Option<BoxError>,
    undelivered: Undelivered,
}

impl Broken {
    fn new(error: BoxError, used: &ConnectionUse) -> Self {
        if is_delivered(&*error) {
            used.answers.unwritten.store(1, Relaxed);
        }
        Self {
            error: Some(error),
            undelivered: Undelivered::default(),
        }
    }

    /// Waits until what came before was written, or its client takes nothing.
    fn poll_error(&mut self, used: &ConnectionUse, cx: &mut Context<'_>) -> Poll<BoxError> {
        used.answers.taken.register(cx.waker());
        let unwritten = used.answers.unwritten.load(Relaxed);
        if unwritten > 0 {
            ready!(self.undelivered.poll_abandoned(unwritten, cx));
        }
        let error = self.error.take();
        Poll::Ready(error.unwrap_or_else(|| BROKE_OFF.into()))
    }
}

impl Guarded {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let used = &self.busy.used;
        if used.is_full() {
            // hyper would take more, up to a fixed size that many slow readers together
            // do not fit.
            used.answers.taken.register(cx.waker());
            if used.is_full() {
                return Poll::Pending;
            }
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            used.answers
                .unsent
                .fetch_add(isize::try_from(data.len()).unwrap_or(isize::MAX), Relaxed);
        }
        polled
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let broken = match &mut this.broken {
            Some(broken) => broken,
            None => match this.poll_body(cx) {
                Poll::Ready(Some(Err(error))) => {
                    // What it came by is not held for a client that is slow.
                    this.body = body::empty();
                    let broken = Broken::new(error, &this.busy.used);
                    this.broken.insert(Box::new(broken))
                }
                polled => return polled,
            },
        };
        let error = ready!(broken.poll_error(&this.busy.used, cx));
        if this.by_close {
            this.busy.used.abort.set();
        }
        Poll::Ready(Some(Err(error)))
    }

    /// What broke off has not ended.
    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.broken.is_some() {
            return SizeHint::default();
        }
        self.body.size_hint()
    }
}
