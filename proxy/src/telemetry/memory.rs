//! How much memory the process holds, under the name that every Prometheus
//! client library uses, so that dashboards and tests find it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads the kernel's figure at every scrape.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory;

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Without a figure of the kernel the metric is left out; zero would be a lie.
        let Some(bytes) = resident() else {
            return Ok(());
        };
        let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(
            "process_resident_memory",
            "Memory that the process holds",
            Some(&Unit::Bytes),
            prometheus_client::metrics::MetricType::Gauge,
        )?)
    }
}

/// Bytes that are in memory now, not swapped out.
pub(crate) fn resident() -> Option<u64> {
    of_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Linux writes `VmRSS:   12345 kB` and means KiB.
fn of_status(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{of_status, resident};

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tweft-proxy\nVmHWM:\t  9000 kB\nVmRSS:\t  8040 kB\nThreads:\t2\n";
        assert_eq!(of_status(status), Some(8040 * 1024));
        assert_eq!(of_status("Name:\tkthread\n"), None);
    }

    #[test]
    fn a_running_process_holds_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
