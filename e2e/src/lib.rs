//! What end-to-end tests are made of: the application that is meshed (`echo`),
//! the hands that work the cluster (`harness`), the demo made of both, and the
//! table of conformance rows.

pub mod conformance;
pub mod demo;
pub mod echo;
pub mod harness;
