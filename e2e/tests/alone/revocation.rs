//! Revocations under load: what they are about ends within seconds, and nothing else is lost.
//!
//! Bounds in seconds are five times those of the promise.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Cluster, Load, Namespace, Outcome, Pod, UNTIL_ENDED, eventually, mesh};
use serde_json::Value;

use super::{altered::Altered, url, websocket::OpenWebSocket};

/// The promise: requests, bytes and upgrades have ended.
const ENDED_WITHIN: Duration = Duration::from_secs(5 * 5);
/// Messages of an open connection, ten a second, that outlast the test.
const MESSAGES: u64 = 6_000;

/// Two callers, of which one is to be revoked, and what they call.
struct Shop {
    ns: Namespace,
    client: Pod,
    other: Pod,
}

impl Shop {
    fn open(claim: &str) -> anyhow::Result<Self> {
        let ns = Namespace::meshed(claim)?.without_retries()?;
        for app in ["client", "other", "server"] {
            ns.apply_all(&App::new(app).objects())?;
        }
        let opaque = App::new("opaque").annotation("weft.dev/opaque-ports", "8080");
        ns.apply_all(&opaque.objects())?;
        ns.ready(&["client", "other", "server", "opaque"])?;
        let (client, other) = (ns.pod("client")?, ns.pod("other")?);
        for pod in [&client, &other] {
            pod.report(&url("server", 8080, "/"), &[])?;
        }
        Ok(Self { ns, client, other })
    }

    fn cluster(&self) -> &Cluster {
        &self.ns.cluster
    }

    fn load(&self, pod: &Pod) -> anyhow::Result<Load> {
        let words = ["--rate", "100", "--duration", UNTIL_ENDED, "-c", "10"];
        pod.start_load(&url("server", 8080, "/"), &words)
    }

    /// A connection of bytes, and one that a request was upgraded to.
    fn connections(&self, pod: &Pod) -> anyhow::Result<[OpenWebSocket; 2]> {
        let open = |target: &str| OpenWebSocket::open(&self.ns, pod, target, MESSAGES);
        let mut connections = [open("opaque:8080")?, open("server:8080")?];
        let [bytes, upgraded] = &mut connections;
        OpenWebSocket::all_open(&mut [bytes, upgraded])?;
        Ok(connections)
    }

    /// The serial number of the certificate that the client's proxy presents.
    fn serial(&self) -> anyhow::Result<String> {
        let pod = format!("pod/{}", self.client.name);
        let words = ["identity", &pod, "-n", &self.ns.name, "-o", "json"];
        let shown = self.cluster().weft(&words)?.json()?;
        let found = serials(&shown);
        found.into_iter().next().context("no serial is shown")
    }

    fn revoke(&self, subject: &str, more: &[&str]) -> Outcome {
        self.revoke_with(0, subject, more)
    }

    /// The same with the exit status of the command.
    fn revoke_with(&self, status: i32, subject: &str, more: &[&str]) -> Outcome {
        let words = ["identity", "revoke", subject, "-n", &self.ns.name];
        let named = ["--reason", "a test", "--id", &self.ns.name];
        let words = [&words[..], &named, more].concat();
        self.cluster().weft(&words)?.with_status(status)?;
        Ok(())
    }

    fn lift(&self) -> Outcome {
        let delete = ["delete", "revocation", &self.ns.name, "--ignore-not-found"];
        self.cluster().kubectl(&delete)?;
        Ok(())
    }

    /// Every proxy that is counted has it.
    fn is_programmed(&self) -> Outcome {
        eventually(ENDED_WITHIN, "all proxies have it", || {
            let found = self.cluster().json(&["get", "rev", &self.ns.name])?;
            let conditions = found["status"]["conditions"].as_array();
            let conditions = conditions.context("no conditions")?;
            let programmed = conditions.iter().find(|one| one["type"] == "Programmed");
            let programmed = programmed.context("not programmed")?;
            ensure!(programmed["status"] == "True", "{programmed:#}");
            Ok(())
        })?;
        Ok(())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if self.lift().is_err() {
            eprintln!("Revocation {} may stay", self.ns.name);
        }
    }
}

/// Every text of a field `serial`, wherever it stands.
fn serials(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("serial").and_then(Value::as_str);
            let own = own.map(str::to_owned).into_iter();
            own.chain(fields.values().flat_map(serials)).collect()
        }
        Value::Array(all) => all.iter().flat_map(serials).collect(),
        _ => Vec::new(),
    }
}

/// All of it was answered 200.
fn nothing_lost(load: Load) -> Outcome {
    let seen = load.end()?;
    println!("{:?}, latency {:?}", seen.by_status, seen.latency_ms);
    assert!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "requests were lost: {seen:?}"
    );
    Ok(())
}

