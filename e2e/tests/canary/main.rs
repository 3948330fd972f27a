//! Real progressive delivery controllers run complete canaries through TrafficSplits and through
//! an HTTPRoute, and evaluate them with a real Prometheus.
//!
//! Not part of `make test`: Flagger and Argo Rollouts are built from source for it.
//! `make conformance` makes what these tests need, names it in the environment and
//! runs them; what the tools write is tested in a lower tier by `crds/tests/clients.rs`.

mod argo;
mod client;
mod flagger;
mod gateway_api;
mod splits;
mod traffic;

use anyhow::{Context as _, ensure};
use e2e::harness::{Prometheus, cluster::root};

/// Where the documented manifests expect Prometheus.
const DOCUMENTED: &str = "http://prometheus.monitoring:9090";

/// A manifest of docs/canaries, with this run's Prometheus in it.
fn documented(name: &str, prometheus: &Prometheus) -> anyhow::Result<String> {
    let path = root().join("docs/canaries").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(
        text.contains(DOCUMENTED),
        "{name} does not name {DOCUMENTED}"
    );
    Ok(text.replace(DOCUMENTED, &prometheus.url()))
}

/// What `e2e/conformance/run` has prepared under this name.
fn prepared(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run `make conformance`"))
}
