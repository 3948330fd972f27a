//! docs/metrics.md names every metric of the proxy, as a scraper sees it.
//! `WEFT_WRITE_GENERATED=1 cargo test -p proxy --test metrics_doc` writes it anew.

#![allow(clippy::expect_used)]

#[path = "metrics_doc/table.rs"]
mod table;

use prometheus_client::registry::Registry;
use weft_proxy::metrics::{
    AuditLabels, ByteLabels, ConnectionLabels, Direction, LatencyLabels, Metrics, RequestLabels,
    Security, TcpLabels,
};

#[test]
fn the_page_names_every_metric_of_the_proxy() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    touch(&metrics);
    table::check("proxy", &registry);
}

/// Makes one series of every family, because families without one are not shown.
fn touch(metrics: &Metrics) {
    let direction = Direction::outbound;
    let security = Security::mtls;
    metrics
        .requests
        .at(&RequestLabels {
            direction,
            service: "shop/web".into(),
            port: 80,
            backend: "shop/web".into(),
            peer: "shop/web-0".into(),
            security,
            status: 200,
            success: true,
            reason: "",
        })
        .inc();
    metrics
        .latency
        .at(&LatencyLabels {
            direction,
            service: "shop/web".into(),
            port: 80,
            backend: "shop/web".into(),
        })
        .observe(0.001);
    metrics
        .connections
        .at(&ConnectionLabels {
            direction,
            protocol: "http1",
            security,
        })
        .inc();
    metrics
        .tcp
        .at(&TcpLabels {
            direction,
            service: "shop/db".into(),
            port: 5432,
            backend: "shop/db".into(),
            peer: "shop/db-0".into(),
            security,
            reason: "",
        })
        .inc();
    metrics
        .bytes
        .at(&ByteLabels {
            direction,
            flow: "sent",
            security,
        })
        .inc();
    metrics
        .audit
        .at(&AuditLabels {
            direction,
            peer: "shop/web".into(),
            port: 80,
        })
        .inc();
    metrics.limit("connections");
}
