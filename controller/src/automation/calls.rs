//! Calls of the API server with a short time limit, for the loops that look at releases and
//! experiments every second.

use std::time::Duration;

use crds::item::Item;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use tokio::time::timeout;

/// A look comes every second, and a release must not wait long for the calls of another. A call
/// that takes longer may still have been carried out: what it was about is read anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// Releases or experiments in one page of a list.
const PAGE: u32 = 500;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFailed {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    NoAnswer,
}

impl CallFailed {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.is_not_found())
    }

    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.is_conflict())
    }

    /// The API server has refused it, so nothing was done.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if status.code < 500)
    }
}

/// The result of a call, in time.
pub(super) async fn within<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallFailed> {
    match timeout(PATIENCE, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CallFailed::NoAnswer),
    }
}

/// All objects of a kind that can be read; none where the kind is not installed.
pub(super) async fn list(
    client: &Client,
    resource: &ApiResource,
) -> Result<Vec<DynamicObject>, kube::Error> {
    let api: Api<Item<DynamicObject>> = Api::all_with(client.clone(), resource);
    match pages(&api, ListParams::default().limit(PAGE)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}

/// The objects of all pages that can be read.
pub(super) async fn pages(
    api: &Api<Item<DynamicObject>>,
    mut params: ListParams,
) -> Result<Vec<DynamicObject>, kube::Error> {
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        let items = page.items.into_iter();
        all.extend(items.filter_map(|Item(object)| object.ok()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}
