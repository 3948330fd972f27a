//! The certificate authority of the mesh: how far its rotation is, and meshes in which one may begin.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Cluster, eventually, mesh};

const AUTHORITIES: &str = "certificateauthorities.weft.dev";
/// Between rotations.
pub const STEADY: &str = "Steady";
/// Until controllers have ended.
const GONE: Duration = Duration::from_secs(120);

/// Status of `CertificateAuthority` `weft`.
pub fn status(cluster: &Cluster) -> anyhow::Result<Value> {
    let found = cluster.json(&["get", AUTHORITIES, "weft"])?;
    Ok(found["status"].clone())
}

/// Fingerprint of the root that signs.
pub fn root(cluster: &Cluster) -> anyhow::Result<Value> {
    let root = status(cluster)?["roots"][0]["fingerprint"].clone();
    ensure!(root.is_string(), "the status names no root");
    Ok(root)
}

/// What the Secret of the authority remembers of rotations; null where none was.
pub fn state(cluster: &Cluster) -> anyhow::Result<Value> {
    let template = r#"go-template={{with index .data "rotation.json"}}{{base64decode .}}{{end}}"#;
    let words = ["get", "secret", "weft-ca", "-o", template];
    let stored = cluster.kubectl(&[&["-n", mesh::NAMESPACE][..], &words].concat())?;
    if stored.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&stored).context("rotation.json")
}

/// The phase that is stored, before any status says it.
pub fn phase(cluster: &Cluster) -> anyhow::Result<String> {
    let phase = state(cluster)?["rotation"]["phase"].clone();
    Ok(phase.as_str().unwrap_or(STEADY).to_owned())
}

/// Waits until the rotation is in this phase, so long at most.
pub fn reaches(cluster: &Cluster, limit: Duration, wanted: &str) -> anyhow::Result<()> {
    eventually(limit, &format!("the rotation is in {wanted}"), || {
        let phase = phase(cluster)?;
        ensure!(phase == wanted, "it is in {phase}");
        Ok(())
    })
}

/// Waits for the end of a rotation to a root of this source that is not `former`, which it returns.
pub fn ended(
    cluster: &Cluster,
    limit: Duration,
    source: &str,
    former: &Value,
) -> anyhow::Result<Value> {
    eventually(limit, "the rotation has ended", || {
        let status = status(cluster)?;
        ensure!(status["phase"] == STEADY, "{status:#}");
        ensure!(status["source"] == source, "{status:#}");
        let roots = status["roots"].as_array().context("no roots")?;
        ensure!(roots.len() == 1, "{roots:#?}");
        let root = roots[0]["fingerprint"].clone();
        ensure!(root != *former, "{root} is the former one");
        Ok(root)
    })
}

/// Ends all controllers at once, and waits until they are gone. The next installation starts others.
pub fn without_controllers(cluster: &Cluster) -> anyhow::Result<()> {
    let words = ["-n", mesh::NAMESPACE, "scale", "--replicas=0"];
    cluster.kubectl(&[&words[..], &["deployment/weft-controller"]].concat())?;
    let label = "app.kubernetes.io/component=controller";
    let pods = ["-n", mesh::NAMESPACE, "get", "pods", "-l", label];
    eventually(GONE, "the controllers have ended", || {
        let left = cluster.json(&pods)?;
        ensure!(left["items"] == json!([]), "{left:#}");
        Ok(())
    })
}

/// Installs with these settings a mesh that may begin a planned rotation at once. Such rotations
/// begin ten minutes apart, as the Secret notes; controllers that start take it without that note.
pub fn install_rotatable(cluster: &Cluster, settings: &[&str]) -> anyhow::Result<()> {
    without_controllers(cluster)?;
    let mut state = state(cluster)?;
    if !state.is_null() {
        // The rest stays, such as whose root it is.
        state["began"] = Value::Null;
        let patch = json!({"stringData": {"rotation.json": state.to_string()}}).to_string();
        let words = ["patch", "secret", "weft-ca", "-p", &patch];
        cluster.kubectl(&[&["-n", mesh::NAMESPACE][..], &words].concat())?;
    }
    // A request of an earlier test, which waits for its ten minutes, would begin now.
    let known = cluster.kubectl(&["get", AUTHORITIES, "-o", "name"])?;
    if !known.trim().is_empty() {
        let patch = r#"{"spec":{"rotation":null}}"#;
        cluster.kubectl(&["patch", AUTHORITIES, "weft", "--type=merge", "-p", patch])?;
    }
    mesh::install(settings)?;
    let status = ["-n", mesh::NAMESPACE, "rollout", "status"];
    let of = ["deployment/weft-controller", "--timeout=120s"];
    cluster.kubectl(&[&status[..], &of].concat()).map(drop)
}
