//! The root of the mesh is replaced under load: planned, by issuers of a Secret, and after a theft.
//!
//! Bounds in seconds are five times those of the promise.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use e2e::harness::{
    App, Cluster, Load, Namespace, Outcome, Pod, UNTIL_ENDED,
    authority::{self, install_rotatable},
    eventually, mesh,
    namespace::Failed,
};
use serde_json::{Value, json};

use super::{altered::Altered, url, websocket::OpenWebSocket};

/// Bundles reach pods later than the kubelet of a busy machine, and no pod starts meanwhile.
const SETTLE: &str = "identity.rotation.settle=15s";
const SECRET: [&str; 3] = [
    SETTLE,
    "identity.issuer.source=secret",
    "identity.issuer.secretName=mesh-issuer",
];
/// Of a gRPC stream: a planned rotation takes most of a minute, and one by helm another minute.
const STREAM: &str = "75s";
const STREAM_BY_HELM: &str = "160s";
const REPORTED_WITHIN: Duration = Duration::from_secs(30);
const ENDED_WITHIN: Duration = Duration::from_secs(300);
/// The promise of a compromise, from the write on.
const CUT_WITHIN: Duration = Duration::from_secs(5 * 10);
/// Messages of an open connection, ten a second, that outlast any load.
const MESSAGES: u64 = 6_000;

/// A caller and its servers, of which one takes bytes.
struct Shop {
    ns: Namespace,
    client: Pod,
}

impl Shop {
    fn open(claim: &str) -> anyhow::Result<Self> {
        let ns = Namespace::meshed(claim)?.without_retries()?;
        ns.apply_all(&App::new("client").objects())?;
        ns.apply_all(&App::new("server").objects())?;
        let opaque = App::new("opaque").annotation("weft.dev/opaque-ports", "8080");
        ns.apply_all(&opaque.objects())?;
        ns.ready(&["client", "server", "opaque"])?;
        let client = ns.pod("client")?;
        client.report(&url("server", 8080, "/"), &[])?;
        Ok(Self { ns, client })
    }

    fn cluster(&self) -> &Cluster {
        &self.ns.cluster
    }

    fn load(&self) -> anyhow::Result<Load> {
        let words = ["--rate", "200", "--duration", UNTIL_ENDED, "-c", "10"];
        self.client.start_load(&url("server", 8080, "/"), &words)
    }

    /// A connection of bytes, which shows that it lives.
    fn bytes(&self) -> anyhow::Result<OpenWebSocket> {
        let mut socket = OpenWebSocket::open(&self.ns, &self.client, "opaque:8080", MESSAGES)?;
        OpenWebSocket::all_open(&mut [&mut socket])?;
        Ok(socket)
    }

    /// Roots in the bundle that pods mount.
    fn bundle(&self) -> anyhow::Result<String> {
        let map = self.ns.json(&["get", "configmap", "weft-trust-bundle"])?;
        let text = map["data"]["ca.crt"].as_str();
        Ok(text.context("no bundle")?.to_owned())
    }

    /// No container was started again.
    fn nothing_restarted(&self) -> Outcome {
        for app in ["client", "server", "opaque"] {
            assert_eq!(self.ns.pod(app)?.restarts(), 0, "{app}");
        }
        Ok(())
    }

    /// The only root of all proxies, as they report it.
    fn root(&self) -> anyhow::Result<String> {
        let words = ["proxies", "-n", &self.ns.name, "-o", "json"];
        let listed = self.cluster().weft(&words)?.json()?;
        let proxies = listed["items"].as_array().context("no proxies")?;
        let roots = proxies
            .iter()
            .map(|proxy| proxy["status"]["trusts"].to_string());
        let roots: BTreeSet<String> = roots.collect();
        ensure!(roots.len() == 1, "{roots:?}");
        let trusts = proxies[0]["status"]["trusts"].as_array().context("none")?;
        ensure!(trusts.len() == 1, "{trusts:?}");
        Ok(trusts[0].as_str().context("no text")?.to_owned())
    }
}

