//! Calls of the API server that one look waits for.

use std::time::Duration;

use tokio::time::timeout;

/// A look comes every second, and a release must not wait long for the calls of another. A call
/// that takes longer may still have been carried out: what it was about is read anew.
const PATIENCE: Duration = Duration::from_secs(5);

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
