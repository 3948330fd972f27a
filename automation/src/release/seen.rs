//! `Seen`: what one look at the cluster shows of a CanaryRelease (revisions, pods, calls,
//! commands), and which facts follow from it.

use std::time::Duration;

use policy::latency::Histogram;

use super::state::{Ended, State};
use crate::judge::{Counts, Verdict};

/// What is so now. Counts are of the calls since the look before.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The Deployment's newest revision. `None`: there is no Deployment, or no ReplicaSet yet of
    /// its template; then nothing is decided.
    pub newest: Option<Newest>,
    /// All pods of the Deployment that are not being deleted.
    pub pods: Vec<Pod>,
    /// Ready pods of others that serve the Service, too: proxies share its calls out among them.
    pub foreign: usize,
    /// `spec.paused` of the Deployment: Promoting waits.
    pub deployment_paused: bool,
    /// `spec.progressDeadlineSeconds` of the Deployment.
    pub progress_deadline: Duration,
    /// All proxies have the route of the state that was persisted last.
    pub programmed: bool,
    /// The breaker of the mesh is open at the candidate, and not at the stable set.
    pub breaker_open_at_candidate: bool,
    /// The command that is honoured: it is recent, and later than the last one.
    pub command: Option<Command>,
    pub stable: SetCounts,
    pub candidate: SetCounts,
    /// Latencies of the stable set in the last 60 s, by `judge::latency::Recent`; `None` while
    /// there are too few.
    pub recent: Option<Histogram>,
}

impl Seen {
    /// The pods of this revision.
    pub(super) fn of(&self, revision: &str) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| pod.revision == revision)
    }

    /// The pods of all others.
    pub(super) fn others(&self, revision: &str) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| pod.revision != revision)
    }

    /// Pods of the candidate that serve, and pods of all others that are ready.
    pub(super) fn serving(&self, candidate: &str) -> (usize, usize) {
        let candidates = self.of(candidate).filter(|pod| pod.serves());
        let others = self.others(candidate).filter(|pod| pod.ready);
        (candidates.count(), others.count())
    }
}

/// The revision of the Deployment's present template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its `pod-template-hash`.
    pub revision: String,
    /// Its template is that of the stable revision but for the annotation `restartedAt`, or the
    /// stable one's ReplicaSet is this one.
    pub equals_stable: bool,
}

/// One pod of the Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    /// Its label `pod-template-hash`.
    pub revision: String,
    pub gate: Gate,
    pub containers_ready: bool,
    pub ready: bool,
    /// Its proxy has a control stream to one of the replicas.
    pub connected: bool,
    /// Of the containers that are not the mesh's.
    pub restarts: u32,
}

impl Pod {
    /// It takes calls of meshed callers: it is ready, or only its gate keeps it from being so. The
    /// kubelet needs a moment to see that a gate is open.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.ready || (self.gate != Gate::Absent && self.containers_ready)
    }
}

/// The readiness gate `weft.dev/released` of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// The pod has none.
    #[default]
    Absent,
    /// The condition is not True.
    Shut,
    Open,
}

/// New calls of one set. Those of `latency` and `latency_max` are counted by the thresholds of
/// [`super::thresholds`], and without pods that are in their warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetCounts {
    /// Bad: failed, for another reason than `limit`.
    pub errors: Counts,
    pub latency: Counts,
    pub latency_max: Counts,
}

/// What a user asked for by the annotation `weft.dev/command`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub verb: Verb,
    /// The field manager of the annotation.
    pub by: Option<String>,
}

/// The verbs of releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Pause,
    Resume,
    Promote,
    Abort,
    Retry,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] = [
        Self::Pause,
        Self::Resume,
        Self::Promote,
        Self::Abort,
        Self::Retry,
    ];

    /// As in an annotation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Retry => "retry",
        }
    }

    /// The verb of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// What follows from a look. The state is persisted before anything else is done; where that
/// fails, the look is repeated with the former state and without its counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    pub state: State,
    /// Something was decided: persist now. Otherwise only counts and evidence are new.
    pub decided: bool,
    /// Names of pods whose gates open, once the state is persisted.
    pub gates: Vec<String>,
    pub events: Vec<Event>,
    /// What happens and what comes next, for `status.summary`.
    pub summary: String,
    /// For `status.checks`.
    pub checks: Vec<CheckReport>,
    /// The run that ended in this look; it is in the history already.
    pub ended: Option<Ended>,
}

/// For an Event on the release and its Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub message: String,
}

/// The reasons of Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    ReleaseStarted,
    StepStarted,
    NotEnoughRequests,
    Paused,
    Promoted,
    RolledBack,
    Aborted,
    Superseded,
    Bypassed,
    CommandIgnored,
}

impl EventKind {
    /// The Event's reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReleaseStarted => "ReleaseStarted",
            Self::StepStarted => "StepStarted",
            Self::NotEnoughRequests => "NotEnoughRequests",
            Self::Paused => "Paused",
            Self::Promoted => "Promoted",
            Self::RolledBack => "RolledBack",
            Self::Aborted => "Aborted",
            Self::Superseded => "Superseded",
            Self::Bypassed => "Bypassed",
            Self::CommandIgnored => "CommandIgnored",
        }
    }

    /// Whether the Event's type is Warning.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(
            self,
            Self::RolledBack | Self::Bypassed | Self::CommandIgnored | Self::NotEnoughRequests
        )
    }
}

/// What one check found in the run.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckReport {
    /// `errorRate`, `errorRate max`, `latency`, `latency max` or `restarts`.
    pub name: &'static str,
    pub verdict: Verdict,
    /// Evidence and what it must reach, `0.4 of 400`; `3 of 0` restarts.
    pub evidence: String,
    /// `None`: the stable set is not compared.
    pub stable: Option<Counts>,
    pub candidate: Option<Counts>,
}
