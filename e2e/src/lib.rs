//! What end-to-end tests are made of: the application that is meshed (`echo`),
//! the hands that work the cluster (`harness`), the demo made of both, and the
//! tables of `make conformance` and `make eyes`, with what lower rings prove for them (`proof`).

pub mod conformance;
pub mod demo;
pub mod echo;
pub mod eyes;
pub mod harness;
pub mod proof;
