//! Runs helm and Prometheus' promtool, without any cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::harness::{cluster::root, mesh};
use serde::Deserialize as _;
use serde_json::Value;

/// The API that a real cluster offers and helm does not assume.
pub(crate) const A_CLUSTER: &str = "apiregistration.k8s.io/v1";

/// Standard output of a program, or what it complained of.
pub(crate) fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let ended = Command::new(program)
        .args(args)
        // No cluster is queried by accident.
        .env("KUBECONFIG", "/dev/null")
        .output()
        .with_context(|| format!("start {program}: the ring is run by e2e/run prometheus"))?;
    let (out, errors) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    // promtool prints errors in queries on its standard output.
    ensure!(ended.status.success(), "{program} {args:?}: {errors}{out}");
    Ok(out.into_owned())
}

/// The objects of `chart` with these settings, where these kinds are offered beyond what
/// helm takes for granted; none: no cluster is seen.
pub(crate) fn rendered(
    chart: &str,
    settings: &[&str],
    offered: &[&str],
) -> anyhow::Result<Vec<Value>> {
    let mut args = vec!["template", "weft", chart, "-n", mesh::NAMESPACE];
    // Helm was not built for a Kubernetes of its own.
    args.extend(["--kube-version", "1.34"]);
    args.extend(settings.iter().flat_map(|set| ["--set", set]));
    args.extend(offered.iter().flat_map(|kind| ["--api-versions", kind]));
    let text = output("helm", &args)?;
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| {
            // A name that stands twice in a map is an error of YAML; JSON would take the last.
            let object = serde_yaml_ng::Value::deserialize(document);
            let object = object.context("helm wrote no YAML")?;
            serde_json::to_value(object).context("helm wrote what is no JSON")
        })
        .filter(|object| !matches!(object, Ok(Value::Null)))
        .collect()
}

/// An empty folder for what one test writes.
pub(crate) fn folder(of: &str) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/prometheus").join(of);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// JSON is YAML, so promtool reads it.
pub(crate) fn write(folder: &Path, name: &str, what: &Value) -> anyhow::Result<String> {
    let path = folder.join(name);
    fs::write(&path, what.to_string())?;
    Ok(path.to_string_lossy().into_owned())
}
