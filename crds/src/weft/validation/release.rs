//! Validates a CanaryRelease and parses its meaning.
//!
//! A mistake anywhere costs the whole release: half of one would be a rollout without an author.
//! Updates of its Deployment are ordinary rolling updates then.

use std::{sync::Arc, time::Duration};

use policy::name::ServiceId;

/// The content of a CanaryRelease.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The Service whose calls are shared out.
    pub service: ServiceId,
    /// Name of the Deployment, in the release's namespace.
    pub deployment: Arc<str>,
    /// The steps, at least one; the weight of those without groups never falls.
    pub steps: Vec<ReleaseStep>,
    /// Requests that the candidate must have got in a step.
    pub min_requests: u64,
    /// What the candidate is judged by.
    pub checks: ReleaseChecks,
    /// Longest time of a run without its pauses.
    pub deadline: Duration,
    /// Whether updates of the Deployment are ordinary rolling updates.
    pub suspend: bool,
}

/// What the candidate gets for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseStep {
    /// Percent of GET, HEAD and OPTIONS requests that are copied, from 1; only where `weight` is
    /// 0 and there are no groups.
    pub mirror: Option<u8>,
    /// Percent of calls, from 1 to 100; 0 in a step with `mirror` only.
    pub weight: u8,
    /// Shortest time of the step.
    pub duration: Duration,
    /// Whether the step ends by the command `resume` only.
    pub pause: bool,
    /// Names of HTTPRouteGroups of the release's namespace. The weight is for requests that fit
    /// one of them; all others keep the weight of the step before. Without any, for all.
    pub groups: Vec<Arc<str>>,
}

/// What the candidate is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReleaseChecks {
    /// Failed calls; always `Some` today.
    pub error_rate: Option<RateCheck>,
    /// Slow calls; `None` when it is off.
    pub latency: Option<LatencyCheck>,
    /// Most restarts of containers of the candidate; always `Some` today.
    pub restarts: Option<u32>,
}

/// How many calls may be bad. One of the two is set at least. Both are parts of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateCheck {
    /// How far the share may be above that of the calls it is compared with.
    pub tolerance: Option<f64>,
    /// How large the share may be, whatever it is compared with.
    pub max: Option<f64>,
}

/// How slow calls may be. One of `tolerance` and `max` is set at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyCheck {
    /// 50, 90, 95 or 99.
    pub percentile: u8,
    /// How far the percentile may be above stable's, as a part of that one.
    pub tolerance: Option<f64>,
    /// How long the percentile may be, whatever stable's is.
    pub max: Option<Duration>,
}
