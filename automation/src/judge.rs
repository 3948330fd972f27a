//! Decides by statistics whether one group of calls is worse than another: a candidate's than the
//! stable revision's, or harmed calls than others. It may be evaluated every second (each time is a
//! look), and still raises few false alarms.
//!
//! Tests of the share of bad calls, by e-values (arXiv 2106.02693): four bets on how bad the
//! candidate is are paid as if its share were the worst that is still allowed. Under any share that
//! is allowed a look pays 1 in the mean at most, so the bets' mean reaches `1/alpha` with a
//! probability of `alpha` at most, whenever it is looked.
//!
//! A look compares only its own calls. So what hits both groups cancels, and shares may drift. A
//! fault may also start late: a little is bet anew at each look, and more when a step starts.
//!
//! In use: one [`Judge`] per check and run, [`Judge::look`] each second with the calls since, and
//! [`Judge::evidence`] against [`needed`].

use serde::{Deserialize, Serialize};

pub mod latency;

/// Points above what is allowed that are bet on: a little worse, and half of the calls bad.
const BETS: [f64; 4] = [0.02, 0.05, 0.20, 0.60];
/// The largest share of bad calls that is bet on: a good call must not end a bet for good.
const LARGEST_BET: f64 = 0.98;
/// A look pays no more, so that one burst decides nothing alone: from 1/8 to 400 it takes three.
const MOST_OF_A_LOOK: f64 = 30.0;
/// The other group's past weighs this much less with every look: half of it is 3 minutes old.
const MEMORY: f64 = 0.996;
/// The other group's share of bad calls before it has any: 1 of 400.
const PRIOR_BAD: f64 = 1.0;
const PRIOR_CALLS: f64 = 400.0;
/// All that is bet is 1: half of it at first looks of steps, half at the others of two hours.
const FIRST_LOOKS: f64 = 0.5;
const LATER_LOOKS: u32 = 7200;
/// By chance 0.5 % of runs are worse, by all their checks together.
const EVIDENCE_OF_ONE: f64 = 200.0;
/// Each halves the interval in which a share is looked for: to 1e-12.
const HALVINGS: usize = 40;

/// Calls, and those of them that are bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Counts {
    pub calls: u64,
    pub bad: u64,
}

impl Counts {
    /// Adds others to these.
    pub fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.bad = self.bad.saturating_add(other.bad);
    }

    /// Bad calls, of all those that there are.
    fn bad(self) -> f64 {
        self.bad.min(self.calls) as f64
    }

    fn good(self) -> f64 {
        self.calls.saturating_sub(self.bad) as f64
    }
}

impl From<(u64, u64)> for Counts {
    fn from((calls, bad): (u64, u64)) -> Self {
        Self { calls, bad }
    }
}

impl From<Counts> for (u64, u64) {
    fn from(counts: Counts) -> Self {
        (counts.calls, counts.bad)
    }
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
pub struct Judge {
    /// What each of [`BETS`] has been paid.
    bets: [f64; BETS.len()],
    /// The other group's past, the older the less.
    calls: f64,
    bad: f64,
    /// What has been bet at first looks, and how many others there were.
    first: f64,
    later: u32,
}

/// In seven digits, since the text is bounded.
#[derive(Serialize, Deserialize)]
struct Packed([f32; BETS.len()], f32, f32, f32, u32);

impl From<Judge> for Packed {
    fn from(judge: Judge) -> Self {
        Self(
            judge.bets.map(|bet| bet as f32),
            judge.calls as f32,
            judge.bad as f32,
            judge.first as f32,
            judge.later,
        )
    }
}

impl From<Packed> for Judge {
    fn from(packed: Packed) -> Self {
        let Packed(bets, calls, bad, first, later) = packed;
        let number = |number: f32| f64::from(number).max(0.0);
        let calls = number(calls);
        Self {
            bets: bets.map(number),
            calls,
            bad: number(bad).min(calls),
            first: number(first),
            later,
        }
    }
}

impl Judge {
    /// Counts the calls since the look before; without calls of the candidate it is none.
    pub fn look(&mut self, allowed: Allowed, other: Counts, candidate: Counts, look: Look) {
        if candidate.calls > 0 {
            let stake = self.stake(look);
            let past = self.past();
            for (evidence, points) in self.bets.iter_mut().zip(BETS) {
                *evidence = factor(allowed, past, points, other, candidate) * (*evidence + stake);
            }
        }
        // Only afterwards: what is bet in a look must not know its calls.
        if other.calls > 0 {
            self.calls = self.calls * MEMORY + other.good() + other.bad();
            self.bad = self.bad * MEMORY + other.bad();
        }
    }

