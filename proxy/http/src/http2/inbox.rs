//! Queues small DATA frames of a stream until their reader takes them.
//!
//! `h2` keeps each DATA frame by itself, and ends a connection on which some ten thousands of small
//! ones wait, with every stream on it. A reader that is slower than a server of small messages is
//! no attack. So the task of the connection takes them out of `h2` where many came, and joins what
//! belongs to one stream. Credit is given back only for what was read, so a stream holds no more
//! than its window here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, StreamId};
use parking_lot::Mutex;

use weft_proxy_net::chunk::LARGEST_CHUNK;

/// A frame with less is small; `h2` counts those as well.
pub(super) const SMALL: usize = 256;
/// The connection's task looks after so many small ones.
const LOOK_AFTER: usize = 256;
/// And reads no further after so many before it has looked.
const MOST: usize = 1024;
/// Chunks that are there already are passed on together up to about so much.
const JOINED: usize = 4 * 1024;
/// Those with less are. Each that is passed on by itself costs a frame, and a record of TLS or a
/// call of the kernel; a copy costs less than that.
const JOINABLE: usize = 2 * 1024;

/// Frames that the connection's task reads in one turn, beside those of bodies. All connections
/// share a thread, and a read may bring hundreds of PINGs, SETTINGS or WINDOW_UPDATEs. So it may
/// of heads that are reset at once, which `h2` keeps until it has read all that there is: where it
/// ends no connection for some of them, as between proxies, they count as well. And so do heads of
/// a server, which may be without end (1xx).
const TURN: usize = 256;

/// Small frames of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct SmallFrames {
    counts: Arc<Counts>,
    /// What begins and resets streams counts for a turn.
    streams: bool,
}

#[derive(Debug, Default)]
struct Counts {
    /// Frames of DATA since the last look.
    data: AtomicUsize,
    /// All that count for this turn.
    turn: AtomicUsize,
    /// They are a flood, and the connection is to end.
    flood: AtomicBool,
}

impl SmallFrames {
    /// One with data came.
    pub(super) fn came(&self) {
        self.counts.data.fetch_add(1, Relaxed);
    }

    /// Whether what begins and resets streams counts for a turn.
    pub(super) const fn paces_streams(&self) -> bool {
        self.streams
    }

    /// One came that counts.
    pub(super) fn any_came(&self) {
        self.counts.turn.fetch_add(1, Relaxed);
    }

    /// They are a flood: nothing more is read.
    pub(super) fn flood(&self) {
        self.counts.flood.store(true, Relaxed);
    }

    fn are_flood(&self) -> bool {
        self.counts.flood.load(Relaxed)
    }

    /// To be called by the connection's task before it reads.
    pub(super) fn begin_turn(&self) {
        self.counts.turn.store(0, Relaxed);
    }

    /// True when nothing more may be read before the next look, before the next turn, or ever.
    pub(super) fn are_too_many(&self) -> bool {
        let Counts { data, turn, .. } = &*self.counts;
        data.load(Relaxed) >= MOST || turn.load(Relaxed) >= TURN || self.are_flood()
    }
}

/// The streams of one connection that may have something to read.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    small: SmallFrames,
    open: Mutex<HashMap<StreamId, Weak<Mutex<UnreadFrames>>>>,
}

/// What came of one stream.
#[derive(Debug)]
pub(super) struct UnreadFrames {
    pub(super) stream: RecvStream,
    /// Taken out of `h2`.
    joined: BytesMut,
    /// The reader that waits for more.
    reader: Option<Waker>,
}

/// One stream among them.
#[derive(Debug)]
pub(super) struct Inbox {
    id: StreamId,
    unread: Arc<Mutex<UnreadFrames>>,
    all: Arc<Inboxes>,
}

impl Inboxes {
    pub(super) fn small_frames(&self, paced: bool) -> SmallFrames {
        SmallFrames {
            streams: paced,
            ..self.small.clone()
        }
    }

    pub(super) fn begin_turn(&self) {
        self.small.begin_turn();
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.small.are_flood()
    }

    pub(super) fn open(self: &Arc<Self>, stream: RecvStream) -> Inbox {
        let id = stream.stream_id();
        let ended = stream.is_end_stream();
        let unread = Arc::new(Mutex::new(UnreadFrames {
            stream,
            joined: BytesMut::new(),
            reader: None,
        }));
        if !ended {
            self.open.lock().insert(id, Arc::downgrade(&unread));
        }
        let all = Arc::clone(self);
        Inbox { id, unread, all }
    }

    /// Takes out of `h2` what waits there, where many small frames came. To be called by
    /// the connection's task after it has read.
    pub(super) fn look(&self) {
        let data = &self.small.counts.data;
        if data.load(Relaxed) < LOOK_AFTER {
            return;
        }
        data.store(0, Relaxed);
        let open: Vec<_> = self
            .open
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for unread in open {
            unread.lock().take_out();
        }
    }
}

impl UnreadFrames {
    fn take_out(&mut self) {
        // `h2` wakes the task that polled last, so the poll uses the reader's waker.
        let reader = self.reader.clone();
        let mut cx = Context::from_waker(reader.as_ref().unwrap_or(Waker::noop()));
        while let Poll::Ready(Some(Ok(data))) = self.stream.poll_data(&mut cx) {
            self.joined.extend_from_slice(&data);
        }
    }

    /// As [`RecvStream::poll_data`], with small chunks together.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if self.joined.is_empty() {
            let first = match self.poll_stream(cx) {
                Poll::Ready(Some(Ok(data))) if data.len() < JOINABLE => data,
                other => return other,
            };
            // One that is alone is passed on as it is, without a copy.
            let Poll::Ready(Some(Ok(second))) = self.poll_stream(cx) else {
                return Poll::Ready(Some(Ok(first)));
            };
            let both = first.len() + second.len();
            self.joined
                .reserve(both.max((2 * both).min(JOINED + JOINABLE)));
            self.joined.extend_from_slice(&first);
            self.joined.extend_from_slice(&second);
        }
        while self.joined.len() < JOINED
            && let Poll::Ready(Some(Ok(data))) = self.poll_stream(cx)
        {
            self.joined.extend_from_slice(&data);
        }
        if self.joined.len() <= LARGEST_CHUNK {
            // What is left behind would be all that ever waited, for as long as the stream is.
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.joined).freeze())));
        }
        Poll::Ready(Some(Ok(self.joined.split_to(LARGEST_CHUNK).freeze())))
    }

    /// What `h2` has. An end or an error comes again with the next poll.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let polled = self.stream.poll_data(cx);
        if polled.is_pending() {
            self.waits(cx);
        }
        polled
    }

    fn waits(&mut self, cx: &Context<'_>) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => self.reader = Some(cx.waker().clone()),
        }
    }

    /// Nothing comes any more, and nothing waits.
    pub(super) fn is_end_stream(&self) -> bool {
        self.joined.is_empty() && self.stream.is_end_stream()
    }
}

impl Inbox {
    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, UnreadFrames> {
        self.unread.lock()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.all.open.lock().remove(&self.id);
    }
}
