//! What `weft-controller leave` does before the chart is deleted, and what a controller reports of
//! it that is there afterwards.
//!
//! May import `apiserver`, and what it takes back: `aggregated`, `metrics_api`, `observe_api`,
//! `storage_migration` and `trust_bundle`.

mod api_services;
mod definitions;
pub(crate) mod hook;
pub(crate) mod unfinished;
