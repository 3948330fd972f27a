//! What every binary counts about itself, under the same names.

use std::sync::LazyLock;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::registry::Registry;

use crate::log_writer;

static ADMIN_CLOSED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Counts a connection to the admin port that others lost their permits to, or
/// that took too long.
pub(crate) fn admin_closed() {
    ADMIN_CLOSED.inc();
}

/// Adds the metrics of the whole process.
pub fn register(registry: &mut Registry) {
    registry.register(
        "weft_admin_connections_closed",
        "Connections to the admin port that were closed for the sake of others, or for being slow",
        ADMIN_CLOSED.clone(),
    );
    registry.register_collector(Box::new(LostLines));
}

#[derive(Debug)]
struct LostLines;

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        ConstCounter::new(log_writer::lost()).encode(encoder.encode_descriptor(
            "weft_log_lines_lost",
            "Lines of logs that were lost because they were not read in time",
            None,
            MetricType::Counter,
        )?)
    }
}
