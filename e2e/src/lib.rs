//! What end-to-end tests are made of: the application that is meshed (`echo`),
//! the hands that work the cluster (`harness`), and the demo made of both.

pub mod demo;
pub mod echo;
pub mod harness;
