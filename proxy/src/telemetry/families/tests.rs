//! Series by route, and how many of them a family takes.
//!
//! Claims: observe-139

use std::time::Duration;

use policy::protocol::Protocol;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;
use crate::telemetry::labels::Security;
use crate::telemetry::metrics::Metrics;

const GOOD: CallOutcome = CallOutcome {
    status: 200,
    success: true,
    reason: None,
};

fn cell_key(port: u16, route: Option<&str>) -> CellKey {
    CellKey {
        parties: CallEnds::Inbound {
            port,
            caller: "shop/web".into(),
            at: None,
            security: Security::mtls,
        },
        protocol: Protocol::Http1,
        route: route.map(Into::into),
    }
}

fn count(metrics: &Metrics, cell_key: CellKey) {
    let cell = metrics.cell(cell_key);
    cell.begin();
    cell.answered(GOOD, Duration::from_millis(1));
    cell.leave();
    cell.begin();
    cell.cancel();
    cell.leave();
}

fn page(registry: &Registry) -> String {
    let mut page = String::new();
    encode(&mut page, registry).unwrap();
    page
}

#[test]
fn route_labels_requests_and_latency_unless_absent() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    count(&metrics, cell_key(80, Some("cart/read")));
    count(&metrics, cell_key(80, Some("")));
    count(&metrics, cell_key(80, None));
    let page = page(&registry);
    for name in [
        "weft_requests_total",
        "weft_requests_cancelled_total",
        "weft_request_duration_seconds_count",
    ] {
        let lines = || page.lines().filter(|line| line.starts_with(name));
        let named: Vec<&str> = lines().filter(|line| line.contains("route=")).collect();
        assert_eq!(named.len(), 1, "{page}");
        assert!(named[0].ends_with(",route=\"cart/read\"} 1"), "{page}");
        assert!(lines().any(|line| line.ends_with("} 2")), "{page}");
    }
}

#[test]
fn routes_take_only_half_of_family_series() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    // Histograms have fewest places.
    for number in 0..200 {
        count(&metrics, cell_key(80, Some(&format!("cart/{number}"))));
    }
    metrics.calls.refresh();
    for port in 0..100 {
        count(&metrics, cell_key(1000 + port, None));
    }
    let page = page(&registry);
    let latencies = || {
        let lines = page.lines();
        lines.filter(|line| line.starts_with("weft_request_duration_seconds_count"))
    };
    let by_route = latencies().filter(|line| line.contains("route=")).count();
    assert_eq!(by_route, 128, "{page}");
    let sum: f64 = latencies()
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(sum, 300.0, "none is lost");
    assert!(!page.contains("weft_series_refused_total 1"), "{page}");
    assert!(
        page.contains("weft_limit_reached_total{limit=\"route-series\"} 72"),
        "{page}"
    );
}
