//! The metric families that are computed from cells: requests, attempts, opaque connections. Each
//! scrape brings them up to date first.
//!
//! Claims: observe-139

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Unit;

use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallOutcome, CellKey, Counts};
use crate::telemetry::cells::Cells;
use crate::telemetry::compatibility::Compatibility;
use crate::telemetry::histogram::{Histogram, annotate};
use crate::telemetry::labels::{
    AttemptLabels, AuditLabels, ByteLabels, CancelledLabels, Direction, LatencyLabels, LimitLabels,
    RequestLabels, RouteLabel, TcpLabels,
};
use crate::telemetry::series::{Series, Shared, Typed};

/// The histogram of requests as the page names it.
const LATENCY: &str = "weft_request_duration_seconds";

/// What is made of cells, and the cells.
#[derive(Clone, Debug)]
pub struct CallFamilies {
    pub cells: Arc<Cells>,
    pub requests: Series<RequestLabels, Counter>,
    pub cancelled: Series<CancelledLabels, Counter>,
    pub attempts: Series<AttemptLabels, Counter>,
    pub latency: Series<LatencyLabels, Histogram>,
    pub tcp: Series<TcpLabels, Counter>,
    pub bytes: Series<ByteLabels, Counter>,
    pub audit: Series<AuditLabels, Counter>,
    pub limits: Series<LimitLabels, Counter>,
    /// Series under other meshes' names, where they are configured.
    pub compatibility: Arc<OnceLock<Compatibility>>,
}

impl CallFamilies {
    /// `limits` counts bounds that are reached.
    pub(super) fn new(shared: &Shared, limits: &Series<LimitLabels, Counter>) -> Self {
        Self {
            limits: limits.clone(),
            cells: Arc::default(),
            requests: shared.counters("weft_requests", "Requests by final outcome"),
            // Counted in no other family: no response came that could be judged.
            cancelled: shared.counters(
                "weft_requests_cancelled",
                "Requests whose caller left before the head of an answer",
            ),
            attempts: shared.counters(
                "weft_attempts",
                "Requests and opaque connections sent to a backend, each try for itself",
            ),
            latency: Series::new(
                "weft_request_duration",
                "Time from request to the head of the answer",
                Some(Unit::Seconds),
                Histogram::of_seconds,
                shared,
            ),
            tcp: shared.counters("weft_tcp_connections", "Opaque connections by outcome"),
            bytes: shared.counters("weft_tcp_bytes", "Bytes of opaque connections"),
            audit: shared.counters(
                "weft_audit_refusals",
                "Calls that deny would have refused, let through by audit",
            ),
            compatibility: Arc::default(),
        }
    }

    /// Takes over what the cells have counted since the last time.
    pub(crate) fn refresh(&self) {
        self.cells.drain(|key, counts| self.add(key, counts));
    }

    /// The page of metrics, with the traces of recorded requests beside their buckets.
    pub(crate) fn annotate(&self, page: String) -> String {
        let mut series = HashMap::new();
        self.latency.each(|labels, latency| {
            let exemplars = latency.exemplars();
            if !exemplars.is_empty() {
                series.insert(labels.to_string(), exemplars);
            }
        });
        annotate(page, LATENCY, &series)
    }

    fn add(&self, key: &CellKey, counts: &Counts) {
        let call_ends = &key.call_ends;
        if key.is_opaque() {
            self.add_connections(call_ends, counts);
        } else {
            self.add_requests(key, counts);
        }
        if counts.audit > 0 {
            let labels = AuditLabels {
                direction: call_ends.direction(),
                peer: call_ends.peer(),
                port: call_ends.port_label(),
            };
            self.audit.count(&labels, counts.audit);
        }
        let (succeeded, failed) = counts.attempts_by_success();
        for (success, attempts) in [(true, succeeded), (false, failed)] {
            if attempts > 0 {
                let labels = AttemptLabels {
                    service: call_ends.service(),
                    backend: call_ends.backend(),
                    success,
                };
                self.attempts.count(&labels, attempts);
            }
        }
    }

