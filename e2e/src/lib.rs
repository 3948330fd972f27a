//! The parts of end-to-end tests: the meshed application (`echo`), the client of the
//! cluster (`harness`), the demo made of both, and the tables of `make conformance` and
//! `make eyes`, with the results of lower test tiers for them (`proof`).

pub mod conformance;
pub mod demo;
pub mod echo;
pub mod eyes;
pub mod harness;
pub mod proof;
