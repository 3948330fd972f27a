//! The reports of proxies: which resources they have acknowledged and which calls they have
//! counted, on this replica and, by exchange, on the others.
//!
//! May import `fleet`, `inventory`, `latest_model`, `metrics`, `settings` and `shares`. `serve`
//! registers streams here, and nothing here knows of them otherwise.

pub(crate) mod acknowledged;
pub(crate) mod acknowledgements;
pub(crate) mod clock_offset;
pub(crate) mod dropped_reports;
pub(crate) mod early;
pub(crate) mod ended_pods;
pub(crate) mod exchange;
mod latency_counts;
pub(crate) mod live_queries;
pub(crate) mod propagation;
mod report_store;
pub(crate) mod reports;
mod stored_report;
