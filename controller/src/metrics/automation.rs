//! Metrics of the Lease holder about releases: how runs ended, and which writes the API server
//! refused.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Releases that ended, and what the API server did not take.
#[derive(Clone, Debug, Default)]
pub struct AutomationMetrics {
    ended: Family<ResultLabel, Counter>,
    /// Reads and writes for releases that failed; each is tried again.
    pub failures: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl AutomationMetrics {
    /// Counts a run that ended: `promoted`, `rolled-back`, `aborted`, `superseded` or `bypassed`.
    pub fn ended(&self, result: &'static str) {
        self.ended.get_or_create(&ResultLabel { result }).inc();
    }

    /// How many ended so.
    #[cfg(test)]
    pub(crate) fn times_ended(&self, result: &'static str) -> u64 {
        self.ended.get_or_create(&ResultLabel { result }).get()
    }

    /// Under the mesh's own name: it is about users' releases, whichever replica counts it.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "weft_releases",
            "Runs of CanaryReleases that ended, by result",
            self.ended.clone(),
        );
    }

    /// Under the controller's.
    pub(super) fn register_failures(&self, registry: &mut Registry) {
        registry.register(
            "automation_failures",
            "Reads and writes for releases that failed and are tried again",
            self.failures.clone(),
        );
    }
}
