//! What every binary of the mesh shares as a process: environment, logs, readiness, the admin port,
//! permits of a listener, the limit of open files, named tasks, backoff, the wall clock and a
//! graceful stop.
//!
//! Nothing here depends on what the process does, so this crate imports no other of the project.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod admin;
pub mod backoff;
pub mod cgroup;
pub mod clock;
pub mod env;
pub mod fair_queue;
pub mod files;
pub mod head_timer;
pub mod https;
pub mod keyed_semaphore;
pub mod limit;
pub mod listen;
pub mod log;
pub mod log_writer;
pub mod metrics;
pub mod occupancy;
pub mod pool;
pub mod rate;
pub mod ready;
pub mod stop;
pub mod task;
