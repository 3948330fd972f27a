//! docs/metrics.md names every metric of the proxy, as a scraper sees it.
//! `WEFT_WRITE_GENERATED=1 cargo test -p proxy --test metrics_doc` writes it anew.

#![allow(clippy::expect_used)]

#[path = "metrics_doc/table.rs"]
mod table;

use prometheus_client::registry::Registry;
use weft_proxy::metrics::{
    AuditLabels, ByteLabels, ConnectionLabels, Direction, LatencyLabels, Metrics, RequestLabels,
    Security, TcpLabels, TlsLabels,
};

#[test]
fn the_page_names_every_metric_of_the_proxy() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    touch(&metrics);
    table::check("proxy", &registry);
}

/// Makes one series of every family, because families without one are not shown.
/// Every field is named, so that nobody adds one and forgets it here.
fn touch(metrics: &Metrics) {
    let Metrics {
        requests,
        latency,
        connections,
        tcp,
        bytes,
        audit,
        tls_failures,
        limits: _,
        open_connections: _,
        unknown_destinations: _,
        certificate_expiry: _,
        certificate_failures: _,
        control_connected: _,
        batches: _,
        nacks: _,
        destinations: _,
        compatibility: _,
        series_refused: _,
    } = metrics;
    let direction = Direction::outbound;
    let security = Security::mtls;
    tls_failures
        .at(&TlsLabels {
            direction,
            reason: "handshake",
        })
        .inc();
    requests
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
    latency
        .at(&LatencyLabels {
            direction,
            service: "shop/web".into(),
            port: 80,
            backend: "shop/web".into(),
        })
        .observe(0.001);
    connections
        .at(&ConnectionLabels {
            direction,
            protocol: "http1",
            security,
        })
        .inc();
    tcp.at(&TcpLabels {
        direction,
        service: "shop/db".into(),
        port: 5432,
        backend: "shop/db".into(),
        peer: "shop/db-0".into(),
        security,
        reason: "",
    })
    .inc();
    bytes
        .at(&ByteLabels {
            direction,
            flow: "sent",
            security,
        })
        .inc();
    audit
        .at(&AuditLabels {
            direction,
            peer: "shop/web".into(),
            port: 80,
        })
        .inc();
    metrics.limit("connections");
}
