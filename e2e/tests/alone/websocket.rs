//! A connection that stays open and shows that it lives.

use std::{
    io::Read as _,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use e2e::harness::{Namespace, Pod};

/// Between two messages.
const PAUSE: &str = "100ms";
/// kubectl, connect and handshake: then the first messages have been exchanged.
const OPENED: Duration = Duration::from_secs(2);

/// Exchanges ten messages a second over a websocket until it breaks, or all have
/// come back.
#[derive(Debug)]
pub(crate) struct OpenWebSocket {
    child: Child,
    messages: u64,
    what: String,
}

impl OpenWebSocket {
    /// Begins; see [`OpenWebSocket::all_open`].
    pub(crate) fn open(
        ns: &Namespace,
        pod: &Pod,
        target: &str,
        messages: u64,
    ) -> anyhow::Result<Self> {
        let url = format!("ws://{target}/ws");
        let count = messages.to_string();
        let words = [
            "exec",
            "-n",
            &pod.namespace,
            &pod.name,
            "-c",
            "app",
            "--",
            "/weft-echo",
            "ws",
            &url,
            "-n",
            &count,
            "--pause",
            PAUSE,
        ];
        let mut command = ns.cluster.command("kubectl", &words);
        Ok(Self {
            child: command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?,
            messages,
            what: format!("the connection of {} to {target}", pod.name),
        })
    }

    /// Waits until all of these have been opened.
    pub(crate) fn all_open(sockets: &mut [&mut Self]) -> anyhow::Result<()> {
        thread::sleep(OPENED);
        sockets.iter_mut().try_for_each(|socket| socket.is_open())
    }

    /// That nothing has ended it so far.
    pub(crate) fn is_open(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            return Ok(());
        }
        let line = self.read_line()?;
        bail!("{} is not open: {line}", self.what)
    }

    /// Waits until the other end has closed it; from `start` on that takes at most `limit`.
    pub(crate) fn closed(&mut self, start: Instant, limit: Duration) -> anyhow::Result<Duration> {
        loop {
            let took = start.elapsed();
            if self.child.try_wait()?.is_some() {
                let line = self.read_line()?;
                ensure!(took <= limit, "{} was closed after {took:?}", self.what);
                let whole = line.trim() == self.messages.to_string();
                ensure!(!whole, "{} ended by itself", self.what);
                return Ok(took);
            }
            ensure!(took <= limit, "{} is still open after {took:?}", self.what);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until every message has come back.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.child.wait()?;
        let line = self.read_line()?;
        ensure!(
            line.trim() == self.messages.to_string(),
            "{} broke: {line}",
            self.what
        );
        Ok(())
    }

    fn read_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        stdout.context("read once")?.read_to_string(&mut line)?;
        stderr.context("read once")?.read_to_string(&mut line)?;
        Ok(line)
    }
}

impl Drop for OpenWebSocket {
    /// The client in the pod ends with its messages or with the namespace.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
