//! `weft-controller leave`, which runs before the chart is deleted, and the report of an uninstall
//! that did not finish.
//!
//! May import `apiserver`, and what it undoes: `aggregated`, `metrics_api`, `observe_api`,
//! `storage_migration` and `trust_bundle`.

mod api_services;
mod definitions;
mod gates;
pub(crate) mod hook;
mod pages;
pub(crate) mod unfinished;
