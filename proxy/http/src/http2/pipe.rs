//! Sends the body of a message on an HTTP/2 stream, chunk by chunk, as flow control allows.
//!
//! One chunk is held at most, and beside it what comes next, so that the end of the stream goes
//! with the last DATA frame whenever it is known by then. While the chunk waits for credit the body
//! is still polled: a request that breaks off resets the stream at once. A response that breaks off
//! is sent as far as it came first.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body as HttpBody;
use runtime::occupancy::ReservedBytes;

use super::cost::{SendQueue, SmallChunks, StreamCost};
use crate::body::{self, Body, BoxError};
use crate::ending_body::{Undelivered, is_delivered};
use crate::stuck_upload::{Answered, StuckUpload};

/// Behind a chunk that is larger than this and waits for credit the body is not polled: what comes
/// would have to be held as well.
const LOOK_BEYOND: usize = 16 * 1024;

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The peer wants no more, or is gone.
    Peer,
    /// The peer has answered, and nothing moves. The stream is still open.
    Stuck,
    /// The body broke off. The stream is still open.
    Body(BoxError),
}

/// Waits until everything that was woken before has had its turn, so that the
/// connection sends what it holds: a reset drops what has not left.
pub(super) async fn flushed() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Sends `body`; ready when all of it was handed over.
pub(super) struct Pipe {
    stream: SendStream<Bytes>,
    body: Body,
    buffered: Bytes,
    next: Next,
    cost: Option<StreamCost>,
    small: SmallChunks,
    /// Bytes that may come of the body while what is held waits.
    ahead: usize,
    stuck: Option<StuckUpload>,
    /// What was sent of an answer that may break off yet.
    queue: Option<SendQueue>,
    /// What comes of one that did.
    undelivered: Undelivered,
}

/// What follows the chunk that is held.
enum Next {
    Unknown,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    Broken(BoxError),
}

impl Pipe {
    pub(super) fn new(stream: SendStream<Bytes>, body: Body) -> Self {
        Self {
            stream,
            body,
            buffered: Bytes::new(),
            next: Next::Unknown,
            cost: None,
            small: SmallChunks::new(),
            ahead: 0,
            stuck: None,
            queue: None,
            undelivered: Undelivered::default(),
        }
    }

    /// The body is that of a request, which is not sent for ever once it is answered.
    pub(super) fn until_answered(mut self, answered: Answered) -> Self {
        self.stuck = Some(StuckUpload::new(answered));
        self
    }

    /// Charges what is not taken to `stream`. `ahead`: so many bytes of the body its sender may
    /// send before a stop reaches it.
    pub(super) fn counted(mut self, stream: ReservedBytes, ahead: usize) -> Self {
        self.cost = Some(StreamCost::new(stream));
        self.ahead = ahead;
        self
    }

    fn note(&self, stuck: bool) {
        if let Some(cost) = &self.cost {
            let behind = match &self.next {
                Next::Data(data) => data.len() + self.ahead,
                // Nothing comes any more.
                Next::Broken(_) => 0,
                _ => self.ahead,
            };
            let bytes = self.buffered.len() + behind;
            cost.note_stuck(if stuck { bytes } else { 0 });
        }
    }

    /// Waits until what was sent of an answer has left, or its client is gone, or takes nothing.
    pub(super) async fn drained(&mut self) {
        flushed().await;
        let Some(queue) = &self.queue else { return };
        let mut undelivered = Undelivered::default();
        poll_fn(|cx| {
            let left = queue.left(cx);
            if left == 0 || self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            undelivered.poll_abandoned(left, cx)
        })
        .await;
    }

