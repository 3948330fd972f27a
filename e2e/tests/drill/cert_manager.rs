//! The real cert-manager owns the mesh's issuer: it makes it, renews it below the same root, and
//! replaces root and issuer at once.
//!
//! It runs beside the cluster with the rights of an administrator, limited to the mesh's namespace:
//! what counts is what it writes into the Secret, and when.
//!
//! Claims: trust-11

use std::{
    env, fs,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use e2e::harness::{
    Cluster, Outcome,
    authority::{self, install_rotatable},
    cluster::root,
    eventually, mesh,
};
use serde_json::{Value, json};

use super::{ENDED, SETTLE, altered::Altered, sound::is_sound, town::Town};

const SECRET: [&str; 3] = [
    SETTLE,
    "identity.issuer.source=secret",
    "identity.issuer.secretName=mesh-issuer",
];
const ISSUER: &str = "certificates.cert-manager.io/mesh-issuer";
/// Until cert-manager has made or renewed a certificate, and the controllers have taken it.
const MADE: Duration = Duration::from_secs(120);
const LOG: &str = "target/test-logs/drill-cert-manager.log";

/// The running controller, and its definitions, which go with it.
struct CertManager<'a> {
    cluster: &'a Cluster,
    child: Child,
    definitions: Vec<String>,
}

fn prepared(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run `make drill`"))
}

impl<'a> CertManager<'a> {
    fn start(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let folder = prepared("CERT_MANAGER_SOURCE")?;
        let mut definitions = Vec::new();
        for entry in fs::read_dir(format!("{folder}/deploy/crds"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|kind| kind != "yaml") {
                continue;
            }
            // Labels are of its chart.
            let text = fs::read_to_string(&path)?;
            let of_chart = |line: &str| line == "  labels:" || line.contains("{{");
            let lines = text.lines().filter(|line| !of_chart(line));
            let text = lines.collect::<Vec<_>>().join("\n");
            let flags = ["--server-side", "--force-conflicts", "-o", "name"];
            let names = cluster.apply_with("default", &flags, &text)?;
            definitions.extend(names.lines().map(str::to_owned));
        }
        ensure!(!definitions.is_empty(), "no definitions in {folder}");
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        let names: Vec<&str> = definitions.iter().map(String::as_str).collect();
        cluster.kubectl(&[&wait[..], &names].concat())?;
        let kubeconfig = format!("--kubeconfig={}", prepared("KUBECONFIG")?);
        let namespace = format!("--namespace={}", mesh::NAMESPACE);
        let words = [
            kubeconfig.as_str(),
            &namespace,
            "--leader-elect=false",
            "--metrics-listen-address=127.0.0.1:9402",
        ];
        let log = fs::File::create(root().join(LOG)).context(LOG)?;
        let child = cluster
            .command(&prepared("CERT_MANAGER")?, &words)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start cert-manager")?;
        Ok(Self {
            cluster,
            child,
            definitions,
        })
    }

    fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let applied = self.cluster.apply(mesh::NAMESPACE, &list.to_string());
        applied.map(drop)
    }

    /// A root of its own, and the issuer of the mesh below it. The former one's name is another, as
    /// is the common name of the issuer, so that it is made anew.
    fn issues_below(&self, name: &str) -> anyhow::Result<()> {
        let group = "cert-manager.io/v1";
        let issuer = |name: &str, spec: Value| json!({"apiVersion": group, "kind": "Issuer", "metadata": {"name": name}, "spec": spec});
        let (root, by) = (format!("drill-{name}"), format!("drill-by-{name}"));
        let root_certificate = json!({"apiVersion": group, "kind": "Certificate", "metadata": {"name": root}, "spec": {
            "isCA": true, "commonName": root, "secretName": root, "duration": "8760h",
            "privateKey": {"algorithm": "ECDSA", "size": 256}, "issuerRef": {"name": "drill-self"}}});
        self.apply(&[
            issuer("drill-self", json!({"selfSigned": {}})),
            root_certificate,
            issuer(&by, json!({"ca": {"secretName": root}})),
        ])?;
        self.issuer_is(&by, name)
    }

    /// Has the mesh's issuer made anew, below the root that it had or below another one.
    fn issuer_is(&self, by: &str, name: &str) -> anyhow::Result<()> {
        let certificate = json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
            "metadata": {"name": "mesh-issuer"}, "spec": {
                "isCA": true, "commonName": format!("mesh-issuer {name}"), "secretName": "mesh-issuer",
                "duration": "2160h", "usages": ["cert sign", "crl sign"],
                "privateKey": {"algorithm": "RSA", "size": 2048, "rotationPolicy": "Always"},
                "issuerRef": {"name": by}}});
        self.apply(&[certificate])?;
        let condition = ["-n", mesh::NAMESPACE, "wait", "--for=condition=Ready"];
        let of = [ISSUER, "--timeout=120s"];
        self.cluster
            .kubectl(&[&condition[..], &of].concat())
            .map(drop)
    }
}

impl Drop for CertManager<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let names = self.definitions.iter().map(String::as_str);
        let names: Vec<&str> = names.collect();
        let words = ["delete", "--ignore-not-found", "--wait=false"];
        if let Err(error) = self.cluster.kubectl(&[&words[..], &names].concat()) {
            eprintln!("definitions of cert-manager stay: {error:#}");
        }
    }
}

#[test]
fn cert_manager_issuer_and_root_are_taken_unnoticed() -> Outcome {
    let altered = Altered::begin()?;
    let town = Town::open("drill-issuer")?;
    let cluster = town.cluster();
    let manager = CertManager::start(cluster)?;
    manager.issues_below("first")?;
    let loads = town.begin()?;
    install_rotatable(cluster, &[SETTLE])?;
    let former = authority::root(cluster)?;
    mesh::install(&SECRET)?;
    let first = authority::ended(cluster, ENDED, "Secret", &former)?;

    let issuer = signs(cluster)?;
    manager.issuer_is("drill-by-first", "renewed")?;
    eventually(MADE, "the renewed issuer signs", || {
        let now = signs(cluster)?;
        ensure!(now != issuer, "{now} signs");
        Ok(())
    })?;
    assert_eq!(authority::root(cluster)?, first, "another root signs");
    town.nothing_lost("cert-manager's issuer taken and renewed", loads)?;

    install_rotatable(cluster, &SECRET)?;
    let loads = town.begin()?;
    manager.issues_below("second")?;
    authority::ended(cluster, ENDED, "Secret", &first)?;
    town.nothing_lost("cert-manager replaced root and issuer at once", loads)?;
    is_sound(&town)?;
    // What stays is a root that the mesh makes.
    let former = authority::root(cluster)?;
    install_rotatable(cluster, &[SETTLE])?;
    authority::ended(cluster, ENDED, "Generated", &former)?;
    drop(manager);
    let delete = ["-n", mesh::NAMESPACE, "delete", "secret"];
    let secrets = ["mesh-issuer", "drill-first", "drill-second"];
    cluster.kubectl(&[&delete[..], &secrets, &["--ignore-not-found"]].concat())?;
    altered.restore()?;
    Ok(())
}

/// Fingerprint of the issuer.
fn signs(cluster: &Cluster) -> anyhow::Result<Value> {
    let issuer = authority::status(cluster)?["issuers"][0]["fingerprint"].clone();
    ensure!(issuer.is_string(), "the status names no issuer");
    Ok(issuer)
}
