//! One port of one pod, asked as from the pod's own loopback.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::Cluster;

/// For one answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A running `kubectl port-forward`, which ends when this is dropped.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    /// Stays open: kubectl ends when it cannot write.
    output: BufReader<ChildStdout>,
    address: String,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Forward {
    /// From a free port of loopback to `port` of the pod.
    pub fn open(cluster: &Cluster, namespace: &str, pod: &str, port: u16) -> anyhow::Result<Self> {
        let (target, port) = (format!("pod/{pod}"), format!(":{port}"));
        let mut child = cluster
            .command(
                "kubectl",
                &["-n", namespace, "port-forward", &target, &port],
            )
            .stdout(Stdio::piped())
            .spawn()
            .context("start kubectl port-forward")?;
        let stdout = child.stdout.take().context("port-forward has no output")?;
        // Made before the checks, so that a failed one ends the child too.
        let mut forward = Self {
            child,
            output: BufReader::new(stdout),
            address: String::new(),
        };
        let mut line = String::new();
        forward.output.read_line(&mut line)?;
        forward.address = line
            .strip_prefix("Forwarding from ")
            .and_then(|line| line.split_once(" -> "))
            .with_context(|| format!("port-forward said {line:?}"))?
            .0
            .to_owned();
        Ok(forward)
    }

    /// Address and port on loopback that lead to the pod.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What `GET path` answers there, over plain HTTP.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        get(&self.address, path)
    }
}

/// What `GET path` answers at this address, over plain HTTP.
pub(super) fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // The older HTTP: the end of the connection is the end of the answer.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{path} answered {answer:?}"))?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "{path} answered {status}: {body}"
    );
    Ok(body.to_owned())
}
