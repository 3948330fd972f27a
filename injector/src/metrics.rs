//! The injector's metrics. Every label is from a closed list.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use runtime::limit::Reached;

/// Upper bounds in seconds. The last is the time limit of a call.
const SECONDS: [f64; 8] = [0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels {
    /// `mutate`, `validate`, `account`, `ephemeral`, `spelling`, `convert` or `other`.
    path: &'static str,
    /// `injected`, `refused`, ...
    outcome: &'static str,
    /// More about it, or empty.
    reason: &'static str,
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [
            ("path", self.path),
            ("outcome", self.outcome),
            ("reason", self.reason),
        ]
        .encode(encoder)
    }
}

/// Shared by all parts of the process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reviews: Family<Labels, Counter>,
    seconds: Histogram,
    bundle_patches: Counter,
    authority_rotations: Counter,
    authority_expires: Gauge,
    leaf_expires: Gauge,
    /// Bounds that were reached.
    pub(crate) limits: Reached,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reviews: Family::default(),
            seconds: Histogram::new(SECONDS),
            bundle_patches: Counter::default(),
            authority_rotations: Counter::default(),
            authority_expires: Gauge::default(),
            leaf_expires: Gauge::default(),
            limits: Reached::default(),
        };
        runtime::metrics::register(registry);
        let registry = registry.sub_registry_with_prefix("weft_injector");
        registry.register(
            "reviews",
            "Calls of the webhooks by outcome",
            metrics.reviews.clone(),
        );
        registry.register(
            "review_duration_seconds",
            "Time from a call's head to its answer",
            metrics.seconds.clone(),
        );
        registry.register(
            "ca_bundle_patches",
            "Times that this replica wrote caBundle into a webhook configuration or definition",
            metrics.bundle_patches.clone(),
        );
        registry.register(
            "ca_rotations",
            "Steps of a rotation of the webhooks' authority that this replica took",
            metrics.authority_rotations.clone(),
        );
        registry.register(
            "ca_expiry_timestamp_seconds",
            "End of the webhooks' authority, Unix time",
            metrics.authority_expires.clone(),
        );
        registry.register(
            "serving_certificate_expiry_timestamp_seconds",
            "End of this replica's serving certificate, Unix time",
            metrics.leaf_expires.clone(),
        );
        metrics.limits.register(registry);
        metrics
    }

    /// Counts one call. `reason` is empty when the outcome says all.
    pub(crate) fn review(
        &self,
        path: &'static str,
        outcome: &'static str,
        reason: &'static str,
        took: Duration,
    ) {
        self.reviews
            .get_or_create(&Labels {
                path,
                outcome,
                reason,
            })
            .inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn bundle_patched(&self) {
        self.bundle_patches.inc();
    }

    pub(crate) fn authority_rotated(&self) {
        self.authority_rotations.inc();
    }

    pub(crate) fn authority_expires(&self, at: SystemTime) {
        self.authority_expires.set(unix(at));
    }

    pub(crate) fn leaf_expires(&self, at: SystemTime) {
        self.leaf_expires.set(unix(at));
    }
}

fn unix(at: SystemTime) -> i64 {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