    /// For a replacement of the rest of a body.
    pub(super) fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }

    /// Finds out what comes next, if that can be known now.
    fn look(&mut self, cx: &mut Context<'_>) {
        while matches!(self.next, Next::Unknown) {
            if self.body.is_end_stream() {
                self.next = Next::End;
                return;
            }
            self.next = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => Next::End,
                Poll::Ready(Some(Err(error))) => {
                    // What it came by is not held for a client that is slow.
                    self.body = body::empty();
                    Next::Broken(error)
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    // Has no meaning, and costs the receiver as much as a full one.
                    Ok(data) if data.is_empty() => Next::Unknown,
                    Ok(data) => Next::Data(data),
                    Err(frame) => frame.into_trailers().map_or(Next::Unknown, Next::Trailers),
                },
            };
        }
    }

    /// The same chunk, as it is handed to `h2`.
    fn queued(&mut self, chunk: Bytes) -> Bytes {
        let may_break = !matches!(self.next, Next::End | Next::Trailers(_));
        let queue = if may_break && self.stuck.is_none() {
            Some(&*self.queue.get_or_insert_default())
        } else {
            None
        };
        self.small.queued(chunk, self.cost.as_ref(), queue)
    }

    /// Waits until the peer takes at least one byte of this stream.
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        // Not the whole chunk: credit that one stream has and cannot use yet is missing elsewhere.
        // `h2` requests the rest once it has the chunk.
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Stopped::Peer)),
                Poll::Pending => return self.poll_abandoned(cx),
            }
        }
        self.moves();
        Poll::Ready(Ok(()))
    }

    fn moves(&mut self) {
        if let Some(stuck) = &mut self.stuck {
            stuck.moves();
        }
    }

    /// While what is held waits for credit: ready once the body has broken off, and the wait is in
    /// vain or has no receiver.
    fn poll_undelivered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Next::Broken(error) = &self.next else {
            return Poll::Pending;
        };
        // No server needs the beginning of a request.
        if self.stuck.is_some() || !is_delivered(&**error) {
            return Poll::Ready(());
        }
        let left = self.queue.as_ref().map_or(0, |queue| queue.left(cx));
        ready!(self.undelivered.poll_abandoned(left, cx));
        // Nor is there a receiver for what was sent.
        self.queue = None;
        Poll::Ready(())
    }

    /// While nothing moves: whether that goes on for too long.
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        match &mut self.stuck {
            Some(stuck) => stuck.poll_abandoned(cx).map(|()| Err(Stopped::Stuck)),
            None => Poll::Pending,
        }
    }
}

impl Future for Pipe {
    type Output = Result<(), Stopped>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if this.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Stopped::Peer));
            }
            let waits = this.buffered.len() > LOOK_BEYOND && {
                // Without a request for it there is none, however open the window is.
                this.stream.reserve_capacity(1);
                this.stream.capacity() == 0
            };
            if !waits {
                this.look(cx);
            }
            if this.buffered.is_empty() {
                match std::mem::replace(&mut this.next, Next::Unknown) {
                    Next::Unknown => return this.poll_abandoned(cx),
                    Next::Data(data) => {
                        this.buffered = data;
                        this.moves();
                        continue;
                    }
                    Next::Trailers(trailers) => {
                        this.stream.reserve_capacity(0);
                        let sent = this.stream.send_trailers(trailers);
                        return Poll::Ready(sent.map_err(|_| Stopped::Peer));
                    }
                    // Known too late for the last frame, or there was none.
                    Next::End => {
                        let sent = this.stream.send_data(Bytes::new(), true);
                        return Poll::Ready(sent.map_err(|_| Stopped::Peer));
                    }
                    Next::Broken(error) => return Poll::Ready(Err(Stopped::Body(error))),
                }
            }
            let credit = this.poll_credit(cx);
            this.note(credit.is_pending());
            match credit {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(stopped)) => return Poll::Ready(Err(stopped)),
                Poll::Pending => {
                    ready!(this.poll_undelivered(cx));
                    this.buffered = Bytes::new();
                    continue;
                }
            }
            let end = matches!(this.next, Next::End);
            let chunk = std::mem::take(&mut this.buffered);
            let chunk = this.queued(chunk);
            let sent = this.stream.send_data(chunk, end);
            match sent {
                Err(_) => return Poll::Ready(Err(Stopped::Peer)),
                Ok(()) if end => return Poll::Ready(Ok(())),
                Ok(()) => {}
            }
        }
    }
}

/// Sends the body of a request. True when all of it was sent.
pub(super) async fn send_body(mut pipe: Pipe) -> bool {
    match Pin::new(&mut pipe).await {
        Ok(()) => return true,
        // The answer has the reason.
        Err(Stopped::Peer) => {}
        Err(Stopped::Stuck) => {
            tracing::debug!("nothing moves of a body behind its answer");
            // Libraries take NO_ERROR of a client for the end of its body.
            pipe.into_stream().send_reset(h2::Reason::CANCEL);
        }
        Err(Stopped::Body(error)) => {
            tracing::debug!(%error, "the body of a request broke off");
            flushed().await;
            pipe.into_stream().send_reset(h2::Reason::CANCEL);
        }
    }
    false
}
