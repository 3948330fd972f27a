//! The definitions of the Gateway API, which the mesh reads where a cluster has them and never
//! installs.
//!
//! The first test that needs them applies them, beside a mesh that may be running: that its
//! controllers then read routes without a restart is a part of what these tests show.

use std::{env, path::Path, sync::OnceLock};

use anyhow::Context as _;

use super::Cluster;

/// The folder of their module, which `e2e/run` prepares.
const SOURCE: &str = "GATEWAY_API_SOURCE";
/// Kinds that routes with Services as parents need.
const KINDS: [&str; 4] = ["httproutes", "grpcroutes", "tcproutes", "referencegrants"];
/// As they are called in files and objects.
const GROUP: &str = "gateway.networking.k8s.io";

/// Applies the definitions of the standard channel, once per test program, unless the cluster
/// has some.
pub fn installed() -> anyhow::Result<()> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| install().map_err(|error| format!("{error:#}")));
    outcome
        .clone()
        .map_err(|error| anyhow::anyhow!("the Gateway API cannot be installed: {error}"))
}

fn install() -> anyhow::Result<()> {
    let cluster = Cluster::connect()?;
    let names = KINDS.map(|kind| format!("crd/{kind}.{GROUP}"));
    let names = names.each_ref().map(String::as_str);
    if cluster.kubectl(&[&["get"], &names[..]].concat()).is_ok() {
        return Ok(());
    }
    let source = env::var(SOURCE).with_context(|| {
        format!("{SOURCE} is not set: run `make test`, or install the Gateway API's standard channel in this cluster")
    })?;
    let folder = Path::new(&source).join("config/crd/standard");
    for kind in KINDS {
        let file = folder.join(format!("{GROUP}_{kind}.yaml"));
        // Their schemas are too long for the annotation of a client-side apply.
        let words = ["apply", "--server-side", "--force-conflicts", "-f"];
        cluster.kubectl(&[&words[..], &[&*file.to_string_lossy()]].concat())?;
    }
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    cluster.kubectl(&[&wait[..], &names].concat()).map(drop)
}
