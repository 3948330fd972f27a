//! `metrics.smi-spec.io`: how much traffic the cluster's objects have, as an
//! aggregated API that every replica serves.
//!
//! The API server calls with a certificate of its own and names the user on whose behalf
//! (`aggregated::front_proxy`); what that user may read is queried there (`aggregated::access`).
//! The answer is made of what proxies reported (`observe::reports`) and of which objects exist
//! (`inventory`): `query` reads the request, `aggregate` adds up, `render` gives it the shape that
//! clients know.
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
