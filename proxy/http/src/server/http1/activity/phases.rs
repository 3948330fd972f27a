//! The phases of a connection of HTTP/1.1 that exclude each other, each as one value.
//!
//! The parts that see the connection share them, and each reads and changes a phase by itself.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A client that closed its direction is waited for so long, if no head of its answer comes.
///
/// Not for long: most of those that close while they wait have left, and each of them would keep
/// connections of every hop, and an application at work, until the answer.
const HALF_CLOSED: Duration = Duration::from_secs(2);

/// The head of the next request.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum NextHead {
    /// The last request has not been read to its end, or its answer not been written.
    NotExpected,
    /// Whatever came before has been read to its end, and nothing of the head has come.
    Expected,
    /// Bytes of it have come.
    Started,
}

/// A protocol that takes the place of HTTP.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum OtherProtocol {
    NotRequested,
    /// A request of this connection has asked for one.
    Requested,
    /// The last request does, and waits for its answer.
    Awaited,
}

/// A request whose head hyper has, before it is admitted.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Queue {
    Empty,
    /// It waits.
    Waits,
    /// Its sender has left while it waited.
    Left,
}

impl From<NextHead> for u8 {
    fn from(phase: NextHead) -> Self {
        phase as Self
    }
}

impl From<OtherProtocol> for u8 {
    fn from(phase: OtherProtocol) -> Self {
        phase as Self
    }
}

impl From<Queue> for u8 {
    fn from(phase: Queue) -> Self {
        phase as Self
    }
}

/// A phase that is shared.
#[derive(Debug)]
pub(super) struct AtomicPhase<P> {
    phase: AtomicU8,
    of: PhantomData<P>,
}

impl<P: Into<u8>> AtomicPhase<P> {
    pub(super) fn new(phase: P) -> Self {
        Self {
            phase: AtomicU8::new(phase.into()),
            of: PhantomData,
        }
    }

    pub(super) fn is(&self, phase: P) -> bool {
        self.phase.load(Relaxed) == phase.into()
    }

    pub(super) fn set(&self, phase: P) {
        self.phase.store(phase.into(), Relaxed);
    }

    /// Moves to the phase `to` if this is the phase `from`. Returns whether it was.
    pub(super) fn advance(&self, from: P, to: P) -> bool {
        let (from, to) = (from.into(), to.into());
        // The exchange only where it changes something: reads and requests are many.
        self.phase.load(Relaxed) == from
            && self
                .phase
                .compare_exchange(from, to, Relaxed, Relaxed)
                .is_ok()
    }
}

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
    pub(super) fn is_abandoned(&self, closes: impl FnOnce() -> bool) -> bool {
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