    fn add_requests(&self, key: &CellKey, counts: &Counts) {
        let call_ends = &key.call_ends;
        let route = RouteLabel(key.route.clone().unwrap_or_default());
        for (outcome, calls) in &counts.outcomes {
            let CallOutcome {
                status,
                success,
                reason,
            } = *outcome;
            let labels = self.by_route(&self.requests, &route, |route| RequestLabels {
                direction: call_ends.direction(),
                service: call_ends.service(),
                port: call_ends.port_label(),
                backend: call_ends.backend(),
                peer: call_ends.peer(),
                security: call_ends.security(),
                status,
                success,
                reason: reason.map_or("", |reason| reason.as_str()),
                route,
            });
            self.requests.count(&labels, *calls);
        }
        if counts.latency.total() > 0 {
            let labels = self.by_route(&self.latency, &route, |route| LatencyLabels {
                direction: call_ends.direction(),
                service: call_ends.service(),
                port: call_ends.port_label(),
                backend: call_ends.backend(),
                route,
            });
            let latency = self.latency.at(&labels);
            latency.add(&counts.latency, counts.nanoseconds);
            latency.exemplify(&counts.exemplars);
        }
        if counts.cancelled > 0 {
            let labels = self.by_route(&self.cancelled, &route, |route| CancelledLabels {
                direction: call_ends.direction(),
                service: call_ends.service(),
                port: call_ends.port_label(),
                backend: call_ends.backend(),
                peer: call_ends.peer(),
                security: call_ends.security(),
                route,
            });
            self.cancelled.count(&labels, counts.cancelled);
        }
        if call_ends.direction() == Direction::inbound
            && let Some(compatibility) = self.compatibility.get()
        {
            compatibility.arrived(counts);
        }
    }

    /// Labels with the route, or, where a family has no room for that, without it.
    fn by_route<L, M>(
        &self,
        family: &Series<L, M>,
        route: &RouteLabel,
        labels: impl Fn(RouteLabel) -> L,
    ) -> L
    where
        L: Clone + Hash + Eq + Debug,
        M: Clone + Typed,
    {
        if route.0.is_empty() {
            return labels(RouteLabel::default());
        }
        let detailed = labels(route.clone());
        if family.has_room_for_detail(&detailed) {
            return detailed;
        }
        self.limit("route-series");
        labels(RouteLabel::default())
    }

    fn limit(&self, limit: &'static str) {
        self.limits.at(&LimitLabels { limit }).inc();
    }

    fn add_connections(&self, call_ends: &CallEnds, counts: &Counts) {
        for (outcome, calls) in &counts.outcomes {
            let labels = TcpLabels {
                direction: call_ends.direction(),
                service: call_ends.service(),
                port: call_ends.port_label(),
                backend: call_ends.backend(),
                peer: call_ends.peer(),
                security: call_ends.security(),
                reason: outcome.reason.map_or("", |reason| reason.as_str()),
            };
            self.tcp.count(&labels, *calls);
        }
        for (flow, bytes) in [("sent", counts.sent), ("received", counts.received)] {
            if bytes > 0 {
                let labels = ByteLabels {
                    direction: call_ends.direction(),
                    flow,
                    security: call_ends.security(),
                };
                self.bytes.count(&labels, bytes);
            }
        }
    }
}

impl Collector for CallFamilies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.refresh();
        self.requests.show(&mut encoder)?;
        self.cancelled.show(&mut encoder)?;
        self.attempts.show(&mut encoder)?;
        self.latency.show(&mut encoder)?;
        self.tcp.show(&mut encoder)?;
        self.bytes.show(&mut encoder)?;
        self.audit.show(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::protocol::Protocol;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::cell::CallGroup;
    use crate::telemetry::labels::Security;
    use crate::telemetry::metrics::Metrics;

    const GOOD: CallOutcome = CallOutcome {
        status: 200,
        success: true,
        reason: None,
    };

    fn cell_key(port: u16, route: Option<&str>) -> CellKey {
        CellKey {
            call_ends: CallEnds::Inbound {
                port,
                caller: "shop/web".into(),
                at: None,
                security: Security::mtls,
            },
            protocol: Protocol::Http1,
            route: route.map(Into::into),
            group: CallGroup::None,
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
}
