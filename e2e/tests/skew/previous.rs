//! The older version: which it is, its install, and the way back to it.

use std::{collections::BTreeSet, env};

use anyhow::{Context as _, bail, ensure};
use e2e::harness::{Cluster, Pod, eventually, mesh};
use serde_json::Value;

use super::SOON;

/// What `e2e/skew/run` has prepared.
#[derive(Debug)]
pub(crate) struct Previous {
    chart: String,
    /// Of its programs and images, which are this version's under another number.
    pub(crate) number: String,
    /// Whether its proxies carry out TrafficPolicies.
    pub(crate) knows_policies: bool,
    /// The same of routes of the Gateway API.
    pub(crate) knows_routes: bool,
    /// Whether its proxies report which roots they have, and its controllers rotate them.
    pub(crate) knows_rotations: bool,
    /// Whether its proxies refuse what is revoked.
    pub(crate) knows_revocations: bool,
}

fn prepared(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `make skew`"))
}

fn is_known(name: &str) -> anyhow::Result<bool> {
    match prepared(name)?.as_str() {
        "known" => Ok(true),
        "unknown" => Ok(false),
        other => bail!("{name} is {other}: known or unknown"),
    }
}

impl Previous {
    pub(crate) fn prepared() -> anyhow::Result<Self> {
        let mesh = prepared("MESH")?;
        ensure!(
            mesh == "none",
            "MESH is {mesh}, not none: the harness would install this version first"
        );
        Ok(Self {
            chart: prepared("PREVIOUS_CHART")?,
            number: prepared("PREVIOUS_NUMBER")?,
            knows_policies: is_known("PREVIOUS_POLICIES")?,
            knows_routes: is_known("PREVIOUS_ROUTES")?,
            knows_rotations: is_known("PREVIOUS_ROTATIONS")?,
            knows_revocations: is_known("PREVIOUS_REVOCATIONS")?,
        })
    }

    /// The reason of a policy's `Programmed` while one of its callers has an older proxy.
    pub(crate) const fn reason(&self) -> &'static str {
        if self.knows_policies {
            "Programmed"
        } else {
            "ProxyTooOld"
        }
    }

    /// Those of these pods with an older proxy that their policy's status names.
    pub(crate) const fn too_old<'a>(&self, older: &'a [&'a Pod]) -> &'a [&'a Pod] {
        if self.knows_policies { &[] } else { older }
    }

    /// As revision 1, as before this version existed: with an authority that the older version
    /// makes, and without a definition that it does not bring.
    pub(crate) fn install(&self, cluster: &Cluster) -> anyhow::Result<()> {
        remove(cluster)?;
        let tag = format!("image.tag={}", self.number);
        let sets = [
            "--set-string",
            "image.registry=weft.local",
            "--set-string",
            &tag,
        ];
        let words = ["install", "weft", &self.chart, "-n", mesh::NAMESPACE];
        let flags = ["--create-namespace", "--wait", "--timeout", "4m"];
        cluster.helm(&[&words[..], &flags, &sets].concat())?;
        self.runs(cluster)
    }

    /// Back to revision 1.
    pub(crate) fn roll_back(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let words = ["rollback", "weft", "1", "-n", mesh::NAMESPACE];
        cluster.helm(&[&words[..], &["--wait", "--timeout", "4m"]].concat())?;
        self.runs(cluster)
    }

    /// Controllers and injectors are of the older version, and none of another is left that
    /// could have served what is tried next.
    fn runs(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let expected = ["controller", "injector"];
        let expected = expected.map(|part| format!("weft.local/weft/{part}:{}", self.number));
        eventually(SOON, "the older version runs, and no other", || {
            let seen = images(cluster)?;
            ensure!(seen.iter().eq(&expected), "{seen:?} run, not {expected:?}");
            Ok(())
        })
    }

    /// The same after an upgrade, the other way round.
    pub(crate) fn is_gone(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let tag = format!(":{}", self.number);
        eventually(SOON, "the older version runs no more", || {
            let seen = images(cluster)?;
            let left = seen.iter().any(|image| image.ends_with(&tag));
            ensure!(!left && seen.len() == 2, "{seen:?} run");
            Ok(())
        })
    }
}

/// Those that the pods of controller and injector run, also pods that are ending.
fn images(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let label = "app.kubernetes.io/component in (controller, injector)";
    let list = cluster.json(&["-n", mesh::NAMESPACE, "get", "pods", "-l", label])?;
    let pods = list["items"].as_array().into_iter().flatten();
    let image = |pod: &Value| {
        let image = pod["spec"]["containers"][0]["image"].as_str();
        image.unwrap_or_default().to_owned()
    };
    Ok(pods.map(image).collect())
}

/// Takes the mesh out, whichever version it is of, and what it leaves behind on purpose and an
/// older one would find.
fn remove(cluster: &Cluster) -> anyhow::Result<()> {
    let list = ["list", "-a", "-n", mesh::NAMESPACE, "-o", "json"];
    let releases: Value = serde_json::from_str(&cluster.helm(&list)?)?;
    let mut releases = releases.as_array().into_iter().flatten();
    if releases.any(|release| release["name"] == "weft") {
        let words = ["uninstall", "weft", "-n", mesh::NAMESPACE, "--wait"];
        cluster.helm(&[&words[..], &["--timeout", "3m"]].concat())?;
    }
    let secrets = ["delete", "secret", "weft-ca", "weft-injector-ca"];
    let words = [&["-n", mesh::NAMESPACE], &secrets[..]].concat();
    cluster.kubectl(&[&words[..], &["--ignore-not-found"]].concat())?;
    let all = ["get", "crd", "-o", "name"];
    let definitions = cluster.kubectl(&all)?;
    let ours = definitions
        .lines()
        .filter(|name| name.ends_with(".weft.dev"));
    let ours: Vec<&str> = ours.collect();
    if ours.is_empty() {
        return Ok(());
    }
    let words = ["delete", "--ignore-not-found", "--timeout=60s"];
    cluster.kubectl(&[&words[..], &ours].concat()).map(drop)
}
