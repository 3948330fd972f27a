//! Which backend of a TrafficSplit takes a request or a connection.

use crate::http_match::{HttpMatch, RequestFacts};
use crate::name::{ObjectRef, ServiceId};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// In the split's own namespace.
    pub service: ServiceId,
    /// Share relative to the other backends of the split; 0 takes nothing.
    pub weight: u32,
    /// Name of the endpoints resource.
    pub endpoints: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub origin: ObjectRef,
    /// `None`: every request and connection. Otherwise one must match.
    pub matches: Option<Vec<HttpMatch>>,
    /// Backends that have the port, each Service once.
    pub backends: Vec<Backend>,
}

impl Split {
    /// The backend at `point`, which is uniform over all of `u64`. `None` when
    /// no backend has a weight: that is a refusal, never a way back to the root.
    pub fn choose(&self, point: u64) -> Option<&Backend> {
        let total: u64 = self.backends.iter().map(|b| u64::from(b.weight)).sum();
        // Scales the point to 0..total without the bias of a remainder.
        let mut left = u64::try_from((u128::from(point) * u128::from(total)) >> 64).ok()?;
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        })
    }

    fn applies(&self, request: Option<&RequestFacts<'_>>) -> bool {
        match (&self.matches, request) {
            (None, _) => true,
            (Some(matches), Some(request)) => matches.iter().any(|one| one.matches(request)),
            (Some(_), None) => false,
        }
    }
}

/// The split that decides: the first that applies, in the given order. `None`
/// means the root Service itself. Without a request (opaque bytes) a split with
/// matches never applies.
pub fn first_match<'a>(
    splits: &'a [Split],
    request: Option<&RequestFacts<'_>>,
) -> Option<&'a Split> {
    splits.iter().find(|split| split.applies(request))
}

#[cfg(test)]
mod tests;
