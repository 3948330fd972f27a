//! What end-to-end tests are made of: the application that is meshed (`echo`)
//! and the hands that work the cluster (`harness`).

pub mod echo;
pub mod harness;
