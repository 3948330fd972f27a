//! A mesh that is not as the chart's defaults make it, for as long as a test
//! needs that.

use anyhow::Context as _;
use e2e::harness::{Cluster, mesh};

/// Puts the defaults back when it goes, however the test ends.
#[derive(Debug)]
pub(crate) struct Altered {
    armed: bool,
}

impl Altered {
    /// Hold one before changing anything.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        mesh::installed()?;
        Ok(Self { armed: true })
    }

    /// The defaults, now, so that the test can look at what follows.
    pub(crate) fn restore(mut self) -> anyhow::Result<()> {
        mesh::install(&[]).context("put the chart's defaults back")?;
        self.armed = false;
        Ok(())
    }

    /// The test has only ended pods that come back by themselves, and has waited for that:
    /// there is nothing to put back.
    pub(crate) fn nothing_to_restore(mut self) {
        self.armed = false;
    }
}

impl Drop for Altered {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = mesh::install(&[])
        {
            eprintln!("the mesh is not back at its defaults: {error:#}");
        }
    }
}

/// Names of the pods of controller and injector that are there, also those that
/// are ending.
pub(crate) fn own_pods(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let names = cluster.kubectl(&[
        "-n",
        mesh::NAMESPACE,
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component in (controller, injector)",
        "-o",
        "name",
    ])?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Scales these Deployments of the mesh. [`Altered`] restores them when it is dropped.
pub(crate) fn scale(cluster: &Cluster, parts: &[&str], replicas: u32) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    let words = ["-n", mesh::NAMESPACE, "scale", &replicas];
    cluster.kubectl(&[&words[..], parts].concat()).map(drop)
}

/// Waits until all replicas that controller and injector should have are ready.
pub(crate) fn own_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let words = [
        "-n",
        mesh::NAMESPACE,
        "rollout",
        "status",
        "deployment/weft-controller",
        "deployment/weft-injector",
        "--timeout=120s",
    ];
    cluster.kubectl(&words).map(drop)
}
