//! The state of a client whose frames are filtered: how much of a head or trailers has arrived, its
//! answer to its server's GOAWAY that is passed on later, and what it has not taken of its
//! responses.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use runtime::occupancy::Permit;

use crate::head::HEADER_COUNT;
use crate::http2::field_count::FieldCount;
use crate::http2::graceful_shutdown::LateAnswer;

const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// Bytes of a HEADERS frame before its block: where padding has a length, and which
/// other stream comes first.
const PAD_LENGTH: usize = 1;
const PRIORITY_FIELDS: usize = 5;

/// How far a block of fields has come: a head, or trailers. `h2` keeps what has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    None,
    /// Another frame goes on with it.
    GoesOn,
    /// The frame that is coming ends it.
    Ends,
}

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Client {
    /// The newest stream that it began.
    newest: u32,
    /// Of trailers that are coming: bytes that are no block, and the fields. Padding
    /// behind the block counts as block, which `h2` would not read: at worst a field a byte.
    pub(super) trailers: Option<(usize, FieldCount)>,
    pub(super) block: Block,
    /// Learns of heads when they begin and when they have come.
    permit: Arc<Permit>,
    pub(super) late: LateAnswer,
    /// Of answers to it.
    pub(super) unflushed: Unflushed,
}

impl Client {
    pub(super) fn new(permit: Arc<Permit>) -> Self {
        Self {
            newest: 0,
            trailers: None,
            block: Block::None,
            permit,
            late: LateAnswer::none(),
            unflushed: Unflushed::new(),
        }
    }

    /// A frame of a block of fields begins.
    pub(super) fn block_begins(&mut self, flags: u8) {
        let goes_on = flags & END_HEADERS == 0;
        self.block = if goes_on { Block::GoesOn } else { Block::Ends };
        self.permit.head_begins();
    }

    /// The reader gets the rest of the frame that was coming.
    pub(super) fn frame_came(&mut self) {
        if self.block != Block::Ends {
            return;
        }
        self.block = Block::None;
        self.permit.head_came();
    }

    /// A HEADERS frame begins: it holds trailers where its stream is no new one.
    pub(super) fn trailers_of(&mut self, flags: u8, stream: u32) {
        if stream > self.newest {
            (self.newest, self.trailers) = (stream, None);
            return;
        }
        let mut before = 0;
        if flags & PADDED != 0 {
            before += PAD_LENGTH;
        }
        if flags & PRIORITY != 0 {
            before += PRIORITY_FIELDS;
        }
        self.trailers = Some((before, FieldCount::default()));
    }

    /// Counts the fields where `content` is of trailers.
    pub(super) fn look(&mut self, content: &[u8]) -> io::Result<()> {
        let Some((before, count)) = &mut self.trailers else {
            return Ok(());
        };
        let skipped = (*before).min(content.len());
        *before -= skipped;
        count.feed(&content[skipped..]);
        if count.fields() > HEADER_COUNT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "trailers of more than 100 fields",
            ));
        }
        Ok(())
    }
}

/// As many heads of common size as a client has streams fit several times, and more than one
/// frame of [`crate::http2::MESH`].
const MOST: u32 = 1024 * 1024;

/// Bounds what `h2` keeps of answers that a client does not take.
///
/// Frames without content are written into one buffer of the connection, which `h2` empties once
/// all of it has left, and doubles where the next head does not fit. Credit bounds what bodies put
/// there, and a stream that has ended bounds nothing. So a client that takes next to nothing, and
/// sends requests for answers without a body, would have it grow for as long as it goes on. It is
/// no longer served.
#[derive(Debug)]
pub(super) struct Unflushed {
    /// Bytes that have left of what was handed over since all of it had.
    sent: u32,
}

impl Unflushed {
    pub(super) const fn new() -> Self {
        Self { sent: 0 }
    }

    /// So many bytes were `offered` to the connection, with this outcome.
    ///
    /// # Errors
    /// When too much has come together.
    pub(super) fn note(
        &mut self,
        offered: usize,
        written: &Poll<io::Result<usize>>,
    ) -> io::Result<()> {
        let now = match written {
            Poll::Ready(Ok(written)) => *written,
            Poll::Ready(Err(_)) => return Ok(()),
            Poll::Pending => 0,
        };
        if now == offered {
            self.sent = 0;
            return Ok(());
        }
        // More than fits is more than may be.
        let bytes = |many| u32::try_from(many).unwrap_or(u32::MAX);
        self.sent = self.sent.saturating_add(bytes(now));
        if self.sent.saturating_add(bytes(offered - now)) <= MOST {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the client takes too little of its answers",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Unflushed;
    use std::task::Poll;

    const OFFERED: usize = 16 * 1024;
    const MOST: usize = super::MOST as usize;

    #[test]
    fn client_reading_almost_nothing_is_no_longer_served() {
        let mut unflushed = Unflushed::new();
        let mut offered = OFFERED;
        let steps = (0..10_000).find(|_| {
            offered += 500;
            unflushed.note(offered, &Poll::Pending).is_err()
        });
        assert!(
            steps.is_some_and(|steps| steps >= (MOST - OFFERED) / 500 - 1),
            "{steps:?}"
        );
        // What has left of one buffer counts as well: nothing of it is free before all is.
        let mut unflushed = Unflushed::new();
        let steps = (0..10_000).find(|_| unflushed.note(OFFERED, &Poll::Ready(Ok(500))).is_err());
        assert_eq!(steps, Some((MOST - OFFERED) / 500 + 1));
    }

    #[test]
    fn client_draining_everything_occasionally_is_served_forever() {
        let mut unflushed = Unflushed::new();
        for _ in 0..1000 {
            for left in (1..=8).rev() {
                let part = Poll::Ready(Ok(OFFERED));
                unflushed.note(left * OFFERED, &part).unwrap();
            }
        }
    }
}
