//! One file per command: its arguments, what it asks, how it prints the answer.

pub mod check;
pub mod completion;
pub mod dashboard;
pub mod diagnostics;
pub mod dry_run;
pub mod edges;
pub mod explain;
pub mod identity;
pub mod inject;
pub mod log_level;
pub mod proxies;
pub mod proxy_config;
pub mod routes;
pub mod stat;
pub mod suggest;
pub mod tap;
pub mod token;
pub mod top;
pub mod validate;
pub mod version;

#[cfg(test)]
mod tests;
