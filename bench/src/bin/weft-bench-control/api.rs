//! A client of the API server, with the rights of a cluster's operator.

use std::path::Path;

use anyhow::{Context, Result};
use futures::StreamExt as _;
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

/// Requests under way while objects are made. More only queue in the API server.
const PARALLEL: usize = 24;
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

/// One object to be made, and its status if it has one of its own.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Path of the collection.
    pub(crate) path: String,
    /// The object.
    pub(crate) object: Value,
    /// Written afterwards, as a kubelet would.
    pub(crate) status: Option<Value>,
}

#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) async fn new(kubeconfig: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        Ok(Self { client })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, "", None).await
    }

    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        Ok(self.client.request_text(request).await?)
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Result<Value> {
        self.call(Method::POST, path, "application/json", Some(object))
            .await
    }

    pub(crate) async fn merge(&self, path: &str, change: &Value) -> Result<Value> {
        self.call(Method::PATCH, path, MERGE, Some(change)).await
    }

    pub(crate) async fn patch(&self, path: &str, change: &Value) -> Result<Value> {
        self.call(Method::PATCH, path, JSON_PATCH, Some(change))
            .await
    }

    /// Deletes at once, as for a pod that no kubelet has to end.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        let options = serde_json::json!({"gracePeriodSeconds": 0});
        self.call(Method::DELETE, path, "application/json", Some(&options))
            .await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let what = format!("{method} {path}");
        let bytes = body.map(serde_json::to_vec).transpose()?;
        let mut request = Request::builder().method(method).uri(path);
        if !content.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content);
        }
        let request = request.body(bytes.unwrap_or_default())?;
        self.client.request(request).await.context(what)
    }

    /// Makes objects, several at a time.
    pub(crate) async fn make(&self, wanted: impl IntoIterator<Item = Wanted>) -> Result<()> {
        let mut made = futures::stream::iter(wanted)
            .map(|wanted| async move {
                self.post(&wanted.path, &wanted.object).await?;
                if let Some(status) = wanted.status {
                    let name = wanted.object["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default();
                    let path = format!("{}/{name}/status", wanted.path);
                    self.merge(&path, &serde_json::json!({"status": status}))
                        .await?;
                }
                anyhow::Ok(())
            })
            .buffer_unordered(PARALLEL);
        while let Some(result) = made.next().await {
            result?;
        }
        Ok(())
    }
}
