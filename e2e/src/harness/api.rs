//! The API server over plain HTTP, for timed and frequent requests: a kubectl takes
//! a tenth of a second of processor to start, which would be measured too.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, stream};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

use super::{Cluster, Pod, metrics::Samples};
use crate::echo::fault;

/// One request, connect included.
const LIMIT: Duration = Duration::from_secs(10);
/// Of many requests so many are made at one time.
const AT_ONCE: usize = 32;
/// The test application's HTTP port.
const HTTP: u16 = 8080;

/// A running `kubectl proxy`, which ends when this is dropped.
#[derive(Debug)]
pub struct Api {
    child: Child,
    address: String,
    runtime: Runtime,
}

impl Api {
    /// Starts it on a free port of loopback.
    pub fn open(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut child = cluster
            .command("kubectl", &["proxy", "--port=0"])
            .stdout(Stdio::piped())
            .spawn()
            .context("start kubectl proxy")?;
        let stdout = child.stdout.take().context("kubectl proxy has no output")?;
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Made before the checks, so that a failed one ends the child too.
        let api = Self {
            child,
            address: line
                .trim()
                .strip_prefix("Starting to serve on ")
                .unwrap_or_default()
                .to_owned(),
            runtime,
        };
        read.context("kubectl proxy")?;
        ensure!(
            !api.address.is_empty(),
            "kubectl proxy said {line:?} instead of its address"
        );
        Ok(api)
    }

    /// The text at `path`.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        self.ask(&Method::GET, path, None)
    }

    /// Status and text at each of these paths, of which many are asked for at one time.
    pub fn each(&self, paths: &[String]) -> anyhow::Result<Vec<(u16, String)>> {
        let get = &Method::GET;
        let responses = stream::iter(paths).map(|path| async move {
            let answer = self.answer(get, path, "application/json", String::new());
            answer.await.with_context(|| format!("GET {path}"))
        });
        let answers = responses.buffered(AT_ONCE).collect::<Vec<_>>();
        self.runtime.block_on(answers).into_iter().collect()
    }

    /// Requests `path` of a port of a pod; the request comes from the API server,
    /// so from outside the mesh. The status does not matter, an answer must come.
    pub fn ask_pod(
        &self,
        pod: &Pod,
        port: u16,
        method: &Method,
        path: &str,
        body: &str,
    ) -> anyhow::Result<(u16, String)> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:{port}/proxy{path}",
            pod.namespace, pod.name
        );
        self.exchange(method, &path, "application/json", body.to_owned())
            .with_context(|| format!("{method} {path}"))
    }

    /// Makes answers of the application in a pod go wrong, or well again, as [`fault`] says.
    pub fn set_fault(&self, pod: &Pod, wrong: &Value) -> anyhow::Result<()> {
        let body = wrong.to_string();
        let (status, text) = self.ask_pod(pod, HTTP, &Method::POST, fault::PATH, &body)?;
        ensure!(
            status == 200,
            "{} answered {status} to the fault {body}: {text}",
            pod.name
        );
        Ok(())
    }

    /// The object or list at `path`.
    pub fn read(&self, path: &str) -> anyhow::Result<Value> {
        self.send(&Method::GET, path, None)
    }

    /// Merges `change` into the object at `path` and returns the object.
    pub fn merge(&self, path: &str, change: &Value) -> anyhow::Result<Value> {
        self.send(&Method::PATCH, path, Some(change))
    }

    /// Makes an object in the collection at `path` and returns it.
    pub fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.send(&Method::POST, path, Some(object))
    }

    /// Puts the object at `path` in the place of the one there and returns it.
    pub fn replace(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.send(&Method::PUT, path, Some(object))
    }

    fn send(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let text = self.ask(method, path, body.map(Value::to_string))?;
        serde_json::from_str(&text).with_context(|| format!("{method} {path} answered {text}"))
    }

    /// What the proxy of a pod counts.
    pub fn proxy_metrics(&self, pod: &Pod) -> anyhow::Result<Samples> {
        Ok(Samples::parse(&self.get(&metrics_path(pod))?))
    }

    /// What the proxy of each of these pods counts, in their order. Many are asked at one time,
    /// so that what they say is of nearly one moment.
    pub fn metrics_of_each(&self, pods: &[Pod]) -> anyhow::Result<Vec<Samples>> {
        let paths: Vec<String> = pods.iter().map(metrics_path).collect();
        let mut all = Vec::new();
        for (path, (status, text)) in paths.iter().zip(self.each(&paths)?) {
            ensure!(
                (200..300).contains(&status),
                "GET {path}: answered {status}: {text}"
            );
            all.push(Samples::parse(&text));
        }
        Ok(all)
    }

    /// One metric of the proxy of each of these pods, in their order.
    pub fn sums(
        &self,
        pods: &[Pod],
        name: &str,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<Vec<f64>> {
        let all = self.metrics_of_each(pods)?;
        Ok(all.iter().map(|pod| pod.sum(name, labels)).collect())
    }

    /// Requests of the mesh that came to the application's HTTP port of a pod so far, as the
    /// pod's own proxy counts them: neither probes nor what was asked from outside.
    pub fn arrived(&self, pod: &Pod) -> anyhow::Result<f64> {
        let port = HTTP.to_string();
        let labels = [
            ("direction", "inbound"),
            ("security", "mtls"),
            ("port", port.as_str()),
        ];
        Ok(self.proxy_metrics(pod)?.sum("weft_requests_total", &labels))
    }

    fn ask(&self, method: &Method, path: &str, change: Option<String>) -> anyhow::Result<String> {
        let kind = if *method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        self.exchange(method, path, kind, change.unwrap_or_default())
            .and_then(|(status, text)| {
                ensure!((200..300).contains(&status), "answered {status}: {text}");
                Ok(text)
            })
            .with_context(|| format!("{method} {path}"))
    }

    fn exchange(
        &self,
        method: &Method,
        path: &str,
        kind: &str,
        body: String,
    ) -> anyhow::Result<(u16, String)> {
        self.runtime.block_on(self.answer(method, path, kind, body))
    }

    async fn answer(
        &self,
        method: &Method,
        path: &str,
        kind: &str,
        body: String,
    ) -> anyhow::Result<(u16, String)> {
        let answer = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(driver);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, &self.address)
                .header(header::CONTENT_TYPE, kind)
                .body(Full::<Bytes>::from(body))?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
        };
        timeout(LIMIT, answer)
            .await
            .context("no answer in time")
            .and_then(|answer| answer)
    }
}

fn metrics_path(pod: &Pod) -> String {
    format!(
        "/api/v1/namespaces/{}/pods/{}:15190/proxy/metrics",
        pod.namespace, pod.name
    )
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
