//! A proxy beside a pod: how it is started, and when it is ready.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::namespaces::{Namespace, Process, Who};

/// Weft's port for metrics and readiness.
pub(crate) const WEFT_ADMIN: u16 = 15190;
/// A proxy that is not ready by then never will be.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(20);

/// Where a proxy runs, and for which pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sidecar<'a> {
    pub(crate) within: &'a Namespace,
    /// Of Kubernetes.
    pub(crate) namespace: &'a str,
    /// Its service account's name as well.
    pub(crate) pod: &'a str,
    pub(crate) ip: Ipv4Addr,
    pub(crate) trust_domain: &'a str,
    pub(crate) controller: SocketAddr,
    /// What it reads, and its log: for Weft `POD` (the token) and `root.pem`, for Envoy
    /// `envoy-POD.yaml`.
    pub(crate) folder: &'a Path,
}

impl Sidecar<'_> {
    pub(crate) fn start_envoy(&self, binary: &Path) -> Result<Process> {
        self.start_envoy_as(binary, self.pod)
    }

    /// The same by the configuration of this name.
    pub(crate) fn start_envoy_as(&self, binary: &Path, name: &str) -> Result<Process> {
        let config = self.file(&format!("envoy-{name}.yaml"));
        let line = [
            &*binary.to_string_lossy(),
            "-c",
            &config,
            "--concurrency",
            "1",
            "-l",
            "warning",
            "--disable-hot-restart",
        ];
        self.within.start(Who::Proxy, &self.log(), &line, &[])
    }

    pub(crate) fn start_weft(&self, binary: &Path) -> Result<Process> {
        let (controller, ip) = (self.controller.to_string(), self.ip.to_string());
        let (token, bundle) = (self.file(self.pod), self.file("root.pem"));
        let env = [
            ("WEFT_NAMESPACE", self.namespace),
            ("WEFT_POD_NAME", self.pod),
            ("WEFT_SERVICE_ACCOUNT", self.pod),
            ("WEFT_POD_IPS", &ip),
            ("WEFT_TRUST_DOMAIN", self.trust_domain),
            ("WEFT_CONTROLLER_NAMESPACE", "weft-system"),
            ("WEFT_CONTROLLER_ADDRESS", &controller),
            ("WEFT_TOKEN_FILE", &token),
            ("WEFT_TRUST_BUNDLE", &bundle),
            ("WEFT_LOG", "warn"),
        ];
        let line = [&*binary.to_string_lossy(), "run"];
        self.within.start(Who::Proxy, &self.log(), &line, &env)
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.pod))
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }
}

/// Waits until the proxy reports ready, and gives the time that it took.
pub(crate) fn wait_ready(namespace: &Namespace, admin: u16, process: &Process) -> Result<Duration> {
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
    namespace.within(|| {
        while process.began.elapsed() < READY_WITHIN {
            if get(admin, "localhost", "/ready").is_ok_and(|(status, _)| status == 200) {
                return Ok(process.began.elapsed());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        bail!("a proxy did not become ready")
    })
}

/// A page of a proxy's admin port.
pub(crate) fn page(namespace: &Namespace, admin: u16, path: &str) -> Result<String> {
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
    let (status, body) = namespace.within(|| get(admin, "localhost", path))?;
    ensure!(status == 200, "{path} was answered {status}");
    Ok(body)
}

/// One request on a connection of its own.
pub(crate) fn get(target: SocketAddr, host: &str, path: &str) -> Result<(u16, String)> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&target, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without an end of its head")?;
    Ok((
        status.context("an answer without a status")?,
        body.to_owned(),
    ))
}
