//! Metrics under the names that other meshes gave theirs, for tools whose queries cannot be
//! changed: Flagger's providers `linkerd` and `osm`.
//!
//! Off unless the chart's value `proxy.compatibilitySeries` names them, and then only what these
//! tools query: requests that arrived at this workload. The name of the workload was stamped on
//! the proxy when the pod was made, because a pod's own name does not identify it for sure.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::settings::Compatibility as CompatibilitySettings;
use crate::telemetry::cell::Counts;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::series::{Series, Shared};

/// Label and value; names are those of the mesh that is copied.
type Labels = Vec<(String, String)>;

/// The series of the meshes that are configured.
#[derive(Clone, Debug)]
pub struct Compatibility {
    linkerd: Option<Copied>,
    osm: Option<Copied>,
}

/// One mesh's pair of series, and the labels that never change in this pod.
#[derive(Clone, Debug)]
struct Copied {
    requests: Series<Labels, Counter>,
    latency: Series<Labels, Histogram>,
    fixed: Labels,
}

impl Compatibility {
    /// Registers what is configured.
    pub fn register(
        registry: &mut Registry,
        wanted: &CompatibilitySettings,
        namespace: &str,
        pod: &str,
        shared: &Shared,
    ) -> Self {
        let mut copied = |requests: &'static str, latency: &'static str, fixed: &[(&str, &str)]| {
            let fixed = fixed
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let copied = Copied {
                requests: shared.counters(requests, "As another mesh counts requests"),
                // Both meshes count latency in milliseconds.
                latency: Series::new(
                    latency,
                    "As another mesh counts latency",
                    None,
                    Histogram::of_milliseconds,
                    shared,
                ),
                fixed: fixed.collect(),
            };
            registry.register_collector(Box::new(copied.requests.clone()));
            registry.register_collector(Box::new(copied.latency.clone()));
            copied
        };
        // Linkerd names the label after the kind: deployment="web".
        let kind = wanted.kind.to_lowercase();
        let linkerd = wanted.linkerd.then(|| {
            let fixed = [
                ("namespace", namespace),
                (kind.as_str(), wanted.workload.as_str()),
                ("pod", pod),
                ("direction", "inbound"),
            ];
            copied("response", "response_latency_ms", &fixed)
        });
        let osm = wanted.osm.then(|| {
            let fixed = [
                ("destination_namespace", namespace),
                ("destination_kind", wanted.kind.as_str()),
                ("destination_name", wanted.workload.as_str()),
                ("destination_pod", pod),
            ];
            copied("osm_request", "osm_request_duration_ms", &fixed)
        });
        Self { linkerd, osm }
    }

    /// Requests that arrived here have ended.
    pub(crate) fn arrived(&self, counts: &Counts) {
        for (outcome, calls) in &counts.outcomes {
            let status = outcome.status.to_string();
            if let Some(linkerd) = &self.linkerd {
                let classification = if outcome.success {
                    "success"
                } else {
                    "failure"
                };
                linkerd.count(
                    &[("classification", classification), ("status_code", &status)],
                    *calls,
                );
            }
            if let Some(osm) = &self.osm {
                osm.count(&[("response_code", &status)], *calls);
            }
        }
        if counts.latency.total() > 0 {
            for copied in self.linkerd.iter().chain(&self.osm) {
                let latency = copied.latency.at(&copied.fixed);
                latency.add(&counts.latency, counts.nanoseconds);
            }
        }
    }
}

impl Copied {
    fn count(&self, more: &[(&str, &str)], calls: u64) {
        let mut labels = self.fixed.clone();
        labels.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self.requests.count(&labels, calls);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::protocol::Protocol;
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::telemetry::call_ends::CallEnds;
    use crate::telemetry::cell::{CallCounters, CallGroup, CallOutcome, CellKey};
    use crate::telemetry::labels::Direction;

    fn scraped(linkerd: bool, osm: bool) -> String {
        let mut registry = Registry::default();
        let wanted = CompatibilitySettings {
            linkerd,
            osm,
            kind: "Deployment".into(),
            workload: "web".into(),
        };
        let series =
            Compatibility::register(&mut registry, &wanted, "shop", "web-1", &Shared::default());
        let cell = CallCounters::new(CellKey {
            call_ends: CallEnds::Rest(Direction::inbound),
            protocol: Protocol::Http1,
            route: None,
            group: CallGroup::None,
        });
        for (status, success, milliseconds) in [
            (200, true, 3),
            (200, true, 3),
            // A gRPC failure fails with status 200.
            (200, false, 3),
            (502, false, 2000),
        ] {
            let outcome = CallOutcome {
                status,
                success,
                reason: None,
            };
            cell.begin();
            cell.answered(outcome, Duration::from_millis(milliseconds));
            cell.leave();
        }
        series.arrived(&cell.take(&mut (0, 0)).unwrap());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn series_have_every_label_that_flaggers_queries_select_by() {
        let text = scraped(true, true);
        for line in [
            "response_total{namespace=\"shop\",deployment=\"web\",pod=\"web-1\",direction=\"inbound\",classification=\"success\",status_code=\"200\"} 2",
            "response_total{namespace=\"shop\",deployment=\"web\",pod=\"web-1\",direction=\"inbound\",classification=\"failure\",status_code=\"200\"} 1",
            "response_total{namespace=\"shop\",deployment=\"web\",pod=\"web-1\",direction=\"inbound\",classification=\"failure\",status_code=\"502\"} 1",
            "response_latency_ms_bucket{le=\"3.4\",namespace=\"shop\",deployment=\"web\",pod=\"web-1\",direction=\"inbound\"} 3",
            "osm_request_total{destination_namespace=\"shop\",destination_kind=\"Deployment\",destination_name=\"web\",destination_pod=\"web-1\",response_code=\"200\"} 3",
            "osm_request_total{destination_namespace=\"shop\",destination_kind=\"Deployment\",destination_name=\"web\",destination_pod=\"web-1\",response_code=\"502\"} 1",
            "osm_request_duration_ms_bucket{le=\"2700.0\",destination_namespace=\"shop\",destination_kind=\"Deployment\",destination_name=\"web\",destination_pod=\"web-1\"} 4",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn unrequested_mesh_compatibility_series_are_not_exported() {
        let text = scraped(true, false);
        assert!(
            text.contains("response_total{") && !text.contains("osm_"),
            "{text}"
        );
        assert_eq!(scraped(false, false), "# EOF\n");
    }
}
