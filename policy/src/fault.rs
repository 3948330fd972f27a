//! Fault experiments: which attempts of which calls are harmed, how, and for how long a proxy may
//! harm them.
//!
//! Attempt `k` of a call is harmed by the hash of its trace and of the run, so that every proxy on
//! the way finds the same calls without a header. The harmed group is that of the first attempts;
//! the control group is the next part of the same size. A retry is drawn anew: it may be spared.
//!
//! A rule alone harms nothing. It needs a grant of its run, which the controllers repeat each
//! second and which lapses after [`GRANT`]: an experiment does not outlive its controllers.
//!
//! Invariant: time and random numbers are arguments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::share::Share;
use crate::sticky::mix;

/// How long one grant holds, at most.
pub const GRANT: Duration = Duration::from_secs(3);
/// How long a run lasts, at most, whatever its controllers grant.
pub const LONGEST_RUN: Duration = Duration::from_secs(3600);
/// Runs that a proxy holds the grants of. More are not granted, and harm nothing.
pub const MOST_RUNS: usize = 64;

/// Which part of an experiment's calls a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// As many calls as are harmed, none of them harmed in its first attempt.
    Control,
    /// Those whose first attempt is harmed.
    Harmed,
}

/// What an attempt is drawn by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// The trace that the call belongs to.
    Trace(u128),
    /// Of a call without one: a number that is uniform over all of `u64`.
    Random(u64),
}

/// Which attempts of which calls a run harms. Also the whole of section `groups`, by which a pod
/// counts its calls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Of the run, which it also names: another run harms other calls.
    pub seed: u64,
    pub share: Share,
}

impl Selection {
    /// Whether this attempt is harmed; the first one is 1.
    #[must_use]
    pub const fn harms(self, draw: Draw, attempt: u32) -> bool {
        self.share.takes(match draw {
            Draw::Trace(trace) => self.point(trace, attempt),
            Draw::Random(random) => random,
        })
    }

    /// The group of a call that belongs to this trace; `None`: neither.
    #[must_use]
    pub const fn group(self, trace: u128) -> Option<Group> {
        let point = self.point(trace, 1);
        if self.share.takes(point) {
            return Some(Group::Harmed);
        }
        // Of more than half there is no part of the same size.
        match Share::of_millionths(2 * self.share.millionths()) {
            Some(both) if both.takes(point) => Some(Group::Control),
            _ => None,
        }
    }

    /// Where a proxy of every version finds this attempt, uniform over all of `u64`: the mix of
    /// splitmix64.
    const fn point(self, trace: u128, attempt: u32) -> u64 {
        // The low half: the high one is zero where tracers know 64 bits only.
        mix(trace as u64 ^ self.seed.wrapping_add(attempt as u64))
    }
}

/// Section `fault`: what becomes of attempts that a run harms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub selection: Selection,
    /// Before anything else happens.
    pub delay: Option<Duration>,
    /// Instead of an answer of the endpoint.
    pub failure: Option<InjectedFailure>,
    /// Uids of the pods that are harmed; `None`: every endpoint. An endpoint that is no pod is
    /// then spared.
    pub pods: Option<HarmedPods>,
}

impl Fault {
    /// Whether the caller's namespace allows it at its own callers. Without a limit nothing is.
    #[must_use]
    pub const fn is_within(&self, limit: Share) -> bool {
        self.selection.share.millionths() <= limit.millionths()
    }

    /// Whether the endpoint that is this pod is harmed; an empty uid is no pod.
    #[must_use]
    pub fn reaches(&self, pod_uid: &str) -> bool {
        let pods = self.pods.as_ref();
        pods.is_none_or(|pods| pods.contains(pod_uid))
    }
}

/// Pods by uid, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HarmedPods(Arc<[Arc<str>]>);

impl HarmedPods {
    #[must_use]
    pub fn new(uids: impl IntoIterator<Item = Arc<str>>) -> Self {
        let mut uids: Vec<Arc<str>> = uids.into_iter().collect();
        uids.sort_unstable();
        uids.dedup();
        Self(uids.into())
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter()
    }

