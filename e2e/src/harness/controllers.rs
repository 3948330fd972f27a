//! The controller's replicas: finds and kills them.

use anyhow::Context as _;

use super::{Cluster, Pod, mesh};

/// Those that are not on their way out.
pub fn all(cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let label = "app.kubernetes.io/component=controller";
    let list = cluster.json(&["-n", mesh::NAMESPACE, "get", "pods", "-l", label])?;
    let pods = list["items"].as_array().into_iter().flatten();
    let pods = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let pods = pods.map(|pod| Pod::listed(cluster, mesh::NAMESPACE, pod));
    Ok(pods.collect())
}

/// The name of the one that writes for all.
pub fn leader(cluster: &Cluster) -> anyhow::Result<String> {
    let lease = cluster.json(&["-n", mesh::NAMESPACE, "get", "lease", "weft-controller"])?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    Ok(holder.context("no controller holds the Lease")?.to_owned())
}

/// Kills those pods without a graceful end.
pub fn kill(cluster: &Cluster, pods: &[String]) -> anyhow::Result<()> {
    let delete = ["-n", mesh::NAMESPACE, "delete", "pod", "--wait=false"];
    let force = ["--grace-period=0", "--force"];
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    cluster
        .kubectl(&[&delete[..], &force, &pods[..]].concat())
        .map(drop)
}
