//! Bounds the memory of gRPC messages that are not complete yet, by pod.
//!
//! tonic keeps the received part of a message until its last byte arrives, however long that
//! takes, and keeps the buffer of the largest one until the call ends. With two streams a pod
//! could hold 8 MiB for ever, and some sixty pods all memory. So this memory is a pool: when it is
//! full, the largest holder loses its oldest call. Messages of a usual size are not counted: they
//! are part of a stream's measured size.
//!
//! A message that stalls ends its call too. That is checked only when there is nothing to read: a
//! delay of this process makes no proxy slow.
//!
//! The webhooks count bodies too (`injector/src/server/counted.rs`), and share no more than
//! [`runtime::pool`] with this: there a call is one body, read whole, whose answer is counted
//! until it is taken; here it is messages without end, whose frames tell where each begins,
//! and whose answers tonic owns. A body for both would be two bodies behind one name.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use runtime::limit::Reached;
use runtime::pool::{Limits, Pool, Share};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tower::BoxError;

/// Room for all pods, by the connections that there may be, which follow the memory limit:
/// 57 MiB of 512 MiB.
const OF_A_CONNECTION: usize = 24 * 1024;
/// Streams of a pod.
const STREAMS: usize = 2;
/// Bytes of a message that are not counted.
const USUAL: usize = 64 * 1024;
/// Bytes of the head of a message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// Bytes of a message that have a time of their own: what may be on its way unread.
const PART: usize = 256 * 1024;
/// Time for each part of a message, the first and the last one too.
pub(super) const PART_TIMEOUT: Duration = Duration::from_secs(10);

/// The room of all pods. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    room: Pool<Arc<str>>,
    stood_still: Counter,
}

impl Buffers {
    /// For so many connections, and messages of so many bytes at most.
    pub(super) fn new(connections: usize, largest: usize, limits: &Reached) -> Self {
        let of_a_pod = STREAMS * largest;
        let room = Limits {
            total: connections.saturating_mul(OF_A_CONNECTION).max(of_a_pod),
            per_holder: of_a_pod,
        };
        Self::of(room, limits)
    }

    fn of(room: Limits, limits: &Reached) -> Self {
        Self {
            room: Pool::new(room, limits.counter("message-buffers")),
            stood_still: limits.counter("slow-messages"),
        }
    }

    /// The body of a call of this pod.
    pub(super) fn count<B>(&self, body: B, pod: Arc<str>) -> CountedRequest<B> {
        CountedRequest {
            body,
            buffers: self.clone(),
            pod,
            framing: Framing::default(),
            reservation: None,
            until: None,
            moved: false,
        }
    }
}

/// A body whose messages are counted while they are read.
pub(super) struct CountedRequest<B> {
    body: B,
    buffers: Buffers,
    pod: Arc<str>,
    framing: Framing,
    reservation: Option<Reservation>,
    /// When the part of a message that is on its way must be there.
    until: Option<Pin<Box<Sleep>>>,
    /// Something came since nothing was there to be read.
    moved: bool,
}

/// What the largest message so far takes beyond the usual.
struct Reservation {
    share: Arc<Share<Arc<str>>>,
    bytes: usize,
    /// Resolves when another stream has taken it.
    taken: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<B> CountedRequest<B> {
    /// Takes note of what was read.
    fn advance(&mut self, data: &[u8]) -> Result<(), Status> {
        let before = self.framing.came;
        let together = before + data.len();
        let came = self.framing.advance(data);
        // The decoder has all of it at once, also what ends with it.
        self.grow(together.saturating_sub(USUAL))
            .map_err(|_| no_room())?;
        if came == 0 {
            self.until = None;
            return Ok(());
        }
        let is_same_part = came == together && came / PART == before / PART;
        match &mut self.until {
            Some(_) if is_same_part => {}
            Some(timer) => timer.as_mut().reset(Instant::now() + PART_TIMEOUT),
            None => self.until = Some(Box::pin(sleep(PART_TIMEOUT))),
        }
        Ok(())
    }

    /// Holds room for so many bytes, if it is not held already.
    fn grow(&mut self, bytes: usize) -> Result<(), runtime::pool::Full> {
        let reserved = self.reservation.as_ref().map_or(0, |held| held.bytes);
        if bytes <= reserved {
            return Ok(());
        }
        if let Some(held) = &mut self.reservation {
            held.share.grow(bytes - reserved)?;
            held.bytes = bytes;
            return Ok(());
        }
        let share = self.buffers.room.take(Arc::clone(&self.pod), bytes)?;
        let share = Arc::new(share);
        let waiting = Arc::clone(&share);
        self.reservation = Some(Reservation {
            share,
            bytes,
            taken: Box::pin(async move { waiting.taken().await }),
        });
        Ok(())
    }

    /// Another stream needs the room more, whatever comes.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(held) = &mut self.reservation
            && held.taken.as_mut().poll(cx).is_ready()
        {
            self.reservation = None;
            return Poll::Ready(no_room());
        }
        Poll::Pending
    }

    /// Why the call has to end where nothing came.
    fn poll_stood_still(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if std::mem::take(&mut self.moved)
            && let Some(until) = &mut self.until
            && until.is_elapsed()
        {
            // Nothing was read for so long, and what lay there was not all that was sent.
            until.as_mut().reset(Instant::now() + PART_TIMEOUT);
        }
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            self.until = None;
            self.buffers.stood_still.inc();
            let seconds = PART_TIMEOUT.as_secs();
            let message = format!("a message began and stood still for {seconds} s");
            return Poll::Ready(Status::deadline_exceeded(message));
        }
        Poll::Pending
    }
}

fn no_room() -> Status {
    Status::resource_exhausted(
        "messages of all pods are too large at one time, and this pod's are among the largest",
    )
}

impl<B> Body for CountedRequest<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(status) = self.poll_taken(cx) {
            return Poll::Ready(Some(Err(status.into())));
        }
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let still = self.poll_stood_still(cx);
                return still.map(|status| Some(Err(status.into())));
            }
        };
        self.moved = true;
        let counted = frame.data_ref().map_or(Ok(()), |data| self.advance(data));
        Poll::Ready(Some(match counted {
            Ok(()) => Ok(frame),
            Err(status) => Err(status.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in a message a body is.
#[derive(Debug, Default)]
struct Framing {
    /// Bytes of it that have come, with its head.
    came: usize,
    /// Of the message without its head, as far as that is known.
    length: usize,
}

impl Framing {
    /// Goes on by these bytes. Returns how many have come of a message that has not ended.
    fn advance(&mut self, mut data: &[u8]) -> usize {
        while let Some((first, rest)) = data.split_first() {
            if self.came < HEAD {
                // Before its length stands whether it is compressed.
                if self.came > 0 {
                    self.length = (self.length << 8) | usize::from(*first);
                }
                self.came += 1;
                data = rest;
            } else {
                let more = data.len().min(HEAD + self.length - self.came);
                self.came += more;
                data = &data[more..];
            }
            if self.came >= HEAD && self.came == HEAD + self.length {
                *self = Self::default();
            }
        }
        self.came
    }
}

#[cfg(test)]
mod tests;