    fn contains(&self, uid: &str) -> bool {
        !uid.is_empty() && self.0.binary_search_by(|one| (**one).cmp(uid)).is_ok()
    }
}

/// How a harmed attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFailure {
    /// A response that the endpoint did not send. A connection of opaque bytes has none.
    Abort(Abort),
    /// No application listens at the endpoint.
    Refuse,
    /// The connection is lost before a response.
    Reset,
}

/// `fault.abort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    pub http_status: StatusCode,
    /// `grpc-status`; `None`: what gRPC makes of the HTTP status.
    pub grpc_status: Option<u8>,
}

/// What was done to an attempt: the label of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    Delay,
    Abort,
    Refuse,
    Reset,
}

impl Effect {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Abort => "abort",
            Self::Refuse => "refuse",
            Self::Reset => "reset",
        }
    }
}

impl InjectedFailure {
    #[must_use]
    pub const fn effect(self) -> Effect {
        match self {
            Self::Abort(_) => Effect::Abort,
            Self::Refuse => Effect::Refuse,
            Self::Reset => Effect::Reset,
        }
    }
}

/// The grant of one run, as it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The FaultExperiment, as `namespace/name`.
    pub experiment: Arc<str>,
    /// Of the run.
    pub seed: u64,
    /// How long it holds from now; at most [`GRANT`] is used.
    pub holds: Duration,
    /// What the run has left.
    pub left: Duration,
}

/// The runs that a proxy was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantedRuns {
    runs: Vec<Run>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    experiment: Arc<str>,
    seed: u64,
    /// By the last grant.
    until: Instant,
    /// By the first one; a later grant may only bring it forward. It stays after the run, so that
    /// a grant which comes late starts none again.
    ends: Instant,
}

impl GrantedRuns {
    /// Takes all grants that there are now: what is not among them is withdrawn.
    pub fn take(&mut self, now: Instant, grants: &[Grant]) {
        for run in &mut self.runs {
            let is_granted = grants.iter().any(|grant| run.is_of(grant));
            if !is_granted {
                run.until = run.until.min(now);
            }
        }
        for grant in grants {
            let until = now + grant.holds.min(GRANT);
            let ends = now + grant.left.min(LONGEST_RUN);
            if let Some(run) = self.runs.iter_mut().find(|run| run.is_of(grant)) {
                run.until = until;
                run.ends = run.ends.min(ends);
            } else if self.make_room(now) {
                self.runs.push(Run {
                    experiment: Arc::clone(&grant.experiment),
                    seed: grant.seed,
                    until,
                    ends,
                });
            }
        }
    }

    /// Whether one more run has room. Where it needs one, the run goes that ended or was withdrawn
    /// first, or a pipeline with a run every minute would have none left after an hour.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.runs.len() < MOST_RUNS {
            return true;
        }
        let runs = self.runs.iter().enumerate();
        let over = runs.filter(|(_, run)| run.until() <= now);
        let first = over.min_by_key(|(_, run)| run.until());
        match first.map(|(at, _)| at) {
            Some(at) => {
                self.runs.swap_remove(at);
                true
            }
            None => false,
        }
    }

    /// Until when a run may harm, as far as it is granted now; `None`: it may not.
    #[must_use]
    pub fn until(&self, experiment: &str, seed: u64, now: Instant) -> Option<Instant> {
        let mut runs = self.runs.iter();
        let run = runs.find(|run| run.seed == seed && *run.experiment == *experiment)?;
        let until = run.until();
        (now < until).then_some(until)
    }
}

impl Run {
    fn is_of(&self, grant: &Grant) -> bool {
        self.seed == grant.seed && self.experiment == grant.experiment
    }

    /// Until when it may harm.
    fn until(&self) -> Instant {
        self.until.min(self.ends)
    }
}

#[cfg(test)]
mod tests;
