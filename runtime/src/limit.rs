//! Counts how often a bound was reached: one counter per named bound.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// All bounds of a process. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    limits: Family<Label, Counter<u64, AtomicU64>>,
}

/// A name from the code, never one from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    limit: &'static str,
}

impl Reached {
    /// Registers them as `limit_reached`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "limit_reached",
            "Times that a bound was reached, by its name",
            self.limits.clone(),
        );
    }

    /// The counter of one bound.
    #[must_use]
    pub fn counter(&self, limit: &'static str) -> Counter<u64, AtomicU64> {
        self.limits.get_or_create(&Label { limit }).clone()
    }

    /// How often this bound was reached.
    #[must_use]
    pub fn count(&self, limit: &'static str) -> u64 {
        self.counter(limit).get()
    }
}
