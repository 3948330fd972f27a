//! Whether one group of calls is worse than another, at every look, with few false alarms however
//! often is looked.
//!
//! Tests of the share of bad calls, by e-values (arXiv 2106.02693): four bets on how bad the
//! candidate is are paid as if its share were the worst that is still allowed. Their mean payment
//! reaches `1/alpha` by chance with a probability of `alpha` at most, whenever it is looked.
//!
//! In use: one [`Judge`] per check and run, [`Judge::look`] each second with the calls since, and
//! [`Judge::evidence`] against [`needed`].

use serde::{Deserialize, Serialize};

pub mod latency;

/// Calls, and those of them that are bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub calls: u64,
    pub bad: u64,
}

/// What is still allowed to the candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// A share of bad calls that is this much above the other group's, 0 to 1.
    Above(f64),
    /// This share of bad calls, whatever the other group has.
    Share(f64),
}

/// Which look it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The first one with calls in a step, of a run with so many steps.
    FirstOf(usize),
    Later,
}

/// The evidence against one candidate by one check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judge {
    _private: (),
}

impl Judge {
    /// Counts the calls since the look before; without calls of the candidate it is none.
    pub fn look(&mut self, _allowed: Allowed, _other: Counts, _candidate: Counts, _look: Look) {}

    /// The mean of the bets.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        0.0
    }

    /// Whether the candidate is worse than is allowed, with `needed` of [`needed`].
    #[must_use]
    pub fn is_worse(&self, needed: f64) -> bool {
        self.evidence() >= needed
    }
}

/// The evidence that decides, where a run has so many statistical checks: 200 for one, 400 for
/// each of two.
#[must_use]
pub fn needed(checks: usize) -> f64 {
    200.0 * checks.max(1) as f64
}
