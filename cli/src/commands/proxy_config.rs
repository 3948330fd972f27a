//! `weft proxy-config`: what a proxy holds, by its own word.

use clap::Args;
use crds::observe::{Proxy, Resource};
use policy::well_known::ADMIN_PORT;
use serde_json::Value;

use crate::cluster::names::{Kind, Named};
use crate::cluster::{Cluster, forward};
use crate::console::Console;
use crate::failure::{Failure, Verdict};
use crate::global::Global;
use crate::output::table::Table;
use crate::output::{self, Format};

/// Arguments of `weft proxy-config`.
#[derive(Args, Debug)]
#[command(
    about = "Show what the proxy of a pod holds, by its own word",
    long_about = "Shows identity, modes and the names and versions of all that the proxy of a pod \
                  holds. Where no controller tells it the proxy itself is asked, by port-forward; \
                  with --direct at once.",
    after_help = "Example:\n  weft proxy-config web-5d8 --direct"
)]
pub struct ProxyConfig {
    /// The pod
    #[arg(value_name = "POD")]
    pod: String,
    /// By port-forward, without a controller
    #[arg(long)]
    direct: bool,
}

/// `web-1` or `pod/web-1`.
pub(super) fn pod(text: &str) -> Result<String, Failure> {
    let text = if text.contains('/') {
        text.to_owned()
    } else {
        format!("pod/{text}")
    };
    Ok(Named::read_one(&text, &[Kind::Pod])?.1)
}

impl ProxyConfig {
    /// Prints the configuration.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Verdict, Failure> {
        let format = global.format(&[Format::Table, Format::Json, Format::Yaml])?;
        let pod = pod(&self.pod)?;
        let cluster = Cluster::connect(global).await?;
        let told = if self.direct {
            None
        } else {
            told(&cluster, &pod).await?
        };
        let config = match told {
            Some(config) => config,
            None => direct(&cluster, &pod).await?,
        };
        if !output::data(console, format, &config)? {
            print(&config, console)?;
        }
        Ok(Verdict::Yes)
    }
}

async fn direct(cluster: &Cluster, pod: &str) -> Result<Value, Failure> {
    let page = forward::page(cluster, cluster.namespace(), pod, ADMIN_PORT, "/config").await?;
    serde_json::from_str(&page)
        .map_err(|error| Failure::unknown(format!("the proxy of {pod} answers no JSON: {error}")))
}

/// What a controller tells of it, if anything.
async fn told(cluster: &Cluster, pod: &str) -> Result<Option<Value>, Failure> {
    let namespace = Some(cluster.namespace());
    let proxy: Proxy = cluster
        .observe(Resource::Proxies, namespace, Some(pod), "config=1")
        .await?;
    Ok(proxy.status.config)
}

fn print(config: &Value, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut table = Table::new(&["NAME", "VERSION"]);
    for (name, value) in config.as_object().into_iter().flatten() {
        match value {
            Value::Object(held) => {
                for (name, version) in held {
                    table.row(vec![name.clone().into(), text(version).into()]);
                }
            }
            value => console.line(&crate::escape::plain(&format!(
                "{name:<12} {}",
                text(value)
            )))?,
        }
    }
    table.write(console.out, console.color)?;
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
