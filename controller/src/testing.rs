//! What tests of several folders share: a cluster as the API server would send it, an API
//! server in memory, one that calls us, and a topology with traffic.
//!
//! May import everything; nothing but tests may import it.

pub(crate) use fake_api as api_server;
pub(crate) use model::fixtures as cluster;

pub(crate) mod front_proxy;
pub(crate) mod topology;
pub(crate) mod warnings;

use std::time::Duration;

/// What this thread has computed so far, however busy the machine is otherwise.
pub(crate) fn computed() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}
