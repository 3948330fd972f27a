//! The aggregated API `observe.weft.dev`: the service graph, the proxies, and explanations of
//! calls. Every replica serves it.
//!
//! `query` parses a request, `parameters` lists the allowed parameters, `api` checks rights and
//! permits and responds, `stream` continues a response, `worker_pool` computes long responses
//! beside the thread of connections. The content comes from `graph` and `explain`, the types from
//! `crds::observe`.
//!
//! May import `aggregated`, `apiserver`, `graph`, `inventory`, `latest_model`, `metrics` and
//! `observe`.

pub(crate) mod api;
pub(crate) mod context;
mod documents;
mod dry_runs;
mod explanations;
mod parameters;
mod proxies;
mod query;
mod redaction;
mod route_tables;
mod scopes;
mod stream;
mod taps;
mod worker_pool;

use crate::aggregated::certificate::ServedApi;

/// What the API server knows it by.
pub(crate) const SERVED: ServedApi = ServedApi {
    service: "weft-observe",
    group: crds::observe::GROUP,
    versions: &[crds::observe::VERSION],
};
