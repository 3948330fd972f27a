//! The conformance rows: what each claims, where it runs, and its recorded result.
//!
//! A row is a step of the Service Mesh Interface's own conformance suite or a
//! case that the suite omits. Tests record what they sent and saw ([`Record`]);
//! `weft-conformance` makes the table of it and reports rows that were not run.

pub mod lower;
pub mod record;
pub mod report;
pub mod rows;

pub use record::Record;
pub use rows::{ROWS, Row};
