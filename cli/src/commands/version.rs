//! `weft version`: of this command and of what runs in the cluster.

use std::collections::BTreeMap;

use clap::Args;
use crds::labels::PROXY_VERSION;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use policy::well_known::{CONTROLLER, INJECTOR};
use serde::Serialize;

use crate::cluster::{Cluster, existing};
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
    /// Only of this command; no cluster is asked
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
    /// When the cluster does not answer, or a namespace that was named is not there; what is known
    /// by then has been printed.
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
            false => versions.ask(global, console).await,
        };
        // What is known is told, whoever does not answer.
        if !output::data(console, format, &versions)? {
            versions.print(console)?;
        }
        asked.map(|()| Conclusion::Yes)
    }
}

impl Versions {
    /// Notes what runs in the cluster, up to where nobody answers.
    async fn ask(&mut self, global: &Global, console: &mut Console<'_>) -> Result<(), Failure> {
        let cluster = Cluster::connect(global).await?;
        let client = cluster.client();
        let kubernetes = cluster.ask("the API server's version", client.apiserver_version());
        self.kubernetes = Some(kubernetes.await?.git_version);
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

/// A part that is not there is told and is no failure: the command is asked for before an
/// installation, too.
async fn part(
    cluster: &Cluster,
    name: &str,
    console: &mut Console<'_>,
) -> Result<Option<String>, Failure> {
    let namespace = cluster.weft_namespace();
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    let what = format!("Deployment {namespace}/{name}");
    match cluster.try_ask(&what, deployments.get(name)).await {
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
    let pods: Api<Pod> = match cluster.scope() {
        Some(namespace) => Api::namespaced(cluster.client(), namespace),
        None => Api::all(cluster.client()),
    };
    let all = ListParams::default();
    let found = cluster.ask("Pods", pods.list_metadata(&all)).await?;
    let mut versions = BTreeMap::new();
    for pod in found.items {
        let annotations = pod.metadata.annotations.unwrap_or_default();
        if let Some(version) = annotations.get(PROXY_VERSION) {
            *versions.entry(version.clone()).or_default() += 1;
        }
    }
    Ok(versions)
}
