//! docs/metrics.md names every metric of the controller, as a scraper sees it.
//! `WEFT_WRITE_GENERATED=1 cargo test -p controller --test metrics_doc` writes it
//! anew.

#![allow(clippy::expect_used)]

#[path = "../../proxy/tests/metrics_doc/table.rs"]
mod table;

use prometheus_client::registry::Registry;
use weft_controller::metrics::{Metrics, Outcome};

#[test]
fn the_page_names_every_metric_of_the_controller() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.certify.count(Outcome::Issued);
    table::check("controller", &registry);
}
