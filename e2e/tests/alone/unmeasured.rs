//! The metrics API and the read API are switched off, and on again.

use std::time::Duration;

use anyhow::ensure;
use e2e::harness::{Cluster, Namespace, Outcome, eventually, mesh};

use super::altered::{Altered, own_pods, own_ready};

const SOON: Duration = Duration::from_secs(60);
/// The metrics API's own words.
const NO_CERTIFICATE: &str = "no client certificate was shown";

#[test]
fn metrics_api_that_is_switched_off_is_not_served_and_holds_up_no_namespace() -> Outcome {
    let cluster = Cluster::connect()?;
    let altered = Altered::begin()?;
    // Control: what is looked for is there while the value is on.
    assert_eq!(api_services(&cluster)?.len(), 3);
    answers(&cluster, NO_CERTIFICATE)?;

    mesh::install(&["metricsApi.enabled=false", "observe.enabled=false"])?;
    own_ready(&cluster)?;
    let left = api_services(&cluster)?;
    assert!(left.is_empty(), "{left:?} is left");
    answers(&cluster, "refused")?;
    let ns = Namespace::meshed("unmeasured")?;
    let words = ["delete", "namespace", &ns.name, "--timeout=60s"];
    cluster.kubectl(&words)?;

    altered.restore()?;
    own_ready(&cluster)?;
    let wait = ["wait", "--for=condition=Available", "--timeout=60s"];
    for service in api_services(&cluster)? {
        cluster.kubectl(&[&wait[..], &[&service]].concat())?;
    }
    answers(&cluster, NO_CERTIFICATE)?;
    Ok(())
}

/// As `apiservice.apiregistration.k8s.io/...`.
fn api_services(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let all = cluster.kubectl(&["get", "apiservices", "-o", "name"])?;
    let ours = all
        .lines()
        .filter(|name| name.ends_with("metrics.smi-spec.io") || name.ends_with("observe.weft.dev"));
    Ok(ours.map(str::to_owned).collect())
}

/// What every controller's port says to somebody without a certificate.
fn answers(cluster: &Cluster, word: &str) -> anyhow::Result<()> {
    eventually(SOON, word, || {
        for pod in own_pods(cluster)? {
            let Some(name) = pod.strip_prefix("pod/weft-controller") else {
                continue;
            };
            let path = format!(
                "/api/v1/namespaces/{}/pods/https:weft-controller{name}:8444/proxy/apis",
                mesh::NAMESPACE
            );
            let said = match cluster.kubectl(&["get", "--raw", &path]) {
                Ok(answer) => answer,
                Err(error) => format!("{error:#}"),
            };
            ensure!(said.contains(word), "{pod}: {said}");
        }
        Ok(())
    })
}
