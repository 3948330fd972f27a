//! The request of a dry run, as the API reads it.

use crds::observe::{API_VERSION, DryRun, DryRunSpec, Resource};
use http::Request;

use crate::cluster::{Cluster, Refusal};

/// The name of the resource in messages.
pub(super) const WHAT: &str = Resource::DryRuns.plural();

/// The request for this spec.
///
/// # Errors
/// When it cannot be written.
pub(super) fn request(cluster: &Cluster, spec: DryRunSpec) -> Result<Request<Vec<u8>>, Refusal> {
    let question = DryRun {
        api_version: API_VERSION.to_owned(),
        kind: Resource::DryRuns.kind().to_owned(),
        spec,
        status: None,
    };
    let body = serde_json::to_vec(&question);
    let body = body.map_err(|error| Refusal::of(WHAT, kube::Error::SerdeError(error)))?;
    let path = Resource::DryRuns.path(Some(cluster.namespace()), None);
    Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| Refusal::of(WHAT, kube::Error::HttpError(error)))
}
