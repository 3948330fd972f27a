//! What an open stream has the process hold, for whom that counts.

use bytes::Bytes;
use runtime::occupancy::ReservedBytes;

/// Smaller chunks are not counted: that costs an allocation.
const WORTH_COUNTING: usize = 4 * 1024;
/// What bytes both ways by one stream cost for as long as it is open, however silent it is:
/// what `h2` keeps of it, its task, and the socket towards the application. As much as a
/// connection of which nothing is known, which it is to the application.
const BYTE_STREAM: usize = 8 * 1024;

/// What one stream costs.
#[derive(Debug)]
pub(crate) struct StreamCost {
    /// The stream itself. What was handed to `h2` counts beside it.
    stream: ReservedBytes,
    /// What waits for credit, and what its sender may have sent ahead.
    stuck: ReservedBytes,
}

impl StreamCost {
    pub(super) fn new(stream: ReservedBytes) -> Self {
        let stuck = stream.beside(0);
        Self { stream, stuck }
    }

    /// Of bytes both ways, for whom `other` counts.
    pub(super) fn of_bytes(other: &ReservedBytes) -> Self {
        Self::new(other.beside(BYTE_STREAM))
    }

    /// So many bytes are stuck from now on.
    pub(crate) fn note_stuck(&self, bytes: usize) {
        self.stuck.set(bytes);
    }

    /// The same chunk, which counts until the last of it is dropped.
    pub(crate) fn counted(&self, chunk: Bytes) -> Bytes {
        counted(chunk, &self.stream)
    }
}

/// A chunk that counts until it was sent.
struct CountedChunk {
    chunk: Bytes,
    _reserved: ReservedBytes,
}

impl AsRef<[u8]> for CountedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

/// The same chunk, which counts beside `reserved` until the last of it is dropped. Small
/// ones are not worth it.
pub(super) fn counted(chunk: Bytes, reserved: &ReservedBytes) -> Bytes {
    if chunk.len() < WORTH_COUNTING {
        return chunk;
    }
    let _reserved = reserved.beside(chunk.len());
    Bytes::from_owner(CountedChunk { chunk, _reserved })
}
