//! Tracks how much a server still takes of all bodies on one connection together.
//!
//! Beside the windows of its streams a connection has one of its own (RFC 9113, 5.2.1), and common
//! servers make it no larger than that of one stream. Uploads that are not read use it up, and then
//! no body on the connection moves, however eagerly its reader waits. The choice of a connection
//! for the next request needs to know.
//!
//! `h2` does not expose what is left of that window. That a stream waits for credit does not show
//! it either: a stream that has used up its own window blocks no other, and connections opened for
//! its sake would be many. So the frames that change the window are counted as they pass: DATA that
//! is written, and WINDOW_UPDATE of stream 0 that is read.
//!
//! Claims: attack-23

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

pub(super) const WINDOW_UPDATE: u8 = 8;
/// Bytes of the content of WINDOW_UPDATE.
pub(super) const INCREMENT: usize = 4;
/// The window of every connection until its server opens it further (RFC 9113, 6.9.2).
const INITIAL: i64 = 65_535;
/// A frame of the common size. Servers open a window again when half of it was read, or
/// sooner, and none is smaller than [`INITIAL`]: with less than this left something was
/// sent and not read.
const LEAST: i64 = 16 * 1024;
/// A window that was low for so long belongs to streams that stall. A reader opens it again within
/// milliseconds, also on a busy node, and a client that waits for an answer hardly notices.
pub(crate) const STALLED_AFTER: Duration = Duration::from_millis(100);
/// In place of a time: the window is not low.
const NEVER: u64 = u64::MAX;
/// The first byte of a TLS alert: what came is no text then.
const TLS_ALERT: usize = 0x15;
/// Bytes that are text, read as the length of a frame, are this or more: the first of them is a line
/// feed or a later character. No frame that is taken is as long.
const LENGTH_OF_TEXT: usize = 0x0a_00_00;

/// What a body that is sent on a connection now may expect of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    Enough,
    /// It may have to wait.
    Low,
    /// What was sent before stalls, and so would this one.
    Stalled,
}

/// Reports the state of the connection's window to the choice of a connection, to the sender of a
/// lost one whether its call went out, and to the opener of a connection whether its server speaks
/// something else. Written where the window becomes low or is no longer so, and by each head, and
/// not by every frame.
#[derive(Debug)]
pub(super) struct CreditSignal {
    started: Instant,
    /// In milliseconds since then.
    low_since: AtomicU64,
    /// The newest stream of which anything was written.
    newest: AtomicU32,
    /// Text came in place of a frame.
    is_text: AtomicBool,
}

impl Default for CreditSignal {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            low_since: AtomicU64::new(NEVER),
            newest: AtomicU32::new(0),
            is_text: AtomicBool::new(false),
        }
    }
}

impl CreditSignal {
    /// Whether the server answered in text, as one of HTTP/1.1 alone does.
    pub(super) fn is_text(&self) -> bool {
        self.is_text.load(Relaxed)
    }

    pub(super) fn credit(&self) -> Credit {
        let low_since = self.low_since.load(Relaxed);
        if low_since == NEVER {
            return Credit::Enough;
        }
        let low_for = self.now().saturating_sub(low_since);
        if Duration::from_millis(low_for) < STALLED_AFTER {
            Credit::Low
        } else {
            Credit::Stalled
        }
    }

    /// Whether the head of this stream was written, or a part of it by which its server knows it.
    pub(super) fn has_started(&self, stream: u32) -> bool {
        stream <= self.newest.load(Relaxed)
    }

    fn note(&self, is_low: bool) {
        let low_since = if is_low { self.now() } else { NEVER };
        self.low_since.store(low_since, Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// Counts what is left of a connection's window.
#[derive(Debug)]
pub(super) struct SendWindow {
    left: i64,
    signal: Arc<CreditSignal>,
}

impl SendWindow {
    pub(super) const fn new(signal: Arc<CreditSignal>) -> Self {
        Self {
            left: INITIAL,
            signal,
        }
    }

    /// The head of this stream was started, or its trailers.
    pub(super) fn began(&mut self, stream: u32) {
        self.signal.newest.fetch_max(stream, Relaxed);
    }

    /// A frame of DATA of this length was started.
    pub(super) fn sent(&mut self, length: u32) {
        self.change(-i64::from(length));
    }

    /// A frame of this length comes, by its head.
    pub(super) fn comes(&self, length: usize) {
        if length >= LENGTH_OF_TEXT && length >> 16 != TLS_ALERT {
            self.signal.is_text.store(true, Relaxed);
        }
    }

    /// The server opens the window by so many bytes: the content of its WINDOW_UPDATE.
    pub(super) fn open(&mut self, increment: [u8; INCREMENT]) {
        // The first bit has no meaning.
        self.change(i64::from(u32::from_be_bytes(increment) & 0x7fff_ffff));
    }

    fn change(&mut self, by: i64) {
        let was_low = self.left < LEAST;
        self.left = self.left.saturating_add(by);
        let is_low = self.left < LEAST;
        if is_low != was_low {
            self.signal.note(is_low);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use tokio::time::advance;

    use super::*;
    use crate::http2::frame_heads::{DATA, FrameHeads, HEAD, HEADERS, PREFACE};

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(HEAD + length, 0);
        bytes
    }

    fn window() -> (SendWindow, Arc<CreditSignal>) {
        let signal = Arc::<CreditSignal>::default();
        (SendWindow::new(Arc::clone(&signal)), signal)
    }

    fn wrote(
        heads: &mut FrameHeads,
        window: &mut SendWindow,
        parts: &[IoSlice<'_>],
        written: usize,
    ) {
        heads.wrote(parts, written, |kind, length, _| {
            if kind == DATA {
                window.sent(length);
            }
        });
    }

    #[tokio::test]
    async fn only_written_data_frames_count_regardless_of_splits() {
        let sent = [
            vec![b'p'; PREFACE],
            frame(4, 12),
            frame(HEADERS, 300),
            frame(DATA, 16_384),
            frame(DATA, 0),
            frame(DATA, 1),
            frame(WINDOW_UPDATE, INCREMENT),
            frame(DATA, 100),
        ]
        .concat();
        for size in [1, 2, 8, 9, 10, 33, 5000, 100_000] {
            let (mut window, _) = window();
            let mut heads = FrameHeads::of_client();
            for two in sent.chunks(2 * size) {
                let (one, other) = two.split_at(size.min(two.len()));
                let parts = [IoSlice::new(one), IoSlice::new(other)];
                // The rest of what was offered is offered again.
                wrote(&mut heads, &mut window, &parts, two.len() / 2);
                let rest = &two[two.len() / 2..];
                let parts = [IoSlice::new(rest), IoSlice::new(b"more")];
                wrote(&mut heads, &mut window, &parts, rest.len());
            }
            assert_eq!(window.left, INITIAL - 16_485, "{size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn low_window_is_stalled_until_it_reopens() {
        let (mut window, signal) = window();
        window.change(LEAST - INITIAL);
        assert_eq!(signal.credit(), Credit::Enough);
        window.change(-1);
        advance(STALLED_AFTER - Duration::from_millis(1)).await;
        assert_eq!(signal.credit(), Credit::Low);
        // Less than a frame is gone as soon as it is there.
        window.change(1 - LEAST);
        window.open(1_u32.to_be_bytes());
        advance(Duration::from_millis(1)).await;
        assert_eq!(signal.credit(), Credit::Stalled);
        window.open(1_000_000_u32.to_be_bytes());
        assert_eq!(signal.credit(), Credit::Enough);
    }
}
