//! What tests of several folders share: a cluster as the API server would send it, an API
//! server in memory, one that calls us, and a topology with traffic.
//!
//! May import everything; nothing but tests may import it.

pub(crate) use fake_api as api_server;
pub(crate) mod cluster;
pub(crate) mod cpu_time;
pub(crate) mod front_proxy;
pub(crate) mod topology;
pub(crate) mod warnings;