// Claims: trust-5a
#[test]
fn revoked_pod_loses_all_and_others_nothing() -> Outcome {
    let altered = Altered::begin()?;
    let shop = Shop::open("revoked-pod")?;
    let load = shop.load(&shop.other)?;
    let mut theirs = shop.connections(&shop.other)?;
    let [mut bytes, mut upgraded] = shop.connections(&shop.client)?;
    let start = Instant::now();
    shop.revoke(&format!("pod/{}", shop.client.name), &[])?;
    let cut = bytes.closed(start, ENDED_WITHIN)?;
    let ended = upgraded.closed(start, ENDED_WITHIN)?;
    println!("bytes ended after {cut:?}, the upgraded connection after {ended:?}");
    let target = url("server", 8080, "/");
    eventually(ENDED_WITHIN, "its requests are refused", || {
        shop.client.refused(&target, &[], 403, "revoked")
    })?;
    shop.is_programmed()?;
    eventually(ENDED_WITHIN, "the pod is unready", || {
        let pod = shop.ns.pod("client")?;
        ensure!(!pod.is_ready(), "it is ready");
        Ok(())
    })?;
    nothing_lost(load)?;
    theirs.iter_mut().try_for_each(OpenWebSocket::is_open)?;
    shop.lift()?;
    eventually(ENDED_WITHIN, "it is served again", || {
        shop.client.report(&target, &[]).map(drop)
    })?;
    altered.nothing_to_restore();
    Ok(())
}

// Claims: trust-5b
#[test]
fn workload_of_leaked_key_loses_no_request() -> Outcome {
    let altered = Altered::begin()?;
    let shop = Shop::open("kept-healthy")?;
    let former = shop.serial()?;
    let load = shop.load(&shop.client)?;
    let [mut bytes, _upgraded] = shop.connections(&shop.client)?;
    let start = Instant::now();
    shop.revoke("sa/client", &["--keep-healthy"])?;
    // Opened by an older certificate, as the thief's would be.
    let cut = bytes.closed(start, ENDED_WITHIN)?;
    println!("bytes of the older certificate ended after {cut:?}");
    shop.is_programmed()?;
    eventually(ENDED_WITHIN, "the proxy has another certificate", || {
        let serial = shop.serial()?;
        ensure!(serial != former, "{serial} is the former one");
        Ok(())
    })?;
    shop.connections(&shop.client)?;
    nothing_lost(load)?;
    altered.nothing_to_restore();
    Ok(())
}

// Claims: trust-5a
#[test]
fn pod_of_revoked_certificate_goes_on_with_another() -> Outcome {
    let altered = Altered::begin()?;
    let shop = Shop::open("revoked-serial")?;
    let former = shop.serial()?;
    let load = shop.load(&shop.other)?;
    let [mut bytes, _upgraded] = shop.connections(&shop.client)?;
    let start = Instant::now();
    shop.revoke(&format!("certificate/{former}"), &[])?;
    bytes.closed(start, ENDED_WITHIN)?;
    let target = url("server", 8080, "/");
    eventually(ENDED_WITHIN, "it calls with another certificate", || {
        let serial = shop.serial()?;
        ensure!(serial != former, "{serial} is the former one");
        shop.client.report(&target, &[]).map(drop)
    })?;
    shop.is_programmed()?;
    nothing_lost(load)?;
    altered.nothing_to_restore();
    Ok(())
}

// Claims: trust-5c
#[test]
fn node_of_controllers_is_never_revoked() -> Outcome {
    let altered = Altered::begin()?;
    let shop = Shop::open("revoked-node")?;
    let label = "app.kubernetes.io/component=controller";
    let pods = ["-n", mesh::NAMESPACE, "get", "pods", "-l", label];
    let pods = shop.cluster().json(&pods)?;
    let node = pods["items"][0]["spec"]["nodeName"].as_str();
    let node = format!("node/{}", node.context("no node")?);
    shop.revoke_with(1, &node, &["--dry-run"])?;
    shop.revoke_with(1, &node, &[])?;
    eventually(ENDED_WITHIN, "the status says why", || {
        let found = shop.cluster().json(&["get", "rev", &shop.ns.name])?;
        let conditions = found["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let accepted = conditions.find(|one| one["type"] == "Accepted");
        let reason = accepted.map(|one| one["reason"].clone());
        ensure!(reason == Some("ControlPlane".into()), "{found:#}");
        Ok(())
    })?;
    shop.client.report(&url("server", 8080, "/"), &[])?;
    altered.nothing_to_restore();
    Ok(())
}
