//! Series under the names that other meshes gave theirs, for tools whose queries
//! cannot be changed: Flagger's providers `linkerd` and `osm`.
//!
//! Off unless the chart's value `proxy.compatibilitySeries` names them, and then
//! only what these tools ask: requests that arrived at this workload. The name of
//! the workload was stamped on the proxy when the pod was made, because a pod's
//! own name does not tell it for sure.

use std::time::{Duration, Instant};

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::settings::Compatibility as Asked;
use crate::telemetry::series::{Series, Shared, Typed};

/// Both meshes count latency in milliseconds.
const MILLIS: f64 = 1000.0;

/// Label and value; names are those of the mesh that is copied.
type Labels = Vec<(String, String)>;

/// The series of the meshes that were asked for.
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
    /// Registers what was asked for.
    pub fn register(
        registry: &mut Registry,
        asked: &Asked,
        namespace: &str,
        pod: &str,
        shared: &Shared,
    ) -> Self {
        let mut copied = |requests: &'static str, latency: &'static str, fixed: &[(&str, &str)]| {
            let fixed = fixed
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let copied = Copied {
                requests: series(
                    requests,
                    "As another mesh counts requests",
                    shared,
                    Counter::default,
                ),
                latency: series(latency, "As another mesh counts latency", shared, || {
                    Histogram::new(policy::latency::BOUNDS.map(|bound| bound * MILLIS))
                }),
                fixed: fixed.collect(),
            };
            registry.register_collector(Box::new(copied.requests.clone()));
            registry.register_collector(Box::new(copied.latency.clone()));
            copied
        };
        // Linkerd names the label after the kind: deployment="web".
        let kind = asked.kind.to_lowercase();
        let linkerd = asked.linkerd.then(|| {
            let fixed = [
                ("namespace", namespace),
                (kind.as_str(), asked.workload.as_str()),
                ("pod", pod),
                ("direction", "inbound"),
            ];
            copied("response", "response_latency_ms", &fixed)
        });
        let osm = asked.osm.then(|| {
            let fixed = [
                ("destination_namespace", namespace),
                ("destination_kind", asked.kind.as_str()),
                ("destination_name", asked.workload.as_str()),
                ("destination_pod", pod),
            ];
            copied("osm_request", "osm_request_duration_ms", &fixed)
        });
        Self { linkerd, osm }
    }

    /// One request that arrived here has ended.
    pub fn arrived(&self, status: StatusCode, success: bool, latency: Duration) {
        let millis = latency.as_secs_f64() * MILLIS;
        if let Some(linkerd) = &self.linkerd {
            let classification = if success { "success" } else { "failure" };
            linkerd.count(
                &[
                    ("classification", classification),
                    ("status_code", status.as_str()),
                ],
                millis,
            );
        }
        if let Some(osm) = &self.osm {
            osm.count(&[("response_code", status.as_str())], millis);
        }
    }
}

impl Copied {
    fn count(&self, more: &[(&str, &str)], millis: f64) {
        let mut labels = self.fixed.clone();
        labels.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self.requests.at(&labels).inc();
        self.latency.at(&self.fixed).observe(millis);
    }
}

fn series<M: Clone + Typed>(
    name: &'static str,
    help: &'static str,
    shared: &Shared,
    make: fn() -> M,
) -> Series<Labels, M> {
    Series::new(name, help, None, Instant::now(), make, shared)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn scraped(linkerd: bool, osm: bool) -> String {
        let mut registry = Registry::default();
        let asked = Asked {
            linkerd,
            osm,
            kind: "Deployment".into(),
            workload: "web".into(),
        };
        let series =
            Compatibility::register(&mut registry, &asked, "shop", "web-1", &Shared::default());
        series.arrived(StatusCode::OK, true, Duration::from_millis(3));
        series.arrived(StatusCode::OK, true, Duration::from_millis(3));
        // A gRPC failure fails with status 200.
        series.arrived(StatusCode::OK, false, Duration::from_millis(3));
        series.arrived(StatusCode::BAD_GATEWAY, false, Duration::from_secs(2));
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
    fn a_mesh_that_was_not_asked_for_is_not_copied() {
        let text = scraped(true, false);
        assert!(
            text.contains("response_total{") && !text.contains("osm_"),
            "{text}"
        );
        assert_eq!(scraped(false, false), "# EOF\n");
    }
}
