//! The decisions of the mesh, without input or output: which callers may call a workload, where a
//! request goes, and which endpoint serves it.
//!
//! Everything here is a function of its arguments. There is no socket, no
//! cluster, no clock and no randomness: time and random numbers are handed in,
//! so a test replays an hour in a microsecond and a decision can be explained.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod access;
pub mod access_log;
pub mod balance;
pub mod breaker;
pub mod context;
pub mod deadline;
pub mod egress;
pub(crate) mod expiring_set;
pub mod explain;
pub mod fallback;
pub mod fault;
pub mod health;
pub mod host;
pub mod http_match;
pub mod latency;
pub mod limit;
pub mod log_filter;
pub mod mirror;
pub mod mode;
pub mod name;
pub mod origin;
pub mod overload;
pub mod overrides;
pub mod path;
pub mod protocol;
pub mod reason;
pub mod release;
pub mod retry;
pub mod revoked;
pub mod route;
pub mod share;
pub mod sticky;
pub mod subset;
pub mod terminal;
pub mod trace;
pub mod traffic;
pub mod well_known;
