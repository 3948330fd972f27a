//! Sizes and times of connections between two proxies, with where they come from.

use std::time::Duration;

/// Bytes that the kernel sends as one packet, if it has them, at the least: it splits
/// at 64 KiB less headers and at whole segments, so this is for MTUs near 9000.
/// Smaller ones leave more, and so does loopback.
const PACKET: usize = 7 * 8896;
/// Bytes of a stream in one frame. Each write is sent as soon as it can be, so what a write has
/// above whole packets becomes a packet of its own, and a packet costs nearly as much with one
/// byte as with 64 KiB. Two packets hold this: one would cost more, with three and four senders
/// and receivers wait for each other longer.
pub(crate) const LARGEST_CHUNK: usize = 121 * 1024;
/// Bytes of a stream that is not fast yet: one packet.
pub(crate) const SMALL_CHUNK: usize = 60 * 1024;
const _: () = {
    assert!(with_heads(LARGEST_CHUNK) <= 2 * PACKET, "needs a third");
    assert!(with_heads(SMALL_CHUNK) <= PACKET, "needs a second");
};

/// Bytes of a chunk with the heads of its frame and of its TLS records.
const fn with_heads(chunk: usize) -> usize {
    let frame = chunk + 9;
    frame + 22 * frame.div_ceil(16 * 1024)
}

/// Bytes that TLS takes at once: two largest frames with their heads.
pub(crate) const TLS_BUFFER: usize = 2 * (LARGEST_CHUNK + 9);

/// A peer that TCP alone watches is probed after this silence,
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(7);
/// and has this long to answer.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for a head, from its first byte.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(10);
