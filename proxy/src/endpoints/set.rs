//! The endpoints of one Service port, and the choice among them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use policy::balance::pick;

use crate::endpoints::endpoint::Endpoint;

/// The endpoints of one Service port.
#[derive(Debug, Default)]
pub struct EndpointSet {
    pub endpoints: Vec<Arc<Endpoint>>,
}

impl EndpointSet {
    /// The cheaper of two random endpoints that `tried` does not hold.
    #[must_use]
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let now = Instant::now();
        let random = (rand::random::<u64>(), rand::random::<u64>());
        if tried.is_empty() {
            let at = pick(
                |at| self.endpoints[at].score(now),
                self.endpoints.len(),
                random,
            )?;
            return self.endpoints.get(at).cloned();
        }
        let left: Vec<&Arc<Endpoint>> = self
            .endpoints
            .iter()
            .filter(|endpoint| !tried.contains(&endpoint.addr))
            .collect();
        let at = pick(|at| left[at].score(now), left.len(), random)?;
        left.get(at).map(|endpoint| Arc::clone(endpoint))
    }

    /// The same endpoint for the same caller and epoch while it exists: the highest of
    /// a hash over them and the address, so that other endpoints' coming and going
    /// moves nobody else.
    #[must_use]
    pub fn sticky(&self, caller: &str, epoch: u64, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        self.endpoints
            .iter()
            .filter(|endpoint| !tried.contains(&endpoint.addr))
            .max_by_key(|endpoint| {
                let mut hasher = DefaultHasher::new();
                (caller, epoch, endpoint.addr).hash(&mut hasher);
                hasher.finish()
            })
            .cloned()
    }
}
