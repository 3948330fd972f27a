//! The memory that an open stream costs the process, the permit that it is charged to, and which
//! part of it waits in `h2`.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Context;

use bytes::Bytes;
use futures::task::AtomicWaker;
use runtime::occupancy::ReservedBytes;

/// Smaller chunks are slices of buffers that are larger than they are.
const SMALL: usize = 4 * 1024;
/// What `h2` keeps of each chunk beside its bytes.
const QUEUED: usize = 512;
/// What bytes both ways by one stream cost for as long as it is open, however silent it is:
/// what `h2` keeps of it, its task, and the socket towards the application. As much as a
/// connection of which nothing is known, which it is to the application.
const BYTE_STREAM: usize = 8 * 1024;

/// What one stream costs.
#[derive(Debug)]
pub struct StreamCost {
    /// The stream itself. What was handed to `h2` counts beside it.
    stream: ReservedBytes,
    /// What waits for credit, and what its sender may have sent ahead.
    stuck: ReservedBytes,
}

/// The small chunks of one stream. `h2` keeps them until they are sent, and each of them the
/// buffer that it was read into, some KiB for what may be a single byte. So they are copied,
/// save the first: most streams have no other.
#[derive(Debug)]
pub(super) struct SmallChunks {
    one_came: bool,
}

impl SmallChunks {
    pub(super) const fn new() -> Self {
        Self { one_came: false }
    }

    /// The same chunk, in a buffer of its own where it is small, charged to `cost`, if any. The
    /// first small chunk stays as it was: both cost an allocation. `queue` is notified when the
    /// chunk has left.
    pub(super) fn queued(
        &mut self,
        chunk: Bytes,
        cost: Option<&StreamCost>,
        queue: Option<&SendQueue>,
    ) -> Bytes {
        let is_small = chunk.len() < SMALL;
        if is_small && !std::mem::replace(&mut self.one_came, true) {
            return match queue {
                Some(queue) => queue.queued(chunk),
                None => chunk,
            };
        }
        let chunk = if is_small {
            Bytes::copy_from_slice(&chunk)
        } else {
            chunk
        };
        match (cost, queue) {
            (Some(cost), queue) => {
                let place = queue.map(SendQueue::enter);
                beside(chunk, QUEUED, &cost.stream, place)
            }
            (None, Some(queue)) => queue.queued(chunk),
            (None, None) => chunk,
        }
    }
}

impl StreamCost {
    pub(super) fn new(stream: ReservedBytes) -> Self {
        let stuck = stream.beside(0);
        Self { stream, stuck }
    }

    /// Of bytes both ways, charged where `other` is.
    pub(super) fn of_bytes(other: &ReservedBytes) -> Self {
        Self::new(other.beside(BYTE_STREAM))
    }

    /// So many bytes are stuck from now on.
    pub(crate) fn note_stuck(&self, bytes: usize) {
        self.stuck.set(bytes);
    }

    /// The same chunk, which counts until the last of it is dropped.
    pub fn counted(&self, chunk: Bytes) -> Bytes {
        beside(chunk, QUEUED, &self.stream, None)
    }
}

/// A chunk that counts until it was sent.
struct CountedChunk {
    chunk: Bytes,
    _reserved: ReservedBytes,
    _place: Option<QueuePlace>,
}

impl AsRef<[u8]> for CountedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

/// The same chunk, which counts beside `reserved` until the last of it is dropped. Small
/// ones are not worth it.
pub(super) fn counted(chunk: Bytes, reserved: &ReservedBytes) -> Bytes {
    if chunk.len() < SMALL {
        return chunk;
    }
    beside(chunk, 0, reserved, None)
}

fn beside(chunk: Bytes, more: usize, reserved: &ReservedBytes, place: Option<QueuePlace>) -> Bytes {
    let _reserved = reserved.beside(chunk.len() + more);
    Bytes::from_owner(CountedChunk {
        chunk,
        _reserved,
        _place: place,
    })
}

/// What was handed to `h2` of one stream and has not left it.
///
/// `h2` drops that when the stream is reset, and does not report how much it is. So a sender that
/// may have to reset a stream behind what it sends counts the chunks until `h2` has dropped them,
/// which it does as soon as the last byte of one was written.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a chunk lies in keeps so many bytes.
    fn slices(many: usize) -> Vec<Bytes> {
        let read = Bytes::from(vec![b'x'; 8 * 1024]);
        (0..many).map(|at| read.slice(at..=at)).collect()
    }

    fn lies_within(chunk: &Bytes, other: &Bytes) -> bool {
        let from = other.as_ptr() as usize;
        (from..from + 8 * 1024).contains(&(chunk.as_ptr() as usize))
    }

    #[test]
    fn small_chunks_release_read_buffer_except_first() {
        let mut chunks = SmallChunks::new();
        let read = slices(4);
        for (at, chunk) in read.iter().enumerate() {
            let passed = chunks.queued(chunk.clone(), None, None);
            assert_eq!(passed, chunk);
            assert_eq!(lies_within(&passed, &read[0]), at == 0, "{at}");
        }
        let large = Bytes::from(vec![b'y'; SMALL]);
        let passed = chunks.queued(large.clone(), None, None);
        assert_eq!(passed.as_ptr(), large.as_ptr());
    }
}
