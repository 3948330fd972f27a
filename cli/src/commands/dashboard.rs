//! `weft dashboard`: a local server of the mesh's page for the user's own browser.
//!
//! It is no part of the cluster: it has its user's rights and no others, so there are no accounts,
//! no login and no port open to others.
//!
//! Claims: observe-43

mod guard;
mod request;
mod response;
mod server;

use std::net::Ipv4Addr;

use clap::Args;
use tokio::net::TcpListener;

use self::guard::Guard;
use self::server::Site;
use crate::cluster::{Cluster, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::Format;

/// Arguments of `weft dashboard`.
#[derive(Args, Debug)]
#[command(
    about = "Serve the page of the mesh on this machine",
    long_about = "Serves the page of the mesh on 127.0.0.1 until it is stopped: the graph and its \
                  table, workloads, splits with their weights, who may call whom, why a call is \
                  refused and what would allow it, requests as they end, the proxies. It reads what \
                  the user's rights let him read, and changes nothing. The address holds a key of \
                  this start; who has it sees what its user may see.",
    after_help = "Example:\n  weft dashboard -n shop"
)]
pub(crate) struct Dashboard {
    /// Port on 127.0.0.1; any that is free without it
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
}

impl Dashboard {
    /// Serves until the user ends it.
    ///
    /// # Errors
    /// When there is no kubeconfig or no such namespace, or the port is taken.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        global.format(&[Format::Table])?;
        let cluster = Cluster::connect(global).await?;
        must_be_there(&cluster).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = listener.map_err(|error| {
            Failure::unknown(format!(
                "127.0.0.1:{}: {error}; --port takes another, 0 any",
                self.port
            ))
        })?;
        let port = listener.local_addr()?.port();
        let key = guard::key();
        console.line(&format!("http://127.0.0.1:{port}/#key={key}"))?;
        console.out.flush()?;
        console.word("open this address in a browser on this machine; Ctrl-C ends it")?;
        let site = Site::new(cluster, Guard::new(port, key));
        tokio::select! {
            never = server::serve(&listener, &site) => match never {},
            _ = tokio::signal::ctrl_c() => Ok(Conclusion::Yes),
        }
    }
}

/// Ends if the page would show a namespace that was named and does not exist. If that is not known,
/// for want of a right or of a response, the page reports it.
async fn must_be_there(cluster: &Cluster) -> Result<(), Failure> {
    if !cluster.is_named() {
        return Ok(());
    }
    match existing::must_be_in_a_namespace(cluster).await {
        Err(wrong @ Failure::Usage(_)) => Err(wrong),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use fake_api::FakeApi;
    use serde_json::json;

    use super::*;
    use crate::args::Cli;

    #[tokio::test]
    async fn namespace_that_is_not_there_has_no_page() {
        let api = FakeApi::default();
        let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        api.put("/api/v1/namespaces/shop", shop);
        let outcome = async |arguments: &[&str]| {
            let cli = Cli::parse_from([&["weft", "dashboard"][..], arguments].concat());
            must_be_there(&Cluster::of(api.client(), &cli.global)).await
        };
        let Err(Failure::Usage(words)) = outcome(&["-n", "shpo"]).await else {
            panic!("it is served");
        };
        assert!(words.starts_with("there is no namespace shpo"), "{words}");
        outcome(&["-n", "shop"]).await.unwrap();
        // Of a kubeconfig, so it was not named by the user.
        outcome(&[]).await.unwrap();
        // Whether it exists is not known: the page reports that.
        api.break_down();
        outcome(&["-n", "shpo"]).await.unwrap();
    }
}
