//! The service graph: what proxies reported, as a graph of workloads and their calls.
//!
//! `fold` sums the reports of one interval by edge, purely; `history` keeps those of the last
//! minutes and, by half minute, of the last hour; `memory` keeps every known edge. `answer` builds
//! the read API's response from these, `written` its text. `follow` is the task that folds each
//! interval as its reports come; `wall_clock` detects that the clock which numbers the intervals
//! was set. `exported` counts the graph as metrics for other tools, `push` sends those to a
//! collector.
//!
//! May import `apiserver`, `inventory`, `latest_model`, `metrics` and `observe`.

pub(crate) mod answer;
pub(crate) mod checkpoint;
pub(crate) mod edges;
pub(crate) mod exported;
pub(crate) mod fold;
pub(crate) mod follow;
pub(crate) mod history;
pub(crate) mod key;
pub(crate) mod memory;
mod otlp;
pub(crate) mod push;
pub(crate) mod sums;
mod wall_clock;
pub(crate) mod window;
pub(crate) mod workloads;
pub(crate) mod written;

use crds::observe::Protocol;
use wire::v1;

/// Runs something that waits for the state, or takes long, beside the thread of connections.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(made) => made,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The replica ends, and its waiters with it.
        Err(_) => std::future::pending().await,
    }
}

/// The protocol of an edge, as the read API shows it, of what a proxy reported; what it had not
/// detected yet is unknown.
pub(crate) fn protocol(message: v1::Protocol) -> Protocol {
    match message {
        v1::Protocol::Detect => Protocol::Unknown,
        v1::Protocol::Http1 => Protocol::Http1,
        v1::Protocol::Http2 => Protocol::Http2,
        v1::Protocol::Grpc => Protocol::Grpc,
        v1::Protocol::Opaque => Protocol::Tcp,
        v1::Protocol::Tls => Protocol::Tls,
    }
}
