//! One file per command: its arguments, what it asks, how it prints the answer.

pub mod completion;
pub mod edges;
pub mod explain;
pub mod inject;
pub mod proxies;
pub mod routes;
pub mod stat;
pub mod suggest;
pub mod validate;
