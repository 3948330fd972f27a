//! Every state of objects of a kind, one after another, as a watch of the API server sends them.

use std::{
    io::BufReader,
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Context as _;
use serde_json::Value;

use super::Namespace;

/// A running `kubectl get --watch`, which ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    /// Watches objects of `kind`, as kubectl takes it with version and group, in a namespace.
    pub fn start(ns: &Namespace, kind: &str) -> anyhow::Result<Self> {
        let words = ["-n", &ns.name, "get", kind, "--watch", "-o", "json"];
        let mut child = ns
            .cluster
            .command("kubectl", &words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("kubectl has an output")?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        // Ends with the child, whose output then ends.
        thread::spawn(move || {
            for object in serde_json::Deserializer::from_reader(stdout).into_iter::<Value>() {
                let Ok(object) = object else { break };
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.push(object);
            }
        });
        Ok(Self { child, seen })
    }

    /// States of the object of this name so far.
    pub fn states(&self, name: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .filter(|object| object["metadata"]["name"] == name)
            .cloned()
            .collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
