//! `weft log-level`: sets the log filter of a running proxy.

use clap::Args;
use crds::labels::{LOG_LEVEL, parse_log_level};
use crds::objects::{GATEWAY_CONTAINER, PROXY_CONTAINER};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::proxy_config::{IN_ONE, pod};
use crate::cluster::names::ResourceKind;
use crate::cluster::{Cluster, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;

/// Arguments of `weft log-level`.
#[derive(Args, Debug)]
#[command(
    about = "Set what the proxy of a pod logs",
    long_about = "Writes annotation weft.dev/log-level on a live pod, by the user's own right to \
                  patch it. Its proxy follows within seconds and without a restart, until the annotation \
                  is taken away: - does that, and the namespace's or the default holds again.",
    after_help = "Example:\n  weft log-level web-5d8 weft_proxy=debug,info"
)]
pub(crate) struct LogLevel {
    /// The pod
    #[arg(value_name = "POD")]
    pod: String,
    /// off, error, warn, info, debug, trace, a list of module=level, or -
    #[arg(value_name = "LEVEL")]
    level: String,
}

impl LogLevel {
    /// Writes the annotation.
    ///
    /// # Errors
    /// When the level is none, or the pod cannot be written.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        global.without_output("one line")?;
        self.level()?;
        global.in_one_namespace(IN_ONE)?;
        pod(&self.pod)?;
        let cluster = Cluster::connect(global).await?;
        self.write(&cluster, console).await
    }

    fn level(&self) -> Result<Option<&str>, Failure> {
        match self.level.as_str() {
            "-" => Ok(None),
            level => parse_log_level(level)
                .map(Some)
                .map_err(|error| Failure::usage(format!("LEVEL {error}"))),
        }
    }

    /// Writes the annotation in this cluster.
    ///
    /// # Errors
    /// When the level is none, there is no such pod, or it cannot be written.
    pub(crate) async fn write(
        &self,
        cluster: &Cluster,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let (pod, level) = (pod(&self.pod)?, self.level()?);
        let pods: Api<Pod> = Api::namespaced(cluster.client(), cluster.namespace());
        let patch = json!({"metadata": {"annotations": {LOG_LEVEL: level}}});
        let what = format!("Pod {}/{pod}", cluster.namespace());
        let parameters = PatchParams::default();
        let patch = Patch::Merge(&patch);
        let patched = cluster.try_call(&what, pods.patch(&pod, &parameters, &patch));
        let written = match patched.await {
            Ok(written) => written,
            Err(refusal) => {
                return Err(existing::or_absent(cluster, (ResourceKind::Pod, &pod), refusal).await);
            }
        };
        console.word(&match level {
            Some(level) => format!("{what}: {LOG_LEVEL} is {level}"),
            None => format!("{what}: {LOG_LEVEL} is taken away"),
        })?;
        if level.is_some() && !has_proxy(&written) {
            console.word(&format!(
                "{what} has no container {PROXY_CONTAINER}: nothing logs by this"
            ))?;
        }
        Ok(Conclusion::Yes)
    }
}

fn has_proxy(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let mut sidecars = spec.init_containers.iter().flatten();
    // A Gateway is a proxy by itself.
    sidecars.any(|one| one.name == PROXY_CONTAINER)
        || spec
            .containers
            .iter()
            .any(|one| one.name == GATEWAY_CONTAINER)
}
