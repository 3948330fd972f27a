//! The metrics API and the read API are switched off and on again. A part of the upgrade in
//! `lifecycle`.

use std::time::Duration;

use anyhow::ensure;
use e2e::harness::{Cluster, Namespace, eventually, mesh};

use super::altered::{own_pods, own_ready};

const SOON: Duration = Duration::from_secs(60);
/// The metrics API's own words.
const NO_CERTIFICATE: &str = "no client certificate was shown";
/// The API server's error for a port on which nothing listens.
const CLOSED: &str = ":8444: connect: connection refused";
/// Both, as values of the chart.
pub(super) const OFF: [&str; 2] = ["metricsApi.enabled=false", "observe.enabled=false"];

/// Control: what is looked for later is there while the values are on.
pub(super) fn apis_are_served(cluster: &Cluster) -> anyhow::Result<()> {
    let served = api_services(cluster)?;
    ensure!(served.len() == 3, "{served:?}");
    answers(cluster, NO_CERTIFICATE)
}

/// With [`OFF`].
// Claims: observability-17
pub(super) fn apis_are_gone_and_hold_up_no_namespace(cluster: &Cluster) -> anyhow::Result<()> {
    own_ready(cluster)?;
    let left = api_services(cluster)?;
    ensure!(left.is_empty(), "{left:?} is left");
    answers(cluster, CLOSED)?;
    let ns = Namespace::meshed("unmeasured")?;
    let words = ["delete", "namespace", &ns.name, "--timeout=60s"];
    cluster.kubectl(&words).map(drop)
}

/// Once the values are as they were.
// Claims: observability-17
pub(super) fn apis_are_served_again(cluster: &Cluster) -> anyhow::Result<()> {
    own_ready(cluster)?;
    let wait = ["wait", "--for=condition=Available", "--timeout=60s"];
    for service in api_services(cluster)? {
        cluster.kubectl(&[&wait[..], &[&service]].concat())?;
    }
    apis_are_served(cluster)
}

/// As `apiservice.apiregistration.k8s.io/...`.
fn api_services(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let all = cluster.kubectl(&["get", "apiservices", "-o", "name"])?;
    let ours = all
        .lines()
        .filter(|name| name.ends_with("metrics.smi-spec.io") || name.ends_with("observe.weft.dev"));
    Ok(ours.map(str::to_owned).collect())
}

/// The response of every controller's port, one at least, to a client without a certificate.
fn answers(cluster: &Cluster, word: &str) -> anyhow::Result<()> {
    eventually(SOON, word, || {
        let pods = own_pods(cluster)?;
        let names = pods.iter().filter_map(|pod| pod.strip_prefix("pod/"));
        let controllers: Vec<&str> = names
            .filter(|name| name.starts_with("weft-controller"))
            .collect();
        ensure!(!controllers.is_empty(), "no controller: {pods:?}");
        for pod in controllers {
            let path = format!(
                "/api/v1/namespaces/{}/pods/https:{pod}:8444/proxy/apis",
                mesh::NAMESPACE
            );
            let body = match cluster.kubectl(&["get", "--raw", &path]) {
                Ok(answer) => answer,
                Err(error) => format!("{error:#}"),
            };
            ensure!(body.contains(word), "{pod}: {body}");
        }
        Ok(())
    })
}
