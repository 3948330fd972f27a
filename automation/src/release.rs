//! What a release does next, from what is seen of the cluster and the state before.
//!
//! In use: [`next`] each second and after each change; its state is persisted, then its gates are
//! opened.

use std::time::Duration;

use crds::weft::validation::Release;

mod evidence;
mod seen;
mod state;

pub use self::evidence::Evidence;
pub use self::seen::{
    CheckReport, Command, Event, EventKind, Gate, Newest, Next, Pod, Seen, SetCounts, Verb, Verdict,
};
pub use self::state::{Ended, HISTORY, Run, State, Unsaved};
use crate::judge::latency::Threshold;

/// The thresholds by which calls are slow; `None`: they are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// For [`SetCounts::latency`].
    pub tolerance: Option<Threshold>,
    /// For [`SetCounts::latency_max`].
    pub max: Option<Threshold>,
}

/// By which thresholds the next look's calls are counted.
#[must_use]
pub fn thresholds(_spec: &Release, _state: &State) -> Thresholds {
    Thresholds::default()
}

/// One look at the release. `now` is since 1970 and never goes back.
#[must_use]
pub fn next(_spec: &Release, _seen: &Seen, state: &State, _now: Duration) -> Next {
    Next {
        state: state.clone(),
        decided: false,
        gates: Vec::new(),
        events: Vec::new(),
        summary: String::new(),
        checks: Vec::new(),
        ended: None,
    }
}
