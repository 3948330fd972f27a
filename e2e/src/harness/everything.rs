//! Access to all kinds of a cluster, as generic tools have it: discovery first, then every
//! kind that it lists.

use anyhow::{Context as _, ensure};

use super::Cluster;

/// Groups that the mesh's controllers answer for.
pub const OURS: [&str; 2] = ["metrics.smi-spec.io", "observe.weft.dev"];

/// Every resource that can be listed, as `kubectl get` takes it. A group that does not answer
/// is missing, as for any client.
pub fn listable(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let words = ["api-resources", "--verbs=list", "-o", "name"];
    // Ends with 1 where some group does not answer, and names the others all the same.
    let output = cluster.command("kubectl", &words).output()?;
    let names = String::from_utf8_lossy(&output.stdout);
    let names: Vec<String> = names.lines().map(str::to_owned).collect();
    for known in [
        "pods",
        "deployments.apps",
        "trafficsplits.split.smi-spec.io",
    ] {
        ensure!(
            names.iter().any(|name| name == known),
            "kubectl knows no {known}: {names:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(names)
}

/// Whether the mesh's controllers answer for a resource.
pub fn is_ours(name: &str) -> bool {
    OURS.iter().any(|group| name.ends_with(group))
}

/// `kubectl get` of all of these in `scope`.
///
/// # Errors
/// When it fails, or says of something of the mesh that it does not answer, if that is asked
/// for. Of groups that are not, kubectl may say so.
pub fn get(cluster: &Cluster, names: &[String], scope: &[&str]) -> anyhow::Result<String> {
    let all = names.join(",");
    let words = [
        &["get", &all, "--ignore-not-found", "--show-kind"][..],
        scope,
    ]
    .concat();
    let output = cluster.command("kubectl", &words).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    let is_clean =
        !names.iter().any(|name| is_ours(name)) || !OURS.iter().any(|group| error.contains(group));
    ensure!(
        output.status.success() && is_clean,
        "kubectl get of everything: {}\n{error}",
        output.status
    );
    String::from_utf8(output.stdout).context("kubectl get of everything")
}
