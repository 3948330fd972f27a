//! For how long a client is waited for that sends no more, while its request has no answer.
//!
//! Not for long: most of those that close while they wait have left, and each of them would keep
//! connections of every hop, and an application at work, until the answer.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A client that closed its direction is waited for so long, if no head of its answer comes.
const HALF_CLOSED: Duration = Duration::from_secs(2);

/// Whether the last request waits for the head of its answer.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Mutex<Wait>);

#[derive(Clone, Copy, Debug, Default)]
enum Wait {
    #[default]
    None,
    /// Its client may send more.
    Open,
    /// Its client sends no more, as was seen then.
    HalfClosed(Instant),
}

impl Unanswered {
    pub(super) fn begins(&self) {
        *self.0.lock() = Wait::Open;
    }

    /// The head of the answer is there.
    pub(super) fn ends(&self) {
        *self.0.lock() = Wait::None;
    }

    /// Whether its client has left, as far as that is assumed. `closes`: whether it has closed
    /// its direction by now.
    pub(super) fn is_given_up(&self, closes: impl FnOnce() -> bool) -> bool {
        let mut wait = self.0.lock();
        match *wait {
            Wait::None => false,
            Wait::Open => {
                if closes() {
                    *wait = Wait::HalfClosed(Instant::now());
                }
                false
            }
            Wait::HalfClosed(since) => since.elapsed() >= HALF_CLOSED,
        }
    }
}
