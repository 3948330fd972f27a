//! Ends connections whose peer sends almost nothing but control frames.
//!
//! A turn of a connection reads a few of them ([`super::inbox`]), so a flood does not block others.
//! Without an end it would still cost turns for as long as its peer likes, and the peer next to
//! nothing.
//!
//! Honest peers send many control frames in response: WINDOW_UPDATE of the stream and of the
//! connection for each frame of DATA at most, and the PINGs by which gRPC measures how much is
//! under way, one in a round trip and never without DATA. PRIORITY and RST_STREAM belong to
//! streams. So each frame of DATA that is sent, and each head that is sent or comes of a client,
//! subtracts from what others added; the remainder is a flood where it reaches [`MOST`] within
//! [`WITHIN`]. Envoy allows as many WINDOW_UPDATEs for a frame of DATA, and nginx eight times the
//! payload and 8 MiB more, both over the whole life of a connection: a quiet one could end for what
//! came together in days.
//!
//! Frames of DATA may be large, and some libraries report every few KiB as read (Go's server for
//! the stream and for the connection at each 4 KiB), so a large frame allows more
//! ([`BYTES_FOR_ONE`]). A peer may also read late, all at once, what was sent over a while. So the
//! allowance that was not used is kept, up to the size of a flood.
//!
//! A client's heads count as they come and not as they are answered: a client that cancels its
//! calls by the thousand resets each and gets no answer. So one head for twenty frames is no flood.
//! That costs turns, which are bounded, and a request for each head. A server's heads count as
//! control frames: each request that is sent allows its answer and trailers, and heads before it
//! (1xx), which `h2` would keep by the ten thousand until the answer is read.
//!
//! Claims: attack-17

use std::time::Duration;

use parking_lot::Mutex;
use runtime::rate::{Allowance, Rate};
use tokio::time::Instant;

/// Unsolicited control frames: two thousand a second. A peer that measured round trips by nothing
/// but PINGs, which none does, would have to be within half a millisecond.
pub(super) const MOST: u32 = 20_000;
const WITHIN: Duration = Duration::from_secs(10);
/// What each head, and each frame of DATA that is sent, may call for at least: what Envoy allows
/// for WINDOW_UPDATE.
const FOR_EACH: u32 = 20;
/// A frame of DATA may call for one for so many bytes of it: twice what Go's server sends.
const BYTES_FOR_ONE: u32 = 1024;

/// How often the log reports that a server was left, whichever: one that floods is called again and
/// again, by a connection each time.
pub(super) const LOG_RATE: Allowance = Allowance {
    burst: 1,
    every: Duration::from_secs(60),
};

/// Logs that a server was left for a flood, now and then.
pub(super) fn log_server_left() {
    static RATE: Mutex<Rate> = Mutex::new(Rate::new(LOG_RATE));
    if RATE.lock().take(Instant::now()).is_ok() {
        tracing::warn!("left a server that sent control frames that nothing called for");
    }
}

#[derive(Debug)]
pub(super) struct FloodDetector {
    /// When it was last counted from nothing.
    since: Instant,
    /// Control frames that nothing called for, and [`MOST`]: with less, more were called for than
    /// have come.
    count: u32,
}

impl FloodDetector {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            count: MOST,
        }
    }

    /// A head was sent, or came of a client.
    pub(super) const fn calls_for_some(&mut self) {
        self.count = self.count.saturating_sub(FOR_EACH);
    }

    /// A frame of DATA with so many bytes was sent.
    pub(super) fn data_calls_for_some(&mut self, bytes: u32) {
        let called = FOR_EACH.max(bytes / BYTES_FOR_ONE);
        self.count = self.count.saturating_sub(called);
    }

    /// A control frame came, or a head of a server. Whether these are a flood.
    pub(super) fn came(&mut self) -> bool {
        self.count += 1;
        // The clock is looked at no more often.
        if self.count < 2 * MOST {
            return false;
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.since) < WITHIN {
            return true;
        }
        (self.since, self.count) = (now, MOST);
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Whether so many are a flood that come at one moment.
    fn floods(detector: &mut FloodDetector, many: u32) -> bool {
        (0..many).any(|_| detector.came())
    }

    #[tokio::test(start_paused = true)]
    async fn frame_burst_is_flood_but_spread_out_is_not() {
        let mut detector = FloodDetector::new();
        assert!(!floods(&mut detector, MOST - 1));
        assert!(floods(&mut detector, 1));
        // A little less than two thousand a second.
        let mut detector = FloodDetector::new();
        for second in 0..1000 {
            assert!(!floods(&mut detector, MOST / 10 - 1), "after {second} s");
            advance(WITHIN / 10).await;
        }
        // And what came together before is forgiven once.
        assert!(floods(&mut detector, 2 * MOST));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_calls_for_some() {
        let mut detector = FloodDetector::new();
        for _ in 0..10 * MOST {
            detector.calls_for_some();
            assert!(!floods(&mut detector, FOR_EACH));
        }
        assert!(floods(&mut detector, MOST));
        let mut detector = FloodDetector::new();
        let more_for_each = (0..MOST).any(|_| {
            detector.calls_for_some();
            floods(&mut detector, 2 * FOR_EACH)
        });
        assert!(more_for_each, "twice as many are a flood");
    }

    /// As Go's server does where it may be sent frames of 121 KiB.
    #[tokio::test(start_paused = true)]
    async fn large_frame_permits_window_updates_for_each_part() {
        const FRAME: u32 = 121 * 1024;
        const UPDATES: u32 = 2 * FRAME / (4 * 1024);
        let mut detector = FloodDetector::new();
        for frame in 0..1000 {
            detector.data_calls_for_some(FRAME);
            assert!(!floods(&mut detector, UPDATES), "after {frame} frames");
        }
        let mut detector = FloodDetector::new();
        let flood = (0..1000).any(|_| {
            detector.data_calls_for_some(1024);
            floods(&mut detector, UPDATES)
        });
        assert!(flood, "as many for small ones");
    }

    #[tokio::test(start_paused = true)]
    async fn late_permitted_frames_may_come_together_up_to_flood() {
        let mut detector = FloodDetector::new();
        for _ in 0..10 * MOST {
            detector.data_calls_for_some(1);
        }
        assert!(!floods(&mut detector, 2 * MOST - 1), "all was called for");
        assert!(floods(&mut detector, 1), "saved without bound");
    }
}