/// Waits for the end of a rotation to a root of this source that is none of `former`.
fn ended(cluster: &Cluster, source: &str, former: &Value) -> anyhow::Result<Value> {
    authority::ended(cluster, ENDED_WITHIN, source, former)
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

/// Rotates while requests, a gRPC stream and a connection of bytes go on, none of which ends.
fn unnoticed(
    shop: &Shop,
    (source, length): (&str, &str),
    begin: impl FnOnce() -> Outcome,
) -> Outcome {
    let cluster = shop.cluster();
    authority::reaches(cluster, ENDED_WITHIN, authority::STEADY)?;
    let former = authority::root(cluster)?;
    let bundle = shop.bundle()?;
    // Proxies that have just started have reported nothing yet.
    let trusted = eventually(REPORTED_WITHIN, "all proxies report it", || shop.root())?;
    let (load, mut bytes) = (shop.load()?, shop.bytes()?);
    let stream = ["server:8080", "--duration", length, "--rate", "10"];
    let seen = thread::scope(|scope| -> Result<_, Failed> {
        let streamed = scope.spawn(|| shop.client.grpc(&stream));
        begin()?;
        ended(cluster, source, &former)?;
        let seen = streamed
            .join()
            .map_err(|_| anyhow::anyhow!("no stream"))??;
        Ok(seen)
    })?;
    assert!(seen.sent > 0 && seen.received == seen.sent, "{seen:?}");
    nothing_lost(load)?;
    bytes.is_open()?;
    shop.nothing_restarted()?;
    let after = shop.bundle()?;
    assert_eq!(after.matches("BEGIN CERTIFICATE").count(), 1, "{after}");
    assert!(after != bundle, "the former root is in the bundle");
    eventually(REPORTED_WITHIN, "all proxies report it", || {
        let root = shop.root()?;
        ensure!(root != trusted, "{root} is the former one");
        Ok(())
    })?;
    Ok(())
}

// Claims: trust-2
#[test]
fn planned_rotation_of_root_goes_unnoticed_under_load() -> Outcome {
    let altered = Altered::begin()?;
    let shop = Shop::open("rotation")?;
    let cluster = shop.cluster();
    install_rotatable(cluster, &[SETTLE])?;
    unnoticed(&shop, ("Generated", STREAM), || {
        cluster.weft(&["identity", "rotate"])?.with_status(0)?;
        Ok(())
    })?;
    altered.restore()?;
    Ok(())
}

/// After the write no proxy keeps a connection of the old root for long, and short requests are not
/// lost.
// Claims: trust-4
#[test]
fn stolen_root_is_gone_within_seconds_without_lost_requests() -> Outcome {
    let altered = Altered::begin()?;
    let shop = Shop::open("stolen-root")?;
    let cluster = shop.cluster();
    let former = authority::root(cluster)?;
    let trusted = shop.root()?;
    let (load, mut bytes) = (shop.load()?, shop.bytes()?);
    let start = Instant::now();
    let rotate = ["identity", "rotate", "--compromise"];
    cluster.weft(&rotate)?.with_status(0)?;
    let cut = bytes.closed(start, CUT_WITHIN)?;
    eventually(CUT_WITHIN, "no proxy trusts the old root", || {
        let root = shop.root()?;
        ensure!(root != trusted, "{root} is the old one");
        Ok(())
    })?;
    let gone = start.elapsed();
    println!("bytes ended after {cut:?}, the root was gone after {gone:?}");
    ended(cluster, "Generated", &former)?;
    nothing_lost(load)?;
    let status = authority::status(cluster)?;
    let retired = status["retired"].as_array().context("none retired")?;
    assert!(!retired.is_empty(), "{status:#}");
    shop.nothing_restarted()?;
    altered.nothing_to_restore();
    Ok(())
}

/// Runs openssl in a folder.
fn openssl(folder: &Path, words: &[&str]) -> Outcome {
    let output = Command::new("openssl")
        .args(words)
        .current_dir(folder)
        .output()
        .context("start openssl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {words:?}: {said}");
    Ok(())
}

/// A certificate authority of RSA below another one.
fn below(folder: &Path, name: &str, by: &str, path_length: u8) -> Outcome {
    let extensions = format!(
        "basicConstraints=critical,CA:true,pathlen:{path_length}\nkeyUsage=critical,keyCertSign,cRLSign\n"
    );
    std::fs::write(folder.join("extensions"), extensions)?;
    let [key, csr, crt] = ["key", "csr", "crt"].map(|kind| format!("{name}.{kind}"));
    let subject = format!("/CN={name}");
    openssl(
        folder,
        &[
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &csr, "-subj",
            &subject,
        ],
    )?;
    let (by_crt, by_key) = (format!("{by}.crt"), format!("{by}.key"));
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &by_crt,
            "-CAkey",
            &by_key,
            "-CAcreateserial",
            "-days",
            "300",
            "-extfile",
            "extensions",
            "-out",
            &crt,
        ],
    )
}

