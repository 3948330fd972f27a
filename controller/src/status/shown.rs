//! How a breaker fares, in the words of a status.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::fleet::BreakerReport;

/// How a breaker fares, as it stands in a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenBreaker {
    pub(super) state: &'static str,
    /// RFC 3339.
    pub(super) since: String,
    pub(super) counts: Counts,
}

/// What ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    failure_percent: u8,
    requests: u32,
    callers: usize,
}

impl From<BreakerReport> for WrittenBreaker {
    fn from(report: BreakerReport) -> Self {
        Self {
            state: report.state.as_str(),
            since: rfc3339(report.since),
            counts: Counts {
                failure_percent: report.failure_percent,
                requests: report.requests,
                callers: report.callers,
            },
        }
    }
}

impl WrittenBreaker {
    /// The field `status.breaker`.
    pub(super) fn json(&self) -> Value {
        json!({
            "state": self.state,
            "since": self.since,
            "failurePercent": self.counts.failure_percent,
            "requests": self.counts.requests,
            "callers": self.counts.callers,
        })
    }
}

/// As Kubernetes writes times.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
