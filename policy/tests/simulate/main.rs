//! A seeded event simulator: each algorithm is held to what users are promised, over
//! minutes of traffic that take a moment.
//!
//! Times of work are lognormal with pauses, routes are mixed and callers uneven. Every
//! claim is tried with twenty seeds, and the worst of them counts.
//!
//! Claims: calls-26

// Clippy knows a test by its attribute alone, and these helpers have none.
#![allow(clippy::unwrap_used)]

mod chain;
mod ejection;
mod engine;
mod limits;
mod mesh_breaker;
mod overload;
mod server;
mod slower;
mod sticky;
mod subset;
mod zones;
