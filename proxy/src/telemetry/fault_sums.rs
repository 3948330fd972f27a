//! Counts what FaultExperiments did with the attempts of the pod's own calls, by run, for reports.
//!
//! Only attempts that fit the rule of a granted run come here, so a look-up under a lock is cheap
//! enough.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::fault::MOST_RUNS;
use wire::v1;

/// One run of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunKey {
    /// As `namespace/name`.
    pub(crate) experiment: Arc<str>,
    pub(crate) seed: u64,
}

/// How an attempt was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptDraw {
    Spared,
    Harmed,
    /// It would be harmed, and the own namespace does not allow that.
    Excluded,
    /// It would be harmed, and too many calls are delayed already.
    BeyondLimit,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    attempts: u64,
    harmed: u64,
    excluded: u64,
    beyond_limit: u64,
    untraced: u64,
}

/// The sums of the open interval; at most [`MOST_RUNS`], as runs that are granted.
#[derive(Clone, Debug, Default)]
pub struct FaultSums(Arc<Mutex<BTreeMap<RunKey, Sums>>>);

impl FaultSums {
    pub(crate) fn count(&self, run: RunKey, drawn: AttemptDraw, untraced: bool) {
        let mut sums = self.0.lock();
        if sums.len() >= MOST_RUNS && !sums.contains_key(&run) {
            return;
        }
        let sum = sums.entry(run).or_default();
        sum.attempts += 1;
        sum.untraced += u64::from(untraced);
        match drawn {
            AttemptDraw::Spared => {}
            AttemptDraw::Harmed => sum.harmed += 1,
            AttemptDraw::Excluded => sum.excluded += 1,
            AttemptDraw::BeyondLimit => sum.beyond_limit += 1,
        }
    }

    /// What the open interval holds so far.
    pub(super) fn so_far(&self) -> Vec<v1::FaultCalls> {
        self.0.lock().iter().map(message).collect()
    }

    /// The same, and counts from 0 again.
    pub(super) fn take(&self) -> Vec<v1::FaultCalls> {
        mem::take(&mut *self.0.lock()).iter().map(message).collect()
    }
}

fn message((run, sums): (&RunKey, &Sums)) -> v1::FaultCalls {
    v1::FaultCalls {
        experiment: run.experiment.to_string(),
        seed: run.seed,
        attempts: sums.attempts,
        harmed: sums.harmed,
        excluded: sums.excluded,
        beyond_limit: sums.beyond_limit,
        untraced: sums.untraced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_each_run_are_taken_once() {
        let sums = FaultSums::default();
        let run = |seed| RunKey {
            experiment: "shop/slow".into(),
            seed,
        };
        sums.count(run(1), AttemptDraw::Spared, false);
        sums.count(run(1), AttemptDraw::Harmed, true);
        sums.count(run(1), AttemptDraw::BeyondLimit, false);
        sums.count(run(2), AttemptDraw::Excluded, false);
        assert_eq!(sums.so_far(), sums.so_far());
        let taken = sums.take();
        assert_eq!(taken.len(), 2);
        let first = &taken[0];
        assert_eq!((first.attempts, first.harmed, first.untraced), (3, 1, 1));
        assert_eq!((first.beyond_limit, first.excluded), (1, 0));
        assert_eq!((taken[1].attempts, taken[1].excluded), (1, 1));
        assert!(sums.take().is_empty());
    }

    #[test]
    fn runs_beyond_bound_are_not_counted() {
        let sums = FaultSums::default();
        for seed in 0..100 {
            let run = RunKey {
                experiment: "shop/slow".into(),
                seed,
            };
            sums.count(run, AttemptDraw::Spared, false);
        }
        assert_eq!(sums.take().len(), MOST_RUNS);
    }
}
