//! Process manners that every binary of the mesh shares: environment, logs,
//! readiness, the admin port, named tasks, backoff and an orderly end.
//!
//! Nothing here knows what the process does; that is why it depends on nothing
//! else of ours.

pub mod accept;
pub mod admin;
pub mod backoff;
pub mod env;
pub mod limit;
pub mod log;
pub mod pool;
pub mod rate;
pub mod ready;
pub mod shutdown;
pub mod task;
pub mod turns;
