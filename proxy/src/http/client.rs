//! HTTP as a client.

pub mod exchange;
pub mod multiplexed;
pub mod taskless;
