//! Request and response bodies, counted in the caller's share of memory from the first byte of a
//! call until the response is sent.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use runtime::pool::Share;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::outcome::{ReviewOutcome, refused};

/// Time to take an answer: the API server has given up by then.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are given to the connection at once.
const CHUNK: usize = 16 * 1024;

/// One open connection.
pub(super) struct Caller {
    pub(super) source: IpAddr,
    pub(super) permit: Share<IpAddr>,
    pub(super) memory: Share<IpAddr>,
    /// An answer was not taken in time.
    pub(super) stuck: Notify,
    /// Closed when the connection is. HTTP/2 goes on with calls that no client waits for.
    closed: Semaphore,
}

impl Caller {
    pub(super) fn new(source: IpAddr, permit: Share<IpAddr>, memory: Share<IpAddr>) -> Self {
        Self {
            source,
            permit,
            memory,
            stuck: Notify::new(),
            closed: Semaphore::new(0),
        }
    }

    pub(super) fn close(&self) {
        self.closed.close();
    }

    /// Resolves when the connection is closed.
    pub(super) async fn closed(&self) {
        // There never is a permit.
        let _ = self.closed.acquire().await;
    }
}

/// Bytes that a call has of its connection's share, given back when it is dropped.
pub(super) struct CallBytes {
    pub(super) caller: Arc<Caller>,
    bytes: usize,
}

impl CallBytes {
    pub(super) fn new(caller: Arc<Caller>) -> Self {
        caller.permit.begin();
        Self { caller, bytes: 0 }
    }

    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Box<ReviewOutcome>> {
        self.caller.memory.grow(bytes).map_err(|_| {
            refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "overload",
                "too many bytes at once, try again",
            )
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Goes on with so many bytes.
    pub(super) fn resize(&mut self, bytes: usize) -> Result<(), Box<ReviewOutcome>> {
        self.shrink_to(bytes);
        self.grow(bytes - self.bytes)
    }

    /// Goes on with so many bytes at most.
    fn shrink_to(&mut self, bytes: usize) {
        self.caller.memory.shrink(self.bytes.saturating_sub(bytes));
        self.bytes = self.bytes.min(bytes);
    }
}

impl Drop for CallBytes {
    fn drop(&mut self) {
        self.shrink_to(0);
        self.caller.permit.end();
    }
}

/// The body of an answer, which counts until it has been taken. In chunks: what a
/// connection has been given it holds, whether its peer reads or not.
pub(super) struct CountedResponse {
    rest: Bytes,
    _reserved: CallBytes,
    timer: AbortHandle,
}

impl CountedResponse {
    pub(super) fn new(body: Bytes, mut reserved: CallBytes) -> Self {
        reserved.shrink_to(body.len());
        let caller = Arc::clone(&reserved.caller);
        #[expect(
            clippy::disallowed_methods,
            reason = "one answer's timer, aborted with it"
        )]
        let timer = tokio::spawn(async move {
            tokio::time::sleep(ANSWER_TIMEOUT).await;
            caller.stuck.notify_one();
        });
        Self {
            rest: body,
            _reserved: reserved,
            timer: timer.abort_handle(),
        }
    }
}

impl Drop for CountedResponse {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

impl Body for CountedResponse {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(CHUNK);
        let chunk = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Reads a body as it comes, counting it.
pub(super) async fn read(
    mut body: Incoming,
    most: usize,
    reserved: &mut CallBytes,
) -> Result<Vec<u8>, Box<ReviewOutcome>> {
    let too_large = || {
        refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the body is too large",
        )
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let length = body.size_hint().exact();
    let mut whole: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(refused(
                StatusCode::BAD_REQUEST,
                "broken",
                "the body broke off",
            ));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > most {
            return Err(too_large());
        }
        let needed = whole.len() + data.len();
        if needed > whole.capacity() {
            // Twice what is there, unless it is known to end earlier; never all of what
            // is only announced.
            let end = length.and_then(|length| usize::try_from(length).ok());
            let room = needed
                .max(2 * whole.len())
                .min(end.unwrap_or(most).max(needed));
            reserved.grow(room - whole.capacity())?;
            whole.reserve_exact(room - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}
