//! What the proxy tells of its calls: metrics, reports to the controller, the access log.
//!
//! Imports `failure`, `http`, `net` and `settings`.

pub mod access_log;
pub mod call;
pub mod compatibility;
pub mod labels;
pub mod memory;
pub mod metrics;
pub mod ports;
pub mod report;
pub mod series;
pub mod trace;
