//! One file per command: its arguments, its requests, its output.

pub(crate) mod check;
pub(crate) mod cluster_command;
pub(crate) mod completion;
pub(crate) mod dashboard;
pub(crate) mod diagnostics;
pub(crate) mod dry_run;
pub(crate) mod edges;
pub(crate) mod explain;
pub(crate) mod identity;
pub(crate) mod inject;
mod lifetime;
pub(crate) mod log_level;
pub(crate) mod proxies;
pub(crate) mod proxy_config;
pub(crate) mod routes;
pub(crate) mod stat;
pub(crate) mod suggest;
pub(crate) mod tap;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod uninstall;
pub(crate) mod validate;
pub(crate) mod version;

#[cfg(test)]
mod tests;
