//! The conformance rows: what each claims, where it runs, and what it was seen
//! to do.
//!
//! A row is a step of the Service Mesh Interface's own conformance suite or a
//! case that suite leaves out. Tests write down what they sent and saw
//! ([`Record`]); `weft-conformance` makes the table of it and misses what was
//! not run.

pub mod lower;
pub mod record;
pub mod report;
pub mod rows;

pub use record::Record;
pub use rows::{ROWS, Row};
