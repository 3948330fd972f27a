//! The aggregated API `metrics.smi-spec.io`: how much traffic the cluster's objects have. Every
//! replica serves it.
//!
//! The API server calls with its own certificate and names the user of each request
//! (`aggregated::front_proxy`); `aggregated::access` checks what that user may read. The response
//! is made from the proxies' reports (`observe::reports`) and the existing objects (`inventory`):
//! `query` parses the request, `aggregate` sums, `render` writes the form that clients know.
//!
//! May import `aggregated`, `inventory`, `latest_model`, `metrics` and `observe`.
//!
//! Claims: smi-9

pub(crate) mod aggregate;
pub(crate) mod answer;
pub(crate) mod api;
pub(crate) mod discovery;
pub(crate) mod openapi;
pub(crate) mod query;
pub(crate) mod render;

use crate::aggregated::certificate::ServedApi;

/// What the API server knows it by.
pub(crate) const SERVED: ServedApi = ServedApi {
    service: "weft-metrics",
    group: query::GROUP,
    versions: &query::VERSIONS,
};
