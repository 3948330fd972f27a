//! A port forward to one port of one pod: requests come from the pod's own loopback.

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
    // The older HTTP: no chunks.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        // The last one is empty.
        if stream.read_line(&mut line)? <= "\r\n".len() {
            break;
        }
        head.push(line);
    }
    let status = head.first().map(|line| line.trim_end()).unwrap_or_default();
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<u64>())
    });
    // A container runtime holds the end of a forwarded connection back for a second.
    let mut body = String::new();
    match length.transpose()? {
        Some(length) => stream.take(length).read_to_string(&mut body)?,
        None => stream.read_to_string(&mut body)?,
    };
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "{path} answered {status:?}: {body}"
    );
    Ok(body)
}
