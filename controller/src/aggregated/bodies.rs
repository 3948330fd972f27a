//! Bounds the memory of response bodies that are being sent to their clients.
//!
//! A body is complete before its first byte is sent, and its client may read slowly. So all bodies
//! share a budget: when it is spent, the next body waits until another one has returned some.
//! Small bodies have a part of their own: the API server reads documents about each API, and while
//! it cannot, no namespace of the cluster can be deleted. Of the rest one user has half at most,
//! so that a slow client leaves room for others.
//!
//! Bodies are sent as copies of small parts: else a part that waits for the network would keep the
//! whole body in memory.

mod readers;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use runtime::limit::Reached;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::readers::{Reader, ReaderShare, Readers};
use super::front_proxy::{User, digest};
use super::pace::Pace;
use super::refusal::Refusal;

/// Bytes of all answers that are longer than a small one.
const LARGE_BYTES: usize = 56 * 1024 * 1024;
/// Of these, bytes of one user's: an answer of a graph has room in it.
const LARGE_BYTES_OF_ONE: usize = LARGE_BYTES / 2;
/// Bytes of one answer. What is longer cannot be given at all; those that may be, say sooner
/// what had no room in them. No more than one user's, or the longest would leave less than half
/// to all others.
const MAX_ANSWER: usize = LARGE_BYTES_OF_ONE;
/// Bytes of all small ones.
const SMALL_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a small one.
const SMALL: usize = 64 * 1024;
/// Bytes that are passed on at one time.
const PART: usize = 16 * 1024;

/// Bytes for bodies. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct AnswerBudget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// How much of the large ones each reader holds.
    readers: Readers,
    /// Whose answers these are; at first no reader's.
    reader: Reader,
    /// Counts answers that found no room.
    full: Counter,
}

/// Some of the budget, until the last clone of it goes.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    _permits: Arc<(OwnedSemaphorePermit, Option<ReaderShare>)>,
}

impl Share {
    /// The answer for which it was reserved.
    pub(crate) fn of<B>(self, mut answer: Response<B>) -> Response<B> {
        answer.extensions_mut().insert(self);
        answer
    }

    /// The stream for whose first line it was reserved.
    pub(crate) fn of_first_line<B>(self, mut stream: Response<B>) -> Response<B> {
        stream.extensions_mut().insert(FirstLine(self));
        stream
    }
}

/// The room of a stream's first line, until that is passed on.
#[derive(Clone, Debug)]
struct FirstLine(Share);

