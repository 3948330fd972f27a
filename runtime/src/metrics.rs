//! The metrics that every binary has under the same names, and the page of a scrape.

use std::fmt;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
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
    registry.register_collector(Box::new(BuildInfo));
    registry.register_collector(Box::new(LostLines));
}

/// The version of this program: all crates of the workspace have the same.
#[derive(Debug)]
struct BuildInfo;

impl Collector for BuildInfo {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut info = encoder.encode_descriptor(
            "weft_build_info",
            "Always 1; the label has the version of the program",
            None,
            MetricType::Gauge,
        )?;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1_i64).encode(info.encode_family(&labels)?)
    }
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

/// What a scrape reads: the page of a registry, and what its library cannot write there.
pub struct Scraped {
    registry: Arc<Mutex<Registry>>,
    finish: Option<Box<Finish>>,
}

type Finish = dyn Fn(String) -> String + Send + Sync;

impl From<Arc<Mutex<Registry>>> for Scraped {
    fn from(registry: Arc<Mutex<Registry>>) -> Self {
        Self {
            registry,
            finish: None,
        }
    }
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraped").finish_non_exhaustive()
    }
}

impl Scraped {
    /// The same, with every page finished by `finish`.
    #[must_use]
    pub fn finished(self, finish: impl Fn(String) -> String + Send + Sync + 'static) -> Self {
        Self {
            finish: Some(Box::new(finish)),
            ..self
        }
    }

    /// The page as it is now.
    pub(crate) fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry.lock())?;
        Ok(match &self.finish {
            Some(finish) => finish(page),
            None => page,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_info_has_the_programs_version() {
        let mut registry = Registry::default();
        register(&mut registry);
        let page = Scraped::from(Arc::new(Mutex::new(registry)))
            .page()
            .unwrap();
        let line = format!(
            "weft_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        assert!(page.lines().any(|shown| shown == line), "{page}");
    }
}
