//! The runs of FaultExperiments that the controller grants, and the calls that they hold.
//!
//! A rule harms only while its run is granted and the own namespace allows its share.
//! `policy::fault` decides both; this file keeps their state beside the configuration, wakes what is
//! held when either ends, and bounds how many calls are held at once. Without any grant a call costs
//! one load.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use policy::fault::{Fault, FaultShare, GrantedRuns};
use tokio::sync::watch;
use tokio::time::sleep_until;
use wire::{convert, v1};

use crate::endpoints::learned::now;

/// Calls that are delayed at one time. Each holds its request, so a proxy beyond this harms none
/// and counts them.
const HELD_CALLS: usize = 256;

/// See the module header.
#[derive(Debug)]
pub(crate) struct Grants {
    runs: Mutex<GrantedRuns>,
    /// Some run was granted last.
    any: AtomicBool,
    /// The largest share that may harm the own calls, in millionths.
    limit: AtomicU32,
    changed: watch::Sender<()>,
    held: AtomicUsize,
}

/// A call that is held. Its place is free when this is dropped.
#[derive(Debug)]
pub(crate) struct HeldCall<'a>(&'a AtomicUsize);

impl Default for Grants {
    fn default() -> Self {
        Self {
            runs: Mutex::default(),
            any: AtomicBool::new(false),
            limit: AtomicU32::new(FaultShare::NONE.millionths()),
            changed: watch::Sender::new(()),
            held: AtomicUsize::new(0),
        }
    }
}

impl Grants {
    /// Takes what the controller grants now, and nothing else.
    pub(crate) fn take(&self, message: &v1::Grants) {
        let grants = convert::grants(message);
        self.runs.lock().take(now(), &grants);
        self.any.store(!grants.is_empty(), Relaxed);
        self.changed.send_replace(());
    }

    /// Takes the largest share that the own namespace allows; `None`: not known, so nothing is.
    pub(crate) fn limit(&self, limit: Option<FaultShare>) {
        let limit = limit.unwrap_or(FaultShare::NONE).millionths();
        if self.limit.swap(limit, Relaxed) != limit {
            self.changed.send_replace(());
        }
    }

    /// Whether the own namespace allows it.
    pub(crate) fn allow(&self, fault: &Fault) -> bool {
        let limit = FaultShare::of_millionths(self.limit.load(Relaxed));
        limit.is_some_and(|limit| fault.is_within(limit))
    }

    /// Until when a run may harm calls, as far as it is granted now; `None`: it may not.
    pub(crate) fn until(&self, experiment: &str, seed: u64) -> Option<Instant> {
        if !self.any.load(Relaxed) {
            return None;
        }
        self.runs.lock().until(experiment, seed, now())
    }

    /// Until when this fault of a run may harm calls; `None`: it may not.
    pub(crate) fn may_harm(&self, experiment: &str, fault: &Fault) -> Option<Instant> {
        self.until(experiment, fault.selection.seed)
            .filter(|_| self.allow(fault))
    }

    /// Completes when it may not any more.
    pub(crate) async fn over(&self, experiment: &str, fault: &Fault) {
        let mut changes = self.changed.subscribe();
        while let Some(until) = self.may_harm(experiment, fault) {
            tokio::select! {
                () = sleep_until(until.into()) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// A place for one more held call; `None`: there is none.
    pub(crate) fn hold(&self) -> Option<HeldCall<'_>> {
        let one_more = |held| (held < HELD_CALLS).then_some(held + 1);
        let taken = self.held.fetch_update(Relaxed, Relaxed, one_more);
        taken.ok().map(|_| HeldCall(&self.held))
    }
}

impl Drop for HeldCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use policy::fault::Selection;
    use tokio::time::{Instant, advance, timeout};

    use super::*;

    const RUN: &str = "shop/slow";

    fn fault() -> Fault {
        let share = FaultShare::ALL;
        Fault {
            selection: Selection { seed: 1, share },
            delay: Some(Duration::from_secs(30)),
            failure: None,
            pods: None,
        }
    }

    fn allowing() -> Grants {
        let grants = Grants::default();
        grants.limit(Some(FaultShare::ALL));
        grants
    }

    fn granted(left: u64) -> v1::Grants {
        let grant = v1::Grant {
            experiment: RUN.to_owned(),
            seed: 1,
            holds: 3000,
            left,
        };
        v1::Grants {
            grants: vec![grant],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn held_call_wakes_when_grant_lapses() {
        let grants = allowing();
        assert_eq!(grants.until(RUN, 1), None);
        grants.take(&granted(60_000));
        let began = Instant::now();
        grants.over(RUN, &fault()).await;
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        // One that is repeated lasts.
        for _ in 0..5 {
            grants.take(&granted(60_000));
            let second = Duration::from_secs(1);
            assert!(timeout(second, grants.over(RUN, &fault())).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn withdrawn_grant_or_right_wakes_held_call_at_once() {
        let end: [fn(&Grants); 2] = [
            |grants| grants.take(&v1::Grants::default()),
            |grants| grants.limit(None),
        ];
        for end in end {
            let grants = Arc::new(allowing());
            grants.take(&granted(60_000));
            let held = Arc::clone(&grants);
            let held = tokio::spawn(async move { held.over(RUN, &fault()).await });
            advance(Duration::from_millis(100)).await;
            assert!(!held.is_finished());
            let began = Instant::now();
            end(&grants);
            held.await.unwrap();
            assert_eq!(began.elapsed(), Duration::ZERO);
            assert_eq!(grants.may_harm(RUN, &fault()), None);
        }
    }

    #[test]
    fn calls_beyond_bound_are_not_held() {
        let grants = Grants::default();
        let held: Vec<_> = (0..300).filter_map(|_| grants.hold()).collect();
        assert_eq!(held.len(), HELD_CALLS);
        drop(held);
        assert!(grants.hold().is_some());
    }
}
