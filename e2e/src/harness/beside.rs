//! Programs beside the cluster: pods reach them at the host's address, and they reach pods.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

use super::forward;

/// The host, as pods of the local cluster see it.
const HOST: &str = "10.199.0.1";

/// A running program, which ends when this is dropped.
#[derive(Debug)]
pub struct Beside {
    child: Child,
    address: String,
}

/// A server outside the cluster that pods can connect to, on a port of its own.
pub fn listener() -> anyhow::Result<TcpListener> {
    TcpListener::bind((HOST, 0))
        .with_context(|| format!("{HOST} is no address here: is the local cluster up?"))
}

/// Where a program may listen: free at this moment, for programs that have no way to tell a
/// port that they chose.
pub fn free_address() -> anyhow::Result<String> {
    Ok(listener()?.local_addr()?.to_string())
}

impl Beside {
    /// Starts a program that listens at `address`. Its log goes into a file of `folder`.
    pub fn start(command: &mut Command, address: &str, folder: &Path) -> anyhow::Result<Self> {
        let log = fs::File::create(folder.join("log"))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            child,
            address: address.to_owned(),
        })
    }

    /// `host:port`, from within pods and from here.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What `GET path` answers there, over plain HTTP.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        forward::get(&self.address, path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
