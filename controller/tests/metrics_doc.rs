//! docs/metrics.md names every metric of the controller, as a scraper sees it.
//! `WEFT_WRITE_GENERATED=1 cargo test -p controller --test metrics_doc` writes it
//! anew.

#![allow(clippy::expect_used)]

#[path = "../../proxy/tests/metrics_doc/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use weft_controller::{CertifyResult, Metrics, ReportOutcome};

#[test]
fn the_page_names_every_metric_of_the_controller() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.certify.count(CertifyResult::Issued);
    metrics.world.left_out("Pod");
    metrics.world.set_failing("Pod", Duration::ZERO);
    metrics.reports.count(ReportOutcome::Taken);
    metrics.api.answered(200);
    metrics.graph.dropped("edge", 1);
    metrics.observe.answered("graphs", 200);
    metrics.automation.ended("promoted");
    metrics.certificates.expires_in("edge", "shop-tls", 0);
    metrics.limits.counter("streams").inc();
    let skipped = BTreeMap::from([(Arc::from("shop"), 1)]);
    metrics.world.set_skipped_ports(&BTreeMap::new(), &skipped);
    table::check("controller", &registry);
}
