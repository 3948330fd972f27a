//! `weft version`: shows the versions of this command and of the mesh in the cluster.

use std::collections::BTreeMap;

use clap::Args;
use crds::labels::PROXY_VERSION;
use http::Request;
use http::header::ACCEPT;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::core::{DynamicObject, ObjectList};
use policy::well_known::{CONTROLLER, INJECTOR};
use serde::Serialize;

use crate::cluster::names::ResourceKind;
use crate::cluster::{Cluster, Refusal, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::{self, NARROW};

/// Arguments of `weft version`.
#[derive(Args, Debug)]
#[command(
    about = "Show the versions of this command, the control plane and the proxies",
    after_help = "Example:\n  weft version --client"
)]
pub(crate) struct Version {
    /// Only of this command; no cluster is queried
    #[arg(long)]
    client: bool,
}

#[derive(Debug, Default, Serialize)]
struct Versions {
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    injector: Option<String>,
    /// Meshed pods of the namespace, or of all, by their proxy's version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    proxies: BTreeMap<String, u64>,
}

impl Version {
    /// Prints the versions.
    ///
    /// # Errors
    /// When the cluster does not respond, or a namespace that was named does not exist; what is
    /// known by then has been printed.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let format = global.format(NARROW)?;
        let mut versions = Versions {
            client: env!("CARGO_PKG_VERSION"),
            ..Versions::default()
        };
        let asked = match self.client {
            true => Ok(()),
            false => versions.query(global, console).await,
        };
        // What is known is printed, even if a part does not respond.
        if !output::data(console, format, &versions)? {
            versions.print(console)?;
        }
        asked.map(|()| Conclusion::Yes)
    }
}

impl Versions {
    /// Notes what runs in the cluster, up to the first part that does not respond.
    async fn query(&mut self, global: &Global, console: &mut Console<'_>) -> Result<(), Failure> {
        let cluster = Cluster::connect(global).await?;
        let kubernetes: Info = cluster.read("the API server's version", "/version").await?;
        self.kubernetes = Some(kubernetes.git_version);
        existing::must_have_weft_namespace(&cluster).await?;
        self.controller = part(&cluster, CONTROLLER, console).await?;
        self.injector = part(&cluster, INJECTOR, console).await?;
        self.proxies = proxies(&cluster).await?;
        if self.proxies.is_empty() && cluster.is_named() {
            existing::must_be_in_a_namespace(&cluster).await?;
        }
        Ok(())
    }

    fn print(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        console.line(&format!("weft         {}", self.client))?;
        for (name, version) in [
            ("kubernetes", &self.kubernetes),
            ("controller", &self.controller),
            ("injector", &self.injector),
        ] {
            if let Some(version) = version {
                console.line(&crate::escape::plain(&format!("{name:<12} {version}")))?;
            }
        }
        for (version, pods) in &self.proxies {
            console.line(&crate::escape::plain(&format!(
                "{:<12} {version} in {pods} pods",
                "proxies"
            )))?;
        }
        Ok(())
    }
}

/// A missing part is printed and is no failure: the command is also run before an installation.
async fn part(
    cluster: &Cluster,
    name: &str,
    console: &mut Console<'_>,
) -> Result<Option<String>, Failure> {
    let namespace = cluster.weft_namespace();
    let all = ResourceKind::Deployment.path(Some(namespace));
    let path = format!("{}/{name}", all.unwrap_or_default());
    let what = format!("Deployment {namespace}/{name}");
    match cluster.try_read::<Deployment>(&what, &path).await {
        Ok(deployment) => {
            let labels = deployment.metadata.labels.unwrap_or_default();
            Ok(labels.get("app.kubernetes.io/version").cloned())
        }
        Err(refusal) => {
            console.word(&refusal.into_failure().to_string())?;
            Ok(None)
        }
    }
}

async fn proxies(cluster: &Cluster) -> Result<BTreeMap<String, u64>, Failure> {
    let path = ResourceKind::Pod.path(cluster.scope()).unwrap_or_default();
    let request = Request::get(path)
        .header(ACCEPT, existing::METADATA)
        .body(Vec::new())
        .map_err(|error| Failure::unknown(error.to_string()))?;
    let found = cluster.try_request("Pods", request).await;
    let found: ObjectList<DynamicObject> = found.map_err(Refusal::into_failure)?;
    let mut versions = BTreeMap::new();
    for pod in found.items {
        let annotations = pod.metadata.annotations.unwrap_or_default();
        if let Some(version) = annotations.get(PROXY_VERSION) {
            *versions.entry(version.clone()).or_default() += 1;
        }
    }
    Ok(versions)
}
