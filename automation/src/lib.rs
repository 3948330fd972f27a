//! The decisions of CanaryReleases and FaultExperiments: whether one group of calls is worse than
//! another, and what a run does next.
//!
//! Everything here is a function of its arguments, as in `policy`: time, counts and what was seen
//! of the cluster are handed in, so a test replays a day's release in a millisecond. The
//! controller's `automation` reads, writes and counts.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod experiment;
pub mod judge;
pub mod release;
pub mod schedule;

#[cfg(test)]
mod testing;
