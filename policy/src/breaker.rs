//! The circuit breaker: when calls to a Service stop, and how they resume.
//!
//! Each proxy counts what it sent and what failed ([`own::Breaker`]) and reports it to the
//! controller every second. The controller adds the reports up and opens the fleet's breaker when
//! the *median calling account* sees the failures ([`fleet::Fleet`]): one account with a broken
//! client, or a dishonest one, opens nothing for others. A proxy follows the fleet when it sees the
//! failures too, or has no numbers of its own; a proxy whose own numbers suffice does not wait for
//! the controller.
//!
//! Both go the same way: open, then some probes, then a ramp from 10 to 100 % in ten
//! seconds, because a Service that has just come back has cold caches and few connections.

pub mod fleet;
pub mod own;
mod streams;
mod window;

use std::time::Duration;

pub use streams::Stream;
pub use window::{Sum, Window};

/// From the first tenth to everything.
pub(crate) const RAMP: Duration = Duration::from_secs(10);

/// What is let through at the beginning of the ramp.
const FIRST_SHARE: f64 = 0.1;

/// The part that may pass, so long after closing began.
fn ramp(since: Duration) -> f64 {
    let part = since.as_secs_f64() / RAMP.as_secs_f64();
    FIRST_SHARE + (1.0 - FIRST_SHARE) * part.min(1.0)
}

/// What one proxy did in the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerCounts {
    /// Attempts that ended, or whose answers have lasted, probes not among them; and those
    /// that failed.
    pub sent: u32,
    pub failed: u32,
    /// Requests that the open breaker rejected.
    pub refused: u32,
    /// The same of probes.
    pub probes: u32,
    pub failed_probes: u32,
    /// Probes that were sent: what hangs ends late or never.
    pub sent_probes: u32,
}

/// The controller's command to a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FleetBreakerState {
    #[default]
    Closed,
    Open,
    /// Open, but for one probe of each proxy in this time.
    Probing {
        every: Duration,
    },
    /// Part of the requests pass, for so long already.
    Closing {
        since: Duration,
    },
}

#[cfg(test)]
mod tests;
