//! The aggregated API `observe.weft.dev`: the service graph, the proxies, and explanations of
//! calls. Every replica serves it.
//!
//! `query` reads a query, `parameters` lists which parts it may have, `api` checks rights and
//! permits and responds, `stream` continues a response, `worker_pool` computes what takes long
//! beside the thread of connections. The content is made elsewhere: by `graph`, and by `explain`.
//! The types are `crds::observe`'s.
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
