//! The rows of `make eyes`: what the mesh reports, compared with independent measurements.
//!
//! Tests write down what they measured ([`Record`]); `weft-eyes` makes bench/EYES.md of it
//! and misses what was not run.

pub mod page;
pub mod record;
pub mod report;
pub mod rows;

pub use record::Record;
pub use rows::{ROWS, Row};
