//! What must hold after every drill: no proxy was started again, no call went in plaintext, and keys
//! and tokens are nowhere but in their Secrets. What proxies show and log, what controllers write into
//! objects and log, and what the command prints is searched for them.

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::harness::{Cluster, Pod, mesh};
use serde_json::Value;

use super::town::Town;

/// How every key in PEM begins, and every token of a service account.
const FORMS: [(&str, &str); 2] = [
    ("a private key", "PRIVATE KEY-----"),
    ("a token", "eyJhbGciOi"),
];
/// Secrets with keys of the mesh.
const SECRETS: [&str; 2] = ["weft-ca", "weft-injector-ca"];
/// Of so many proxies one shows its configuration, which only its own pod may read.
const ONE_OF: usize = 8;
/// Characters of a key that are looked for, of its second line: the first line begins alike in all.
const PART: usize = 40;

pub(crate) fn is_sound(town: &Town) -> anyhow::Result<()> {
    for name in ["client", "server"] {
        for pod in town.ns.pods(name)? {
            let restarts = pod.restarts();
            ensure!(restarts == 0, "{} has {restarts} restarts", pod.name);
        }
    }
    let (mut plain, mut mutual) = (0.0, 0.0);
    for samples in town.api.metrics_of_each(&town.pods)? {
        let count = |security| samples.sum("weft_requests_total", &[("security", security)]);
        plain += count("plaintext");
        mutual += count("mtls");
    }
    ensure!(mutual > 0.0, "no proxy counts requests over mTLS");
    ensure!(plain == 0.0, "{plain} requests went in plaintext");
    println!("{mutual} requests went over mTLS, none in plaintext");
    nothing_leaked(town)
}

fn nothing_leaked(town: &Town) -> anyhow::Result<()> {
    let marks = marks(town.cluster())?;
    let texts = texts(town)?;
    let mut bytes = 0;
    for (place, text) in &texts {
        bytes += text.len();
        for (what, mark) in &marks {
            ensure!(!text.contains(mark.as_str()), "{place} holds {what}");
        }
    }
    println!(
        "{} keys and forms of keys and tokens are in none of {} places, {} KiB",
        marks.len(),
        texts.len(),
        bytes / 1024
    );
    Ok(())
}

/// What is looked for, and a part of it that nothing else has.
fn marks(cluster: &Cluster) -> anyhow::Result<Vec<(String, String)>> {
    let forms = FORMS.map(|(what, mark)| (what.to_owned(), mark.to_owned()));
    let mut marks = Vec::from(forms);
    for secret in SECRETS {
        let words = ["-n", mesh::NAMESPACE, "get", "secret", secret];
        let found = cluster.json(&words)?;
        let data = found["data"].as_object().context("a Secret without data")?;
        for (name, value) in data.iter().filter(|(name, _)| name.ends_with(".key")) {
            let key = STANDARD.decode(value.as_str().unwrap_or_default())?;
            let key = String::from_utf8(key)?;
            let part = key.lines().nth(2).and_then(|line| line.get(..PART));
            let part = part.with_context(|| format!("{name} of {secret} is no key"))?;
            marks.push((format!("{name} of {secret}"), part.to_owned()));
        }
    }
    ensure!(marks.len() > FORMS.len(), "no key was found in {SECRETS:?}");
    Ok(marks)
}

/// Each place, and what it shows.
fn texts(town: &Town) -> anyhow::Result<Vec<(String, String)>> {
    let (cluster, ns) = (town.cluster(), town.ns.name.as_str());
    let mut texts = Vec::new();
    let path = |pod: &Pod| {
        let name = &pod.name;
        format!("/api/v1/namespaces/{ns}/pods/{name}:15190/proxy/metrics")
    };
    let paths: Vec<String> = town.pods.iter().map(path).collect();
    for (path, (status, text)) in paths.iter().zip(town.api.each(&paths)?) {
        ensure!(status == 200, "GET {path} answered {status}");
        texts.push((path.clone(), text));
    }
    for pod in town.pods.iter().step_by(ONE_OF) {
        let words = [
            "proxy-config",
            &pod.name,
            "-n",
            ns,
            "--direct",
            "-o",
            "json",
        ];
        let printed = cluster.weft(&words)?.with_status(0)?;
        texts.push((format!("the configuration of {}", pod.name), printed.out));
    }
    let own = "app.kubernetes.io/component in (controller, injector)";
    for (namespace, selector) in [
        (ns, "app in (client, server, aside)"),
        (mesh::NAMESPACE, own),
    ] {
        let logs = ["-n", namespace, "logs", "-l", selector, "--tail=-1"];
        let of = [
            "--all-containers",
            "--max-log-requests=250",
            "--ignore-errors",
        ];
        let text = cluster.kubectl(&[&logs[..], &of].concat())?;
        texts.push((format!("a log of {namespace}"), text));
    }
    for kinds in [
        "configmaps",
        "events",
        "certificateauthorities.weft.dev",
        "revocations.weft.dev",
    ] {
        let all = cluster.json(&["get", kinds, "-A"])?;
        texts.push((format!("one of the {kinds}"), all.to_string()));
    }
    let pods = town.ns.json(&["get", "pods"])?;
    texts.push(("a pod".to_owned(), pods.to_string()));
    for words in [
        &["identity", "--ca", "-o", "json"][..],
        &["proxies", "-n", ns, "-o", "json"],
    ] {
        let printed = cluster.weft(words)?;
        let text = [printed.out, printed.err].concat();
        texts.push((format!("weft {}", words.join(" ")), text));
    }
    ensure!(
        texts.iter().all(|(_, text)| !text.is_empty()),
        "a place is empty"
    );
    Ok(texts)
}

/// What a Secret of the mesh holds.
pub(crate) fn data_of(cluster: &Cluster, secret: &str) -> anyhow::Result<Value> {
    let words = ["-n", mesh::NAMESPACE, "get", "secret", secret];
    Ok(cluster.json(&words)?["data"].clone())
}
