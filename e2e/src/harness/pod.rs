//! A pod of the test application, and what can be done from within it.

use std::process::{Child, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{Cluster, metrics::Samples};
use crate::echo::{load::Summary, reply::Report, talk::GrpcSummary};

/// One pod as it was when it was listed.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub ip: String,
    pub object: Value,
    cluster: Cluster,
}

/// `--duration` of a load that the test ends: far longer than any test needs it.
pub const UNTIL_ENDED: &str = "300s";

/// A load that runs in the background until it is waited for.
#[derive(Debug)]
pub struct Load {
    child: Option<Child>,
    what: String,
}

impl Pod {
    /// The pod of this object, as `kubectl get -o json` gives it.
    pub fn listed(cluster: &Cluster, namespace: &str, object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            name: text(&object["metadata"]["name"]),
            namespace: namespace.into(),
            ip: text(&object["status"]["podIP"]),
            object: object.clone(),
            cluster: cluster.clone(),
        }
    }

    /// Runs `weft-echo ARGS` in the application's container.
    pub fn exec(&self, args: &[&str]) -> anyhow::Result<String> {
        self.cluster
            .kubectl(&[&self.exec_prefix()[..], args].concat())
    }

    /// Requests URL as `weft-echo get URL --json ARGS` does. A refusal or a
    /// missing answer is a result, not an error.
    pub fn get(&self, url: &str, args: &[&str]) -> anyhow::Result<Summary> {
        let text = self.exec(&[&["get", url, "--json"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("weft-echo get {url} printed {text}"))
    }

    /// The same of two URLs, each of which is requested at the same moments as the other.
    pub fn get_both(
        &self,
        [url, beside]: [&str; 2],
        args: &[&str],
    ) -> anyhow::Result<[Summary; 2]> {
        let text = self.exec(&[&["get", url, "--json", "--beside", beside], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("weft-echo get {url} printed {text}"))
    }

    /// One request that must be answered with 2xx by the test application.
    pub fn report(&self, url: &str, args: &[&str]) -> anyhow::Result<Report> {
        let last = self.get(url, args)?.last;
        ensure!((200..300).contains(&last.status), "{url} answered {last:?}");
        serde_json::from_str(&last.body).with_context(|| format!("{url} answered {last:?}"))
    }

    /// One request that must be refused with this status and `weft-reason`.
    pub fn refused(
        &self,
        url: &str,
        args: &[&str],
        status: u16,
        reason: &str,
    ) -> anyhow::Result<()> {
        let last = self.get(url, args)?.last;
        let weft_reason = last.headers.get("weft-reason").map(String::as_str);
        ensure!(
            last.status == status && weft_reason == Some(reason),
            "{url} should be refused with {status} {reason}: {last:?}"
        );
        Ok(())
    }

    /// A gRPC call as `weft-echo grpc ARGS` has it.
    pub fn grpc(&self, args: &[&str]) -> anyhow::Result<GrpcSummary> {
        let text = self.exec(&[&["grpc"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("weft-echo grpc printed {text}"))
    }

    /// Starts `weft-echo get URL --json ARGS` and does not wait.
    pub fn start_load(&self, url: &str, args: &[&str]) -> anyhow::Result<Load> {
        let [exec, rest @ ..] = self.exec_prefix();
        let get = ["get", url, "--json", "--until-eof"];
        let words = [&[exec, "-i"], &rest[..], &get, args].concat();
        let mut command = self.cluster.command("kubectl", &words);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Load {
            child: Some(child),
            what: format!("load from {} on {url}", self.name),
        })
    }

    /// What the proxy counts, read through the API server.
    pub fn proxy_metrics(&self) -> anyhow::Result<Samples> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:15190/proxy/metrics",
            self.namespace, self.name
        );
        Ok(Samples::parse(
            &self.cluster.kubectl(&["get", "--raw", &path])?,
        ))
    }

    /// Names of the init containers in their order.
    pub fn init_containers(&self) -> Vec<&str> {
        let containers = self.object["spec"]["initContainers"].as_array();
        containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect()
    }

    /// Whether it was ready when it was listed.
    pub fn is_ready(&self) -> bool {
        let conditions = self.object["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    }

    /// Restarts of all containers, sidecars included.
    pub fn restarts(&self) -> u64 {
        ["containerStatuses", "initContainerStatuses"]
            .iter()
            .filter_map(|list| self.object["status"][list].as_array())
            .flatten()
            .filter_map(|status| status["restartCount"].as_u64())
            .sum()
    }

    fn exec_prefix(&self) -> [&str; 8] {
        [
            "exec",
            "-n",
            &self.namespace,
            &self.name,
            "-c",
            "app",
            "--",
            "/weft-echo",
        ]
    }
}

impl Load {
    /// Waits for the end of the load.
    pub fn finish(mut self) -> anyhow::Result<Summary> {
        // Its end would be the end of the load.
        let _input = self.child.as_mut().and_then(|child| child.stdin.take());
        self.summary()
    }

    /// Nothing more is due from now on; what is under way is waited for by [`Load::finish`].
    pub fn stop(&mut self) {
        drop(self.child.as_mut().and_then(|child| child.stdin.take()));
    }

    /// Ends the load, which must go on until now: all that was due so far is planned.
    pub fn end(mut self) -> anyhow::Result<Summary> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        };
        let summary = self.summary();
        match ended {
            None => summary,
            Some(status) => bail!("{} was over too early ({status}): {summary:?}", self.what),
        }
    }

    fn summary(&mut self) -> anyhow::Result<Summary> {
        let Some(child) = self.child.take() else {
            bail!("{} was finished before", self.what)
        };
        let output = child.wait_with_output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&stdout).with_context(|| {
            format!(
                "{}: {stdout}{}",
                self.what,
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }
}

impl Drop for Load {
    /// A test that fails early must not leave its load behind. The generator
    /// in the pod has its own bound and ends with the namespace at the latest.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
