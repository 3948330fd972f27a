//! What was handed to `h2` of one stream and has not left it.
//!
//! `h2` drops that when the stream is reset, and does not report how much it is. So a sender that
//! may have to reset a stream behind what it sends counts the chunks until `h2` has dropped them,
//! which it does as soon as the last byte of one was written.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Context;

use bytes::Bytes;
use futures::task::AtomicWaker;

/// The chunks of one stream that have not left.
#[derive(Debug, Default)]
pub(super) struct SendQueue(Arc<Chunks>);

#[derive(Debug, Default)]
struct Chunks {
    count: AtomicUsize,
    /// The number of chunks left has been queried, which is rare.
    is_watched: AtomicBool,
    /// The task that waits for one to leave.
    waits: AtomicWaker,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct QueuePlace(Arc<Chunks>);

impl SendQueue {
    /// For the next chunk.
    pub(super) fn enter(&self) -> QueuePlace {
        self.0.count.fetch_add(1, Relaxed);
        QueuePlace(Arc::clone(&self.0))
    }

    /// The same chunk, which is one of them.
    pub(super) fn queued(&self, chunk: Bytes) -> Bytes {
        Bytes::from_owner(QueuedChunk {
            chunk,
            _place: self.enter(),
        })
    }

    /// How many are left. Wakes when that gets less.
    pub(super) fn left(&self, cx: &Context<'_>) -> usize {
        self.0.waits.register(cx.waker());
        self.0.is_watched.store(true, SeqCst);
        self.0.count.load(SeqCst)
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, SeqCst);
        // In one order with the query: either this sees it, or it sees this.
        if self.0.is_watched.load(SeqCst) {
            self.0.waits.wake();
        }
    }
}

struct QueuedChunk {
    chunk: Bytes,
    _place: QueuePlace,
}

impl AsRef<[u8]> for QueuedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}
