//! The grace period of a release's run: for a short time it goes on without its Service or its
//! Deployment, which may have been deleted to be applied again.
//!
//! Tools delete an object and apply it again, and names are misspelt. Neither may let a refused
//! revision through: gates stay as they are for [`GRACE`]. The time is part of the run's evidence,
//! so it goes on under another controller, and one absence has one grace, whatever is missing.

use std::time::Duration;

use crds::labels::short_hash;

use super::state::{Run, State};

/// Longer than an object is missing between its deletion and the next `kubectl apply`.
pub const GRACE: Duration = Duration::from_secs(60);

impl State {
    /// How long gates still stay as they are while the Service or the Deployment is missing. `None`:
    /// the grace is over, or there is no run.
    pub fn outlives(&mut self, now: Duration) -> Option<Duration> {
        let run = self.run.as_mut()?;
        let seconds = now.as_secs();
        // The clock of a controller before may have been ahead.
        let known = run.evidence.absent.filter(|since| *since <= seconds);
        let since = *run.evidence.absent.insert(known.unwrap_or(seconds));
        let over = Duration::from_secs(since).saturating_add(GRACE);
        over.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Whether the Service or the Deployment of the run was missing at the last look.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        let run = self.run.as_ref();
        run.is_some_and(|run| run.evidence.absent.is_some())
    }

    /// Whether the run, if there is one, may be of the Deployment of this name.
    #[must_use]
    pub fn is_of(&self, deployment: &str) -> bool {
        let known = self.run.as_ref().map(|run| &run.evidence.deployment);
        known.is_none_or(|known| known.is_empty() || *known == short_hash(deployment))
    }
}

/// The Service and the Deployment are there.
pub(super) fn note_present(run: &mut Run, deployment: &str) {
    run.evidence.absent = None;
    if run.evidence.deployment.is_empty() {
        run.evidence.deployment = short_hash(deployment);
    }
}