    /// The mean of the bets.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.bets.iter().sum::<f64>() / BETS.len() as f64
    }

    /// Whether the candidate is worse than is allowed, with `needed` of [`needed`].
    #[must_use]
    pub fn is_worse(&self, needed: f64) -> bool {
        self.evidence() >= needed
    }

    /// What this look bets anew. All stakes of a run together are 1 at most.
    fn stake(&mut self, look: Look) -> f64 {
        match look {
            Look::FirstOf(steps) => {
                let share = FIRST_LOOKS / steps.max(1) as f64;
                let stake = share.min(FIRST_LOOKS - self.first).max(0.0);
                self.first += stake;
                stake
            }
            Look::Later if self.later < LATER_LOOKS => {
                self.later += 1;
                (1.0 - FIRST_LOOKS) / f64::from(LATER_LOOKS)
            }
            Look::Later => 0.0,
        }
    }

    /// The other group's share of bad calls before this look: above 0 and below 1.
    fn past(&self) -> f64 {
        (self.bad + PRIOR_BAD) / (self.calls + PRIOR_CALLS)
    }
}

/// What a check finds of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet to judge by, or nothing that may be compared.
    Waiting,
    Unsuspicious,
    Worse,
}

impl Verdict {
    /// What a judge finds of a candidate that got so many calls.
    #[must_use]
    pub fn of(judge: &Judge, needed: f64, calls: u64) -> Self {
        if judge.is_worse(needed) {
            Self::Worse
        } else if calls == 0 {
            Self::Waiting
        } else {
            Self::Unsuspicious
        }
    }

    /// As in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Unsuspicious => "unsuspicious",
            Self::Worse => "worse",
        }
    }
}

/// The evidence that decides, where a run has so many statistical checks: 200 for one, 400 for
/// each of two.
#[must_use]
pub fn needed(checks: usize) -> f64 {
    EVIDENCE_OF_ONE * checks.max(1) as f64
}

/// What a bet on `points` above the allowed share is paid for these calls. `past`: the other
/// group's share, as it is expected.
fn factor(allowed: Allowed, past: f64, points: f64, other: Counts, candidate: Counts) -> f64 {
    let logarithm = match allowed {
        Allowed::Share(share) => {
            let bet = (share + points).min(LARGEST_BET);
            if bet <= share {
                return 1.0;
            }
            ratio(candidate, bet, share)
        }
        Allowed::Above(tolerance) => {
            let bet = (past + tolerance + points).min(LARGEST_BET);
            if bet - tolerance <= past {
                return 1.0;
            }
            let nearest = nearest(past, bet, tolerance, other, candidate);
            ratio(other, past, nearest) + ratio(candidate, bet, nearest + tolerance)
        }
    };
    // A number that is none pays nothing, and takes nothing.
    if logarithm.is_nan() {
        return 1.0;
    }
    logarithm.min(MOST_OF_A_LOOK.ln()).exp()
}

/// The logarithm of how much more likely these calls are by one share of bad ones than by another.
fn ratio(counts: Counts, by: f64, than: f64) -> f64 {
    counts.bad() * (by / than).ln() + counts.good() * ((1.0 - by) / (1.0 - than)).ln()
}

/// The allowed shares that the bet is nearest to: the other group's, with the candidate's being
/// `tolerance` above it. Against these a payment is fair, and so it is against all others
/// (minimum of `n1 KL(past, r) + n2 KL(bet, r + tolerance)`, which is convex in `r`).
fn nearest(past: f64, bet: f64, tolerance: f64, other: Counts, candidate: Counts) -> f64 {
    let (others, candidates) = (other.calls as f64, candidate.calls as f64);
    let (mut low, mut high) = (past, bet - tolerance);
    if other.calls == 0 {
        return high;
    }
    let slope = |r: f64| {
        let own = r + tolerance;
        others * (r - past) / (r * (1.0 - r)) + candidates * (own - bet) / (own * (1.0 - own))
    };
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if slope(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests;
