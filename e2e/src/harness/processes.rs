//! Programs of the local cluster, whose nodes and control plane run on this machine.
//!
//! A program is found by its control group, so that none beside the cluster is ever hit, and is
//! stopped or killed by its number alone.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};

use super::Pod;

/// Control group of etcd, the API server and their like.
const CONTROL_PLANE: &str = "/weft/control";

/// A running program.
#[derive(Clone, Debug)]
pub struct Process {
    pid: u32,
    what: String,
}

/// A program that stands still, as one does whose machine swaps or whose node hangs. It goes on when
/// this is dropped.
#[derive(Debug)]
pub struct Stopped(Process);

impl Process {
    /// The program of this name in a pod: containers run below a control group of the pod's uid.
    pub fn of_pod(pod: &Pod, program: &str) -> anyhow::Result<Self> {
        let uid = pod.object["metadata"]["uid"].as_str();
        let mark = format!("/pod{}/", uid.context("a pod without uid")?);
        Self::find(&mark, program, &format!("{program} of {}", pod.name))
    }

    /// A program of the control plane, such as `etcd`.
    pub fn of_control_plane(program: &str) -> anyhow::Result<Self> {
        Self::find(CONTROL_PLANE, program, program)
    }

    fn find(mark: &str, program: &str, what: &str) -> anyhow::Result<Self> {
        for entry in fs::read_dir("/proc")? {
            let folder = entry?.path();
            // What is no process has none of these, and one may end meanwhile.
            let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
            if read("comm").trim_end() != program || !read("cgroup").contains(mark) {
                continue;
            }
            let pid = folder.file_name().and_then(|name| name.to_str());
            let pid = pid.and_then(|pid| pid.parse().ok());
            return Ok(Self {
                pid: pid.context("a process without number")?,
                what: what.to_owned(),
            });
        }
        anyhow::bail!("no process is {what}: only in the local cluster it runs on this machine")
    }

    /// Ends it as a crash would.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.signal("-KILL")
    }

    /// Nothing of it runs from now on.
    pub fn stop(self) -> anyhow::Result<Stopped> {
        self.signal("-STOP")?;
        Ok(Stopped(self))
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.pid.to_string();
        let status = Command::new("kill").args([signal, &pid]).status()?;
        ensure!(status.success(), "kill {signal} of {}: {status}", self.what);
        Ok(())
    }
}

impl Stopped {
    /// Lets it go on, now.
    pub fn resume(self) {
        drop(self);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that was killed meanwhile goes on nowhere.
        if let Err(error) = self.0.signal("-CONT") {
            eprintln!("not resumed: {error:#}");
        }
    }
}
