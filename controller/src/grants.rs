//! The grants in force on this replica: which runs of FaultExperiments may harm calls now.
//!
//! One task decides it from what this replica knows and sets it each second. The control streams
//! send it to the proxies that hold a rule of such a run, with each setting: a proxy harms for three
//! seconds after the last one, so a task that stands still ends every run. What is no longer set is
//! withdrawn at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use policy::fault::{GRANT, Grant};
use tokio::sync::watch;
use tokio::time::Instant;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantedRun {
    /// The FaultExperiment, as `namespace/name`.
    pub(crate) experiment: Arc<str>,
    /// Of the run, as in its rules.
    pub(crate) seed: u64,
    /// Until when it lasts.
    pub(crate) ends: Instant,
    /// Names of the policy resources that have its rules: a proxy that was sent one of them gets
    /// the grant.
    pub(crate) policies: Arc<BTreeSet<String>>,
}

impl GrantedRun {
    /// The grant as of now; `None`: the run is over.
    pub(crate) fn grant(&self, now: Instant) -> Option<Grant> {
        let left = self.ends.saturating_duration_since(now);
        (left > Duration::ZERO).then(|| Grant {
            experiment: Arc::clone(&self.experiment),
            seed: self.seed,
            holds: GRANT,
            left,
        })
    }
}

/// The runs that are granted, shared by the task that sets them and all control streams.
#[derive(Clone, Debug)]
pub(crate) struct Grants(Arc<watch::Sender<Arc<[GrantedRun]>>>);

impl Default for Grants {
    /// None.
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new([]))))
    }
}

impl Grants {
    /// Grants these runs and no other ones. To be called each second while there are any, and at
    /// once where one is withdrawn.
    pub(crate) fn set(&self, runs: Vec<GrantedRun>) {
        self.0.send_if_modified(|now| {
            // The same again is a renewal, and nothing twice is none.
            let is_sent = !(now.is_empty() && runs.is_empty());
            *now = runs.into();
            is_sent
        });
    }

    /// Grants nothing.
    pub(crate) fn withdraw_all(&self) {
        self.set(Vec::new());
    }

    /// Those that are granted.
    pub(crate) fn now(&self) -> Arc<[GrantedRun]> {
        Arc::clone(&self.0.borrow())
    }

    /// Wakes with each setting.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<[GrantedRun]>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, ends: Instant) -> GrantedRun {
        GrantedRun {
            experiment: "shop/slow".into(),
            seed,
            ends,
            policies: Arc::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn renewal_wakes_streams_and_nothing_twice_does_not() {
        let (grants, ends) = (Grants::default(), Instant::now() + Duration::from_secs(60));
        let mut changes = grants.changes();
        grants.set(Vec::new());
        assert!(!changes.has_changed().unwrap());
        for _ in 0..2 {
            grants.set(vec![run(1, ends)]);
            assert!(changes.has_changed().unwrap());
            changes.mark_unchanged();
        }
        grants.withdraw_all();
        assert!(changes.has_changed().unwrap());
        assert!(grants.now().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn grant_has_what_the_run_has_left() {
        let now = Instant::now();
        let run = run(1, now + Duration::from_secs(60));
        let grant = run.grant(now + Duration::from_secs(59)).unwrap();
        assert_eq!((grant.holds, grant.left), (GRANT, Duration::from_secs(1)));
        assert_eq!(run.grant(now + Duration::from_secs(60)), None);
    }
}
