//! Rows of the conformance table: the steps of the Service Mesh Interface's own
//! suite, and the cases beyond it that no other file here carries.
//!
//! The steps of a suite stand on each other, so a suite is one test, and every
//! step of it is a row.

mod access;
mod application;
mod birds;
mod modes;
mod probes;
mod specs;
mod split;
mod splits;
mod stored;
mod versions;
