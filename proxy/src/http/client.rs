//! HTTP as a client.

pub mod exchange;
pub mod http1;
pub mod multiplexed;
pub mod taskless;
pub mod upstream;
