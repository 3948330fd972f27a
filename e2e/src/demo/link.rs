//! Access to the API server for frequent, cheap requests.
//!
//! A look at the shop is about ten requests every two seconds. One kubectl per
//! request would cost more processor time than the shop itself, so one
//! `kubectl proxy` is kept, on a socket that only this user can open.

use std::{
    io::{Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::harness::{Cluster, eventually};

/// A pod's metrics are some ten KiB, a list of the shop's pods about 100 KiB.
const ANSWER_LIMIT: u64 = 16 << 20;
/// A healthy answer takes milliseconds; the view must not freeze on a lost node.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Starting kubectl, on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A running `kubectl proxy`. It ends when this is dropped.
#[derive(Debug)]
pub struct Link {
    child: Child,
    socket: PathBuf,
}

impl Link {
    pub fn open(cluster: &Cluster) -> anyhow::Result<Self> {
        // Short, as a socket's path holds at most 108 bytes.
        let socket = std::env::temp_dir().join(format!("weft-demo-{}.sock", std::process::id()));
        let listen = format!("--unix-socket={}", socket.display());
        let child = cluster
            .command("kubectl", &["proxy", &listen])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the view, which still needs this to end in order.
            .process_group(0)
            .spawn()
            .context("start kubectl proxy")?;
        let link = Self { child, socket };
        eventually(START, "kubectl proxy answers", || link.text("/readyz"))?;
        Ok(link)
    }

    /// Body of `GET path`; any status but 200 is an error that shows the body.
    pub fn text(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("connect to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        // HTTP/1.0 ends the body with the connection: there is nothing to parse.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream
            .take(ANSWER_LIMIT)
            .read_to_string(&mut answer)
            .with_context(|| format!("GET {path}"))?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("GET {path} was answered with {answer:?}"))?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        ensure!(status == "200", "GET {path}: {status} {}", body.trim());
        Ok(body.to_owned())
    }

    /// The same as JSON.
    pub fn json(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.text(path)?;
        match serde_json::from_str(&text) {
            Ok(value) => Ok(value),
            Err(error) => bail!("GET {path} gave no JSON: {error}"),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