/// Writes `tls.crt`, `tls.key` and `ca.crt`: an issuer below one intermediate of a new root.
pub(super) fn issuer_in(folder: &Path, name: &str) -> Outcome {
    let subject = format!("/CN={name}");
    let root = [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key",
    ];
    let of_root = [
        "-out",
        "ca.crt",
        "-days",
        "900",
        "-subj",
        &subject,
        "-addext",
        "basicConstraints=critical,CA:true",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    ];
    openssl(folder, &[&root[..], &of_root].concat())?;
    std::fs::copy(folder.join("ca.crt"), folder.join("root.crt"))?;
    below(folder, "intermediate", "root", 1)?;
    below(folder, "issuer", "intermediate", 0)?;
    let read = |file: &str| std::fs::read_to_string(folder.join(file));
    let chain = [read("issuer.crt")?, read("intermediate.crt")?].concat();
    std::fs::write(folder.join("tls.crt"), chain)?;
    std::fs::rename(folder.join("issuer.key"), folder.join("tls.key"))?;
    Ok(())
}

/// Writes Secret `mesh-issuer` with such an issuer.
fn offer(cluster: &Cluster, name: &str) -> Outcome {
    let folder = std::env::temp_dir().join(format!("weft-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    issuer_in(&folder, name)?;
    let read = |file: &str| std::fs::read_to_string(folder.join(file));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mesh-issuer"},
        "stringData": {"tls.crt": read("tls.crt")?, "tls.key": read("tls.key")?,
            "ca.crt": read("ca.crt")?}});
    cluster.apply(mesh::NAMESPACE, &secret.to_string())?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

// Claims: trust-3
#[test]
fn issuer_of_secret_and_its_successor_are_taken_unnoticed() -> Outcome {
    let altered = Altered::begin()?;
    let shop = Shop::open("own-issuer")?;
    let cluster = shop.cluster();
    offer(cluster, "first")?;
    install_rotatable(cluster, &[SETTLE])?;
    unnoticed(&shop, ("Secret", STREAM_BY_HELM), || {
        mesh::install(&SECRET)?;
        Ok(())
    })?;
    // Root and issuer at once, as a tool replaces them.
    install_rotatable(cluster, &SECRET)?;
    unnoticed(&shop, ("Secret", STREAM), || offer(cluster, "second"))?;
    // What stays is a root that the mesh makes, as other tests find it.
    let former = authority::root(cluster)?;
    install_rotatable(cluster, &[SETTLE])?;
    ended(cluster, "Generated", &former)?;
    cluster.kubectl(&["-n", mesh::NAMESPACE, "delete", "secret", "mesh-issuer"])?;
    altered.restore()?;
    Ok(())
}
