//! One file for each command: its arguments, its requests, its output.

mod automation;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod convert;
pub(crate) mod dashboard;
pub(crate) mod diagnostics;
pub(crate) mod dry_run;
pub(crate) mod edges;
pub(crate) mod explain;
pub(crate) mod fault;
pub(crate) mod identity;
pub(crate) mod inject;
mod lifetime;
pub(crate) mod log_level;
pub(crate) mod proxies;
pub(crate) mod proxy_config;
pub(crate) mod release;
pub(crate) mod routes;
pub(crate) mod stat;
pub(crate) mod suggest;
pub(crate) mod tap;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod uninstall;
pub(crate) mod validate;
pub(crate) mod version;

use std::time::SystemTime;

use crate::cluster::Cluster;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::Format;

/// A command that queries the cluster and prints the result.
///
/// The command line is validated before the client connects, so that a bad argument needs no
/// kubeconfig and waits for no response.
pub(crate) trait ClusterCommand {
    /// The formats of `-o`.
    const FORMATS: &'static [Format];

    /// # Errors
    /// When the arguments are invalid for every cluster.
    fn must_be_readable(&self, _global: &Global) -> Result<(), Failure> {
        Ok(())
    }

    /// Prints the result for this cluster. `now`: by this machine's clock.
    ///
    /// # Errors
    /// When the result is not known, or the object does not exist.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure>;

    /// The same of the cluster that the kubeconfig names.
    ///
    /// # Errors
    /// As [`Self::print`], and when what is typed has no meaning or there is no usable kubeconfig.
    async fn run(&self, global: &Global, console: &mut Console<'_>) -> Result<Conclusion, Failure> {
        let format = global.format(Self::FORMATS)?;
        self.must_be_readable(global)?;
        let cluster = Cluster::connect(global).await?;
        self.print(&cluster, format, SystemTime::now(), console)
            .await
    }
}

#[cfg(test)]
mod tests;