impl AnswerBudget {
    /// The whole budget.
    pub(crate) fn new(limits: &Reached) -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL_BYTES)),
            large: Arc::new(Semaphore::new(LARGE_BYTES)),
            readers: Readers::default(),
            reader: Reader::default(),
            full: limits.counter("answer-bytes"),
        }
    }

    /// The same budget, for what this user reads.
    pub(crate) fn of(&self, user: &User) -> Self {
        Self {
            reader: digest(&user.name),
            ..self.clone()
        }
    }

    /// Room for a body of so many bytes.
    ///
    /// # Errors
    /// When there is none now, or never.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Share, Refusal> {
        if bytes > MAX_ANSWER {
            let code = StatusCode::PAYLOAD_TOO_LARGE;
            let message = format!(
                "the answer takes {bytes} bytes and may take {MAX_ANSWER}: ask for one namespace, \
                 or for a part of the list with limit={}",
                MAX_ANSWER / (64 * 1024)
            );
            return Err(Refusal::new(code, "RequestEntityTooLarge", message));
        }
        let (budget, own) = if bytes <= SMALL {
            (&self.small, None)
        } else {
            let own = self.readers.take(self.reader, bytes, LARGE_BYTES_OF_ONE);
            let whose = "this user's answers that wait to be read";
            let own = own.ok_or_else(|| self.no_room(whose, LARGE_BYTES_OF_ONE))?;
            (&self.large, Some(own))
        };
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = Arc::clone(budget).try_acquire_many_owned(permits);
        let permit = permit.map_err(|_| {
            let whose = "answers that wait for their readers";
            self.no_room(whose, SMALL_BYTES + LARGE_BYTES)
        })?;
        Ok(Share {
            _permits: Arc::new((permit, own)),
        })
    }

    fn no_room(&self, whose: &str, bytes: usize) -> Refusal {
        self.full.inc();
        let message = format!(
            "{whose} take the {} MiB that there are for them; try again later, or ask for one \
             namespace",
            bytes / (1024 * 1024)
        );
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
    }

    /// An answer and the room for it, where its length is known.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub(crate) fn with_room(&self, answer: Answer) -> Result<Answer, Refusal> {
        let is_reserved = answer.extensions().get::<Share>().is_some();
        match answer.body().size_hint().exact() {
            Some(bytes) if !is_reserved => {
                let share = self.reserve(usize::try_from(bytes).unwrap_or(usize::MAX))?;
                Ok(share.of(answer))
            }
            _ => Ok(answer),
        }
    }

    /// Room for the first line of a stream, of so many bytes; `None` where it needs none. A stream
    /// that has started can no longer be refused, so it is reserved before: see
    /// [`Share::of_first_line`].
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub(crate) fn begins(&self, bytes: usize) -> Result<Option<Share>, Refusal> {
        (bytes > PART).then(|| self.reserve(bytes)).transpose()
    }

    /// An answer on its way to its reader. Of a stream, each line has to find room, but for a
    /// first one that has it.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub(super) fn admit(&self, answer: Answer) -> Result<Response<PacedBody>, Refusal> {
        Ok(self.passed_on(self.with_room(answer)?))
    }

    /// A refusal on its way: that of too many bytes has to find room as well.
    pub(super) fn refusal(&self, answer: Answer) -> Response<PacedBody> {
        self.passed_on(answer)
    }

    fn passed_on(&self, mut answer: Answer) -> Response<PacedBody> {
        let share = answer.extensions_mut().remove::<Share>();
        let first = answer.extensions_mut().remove::<FirstLine>();
        answer.map(|body| PacedBody {
            body,
            rest: Bytes::new(),
            share,
            line: first.map(|FirstLine(share)| share),
            budget: self.clone(),
            pace: Pace::current(),
            started: Instant::now(),
        })
    }
}

/// What handlers make.
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A line of a stream found no room.
#[derive(Debug, thiserror::Error)]
#[error("no room is left for what answers take")]
pub(super) struct NoRoom;

/// A body that is given by parts, and reports each of them to its pace.
pub(super) struct PacedBody {
    body: UnsyncBoxBody<Bytes, Infallible>,
    /// Of what came last, what was not given yet.
    rest: Bytes,
    /// Of all of it, where its length was known before.
    share: Option<Share>,
    /// Of the line in `rest`, or of the first one, which is still to come.
    line: Option<Share>,
    budget: AnswerBudget,
    pace: Option<Arc<Pace>>,
    started: Instant,
}

impl PacedBody {
    /// Whether there is room for what came.
    fn take(&mut self, data: Bytes) -> Result<(), NoRoom> {
        if self.share.is_none() && self.line.is_none() && data.len() > PART {
            self.line = Some(self.budget.reserve(data.len()).map_err(|_| NoRoom)?);
        }
        self.rest = data;
        Ok(())
    }

    fn part(&mut self) -> Bytes {
        let length = self.rest.len().min(PART);
        let part = Bytes::copy_from_slice(&self.rest.split_to(length));
        if self.rest.is_empty() {
            // An empty rest would still hold all of which it is the rest.
            self.rest = Bytes::new();
            self.line = None;
        }
        part
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = NoRoom;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NoRoom>>> {
        let paced = self.get_mut();
        if let Some(pace) = &paced.pace {
            pace.waits_for_answer();
        }
        if paced.rest.is_empty() {
            let frame = ready!(Pin::new(&mut paced.body).poll_frame(context));
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(None);
            };
            let Ok(data) = frame.into_data() else {
                // Trailers, which no handler of ours sends.
                return Poll::Ready(None);
            };
            if let Err(error) = paced.take(data) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let part = paced.part();
        if let Some(pace) = &paced.pace {
            pace.waits_for_reader(paced.started);
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        if let Some(pace) = &self.pace {
            pace.waits_for_answer();
        }
    }
}

#[cfg(test)]
mod tests;
