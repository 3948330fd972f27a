//! Encodes the route names under which a pod's proxy counts requests.

use std::sync::Arc;

use crate::model::{Index, published::EncodedResource};
use crate::world::{ObjectKey, PodFacts};

impl Index {
    /// What the proxy of a pod gets of names; `None` where requests to it have none.
    pub(super) fn routes(&self, pod: &ObjectKey, facts: &PodFacts) -> Option<Arc<EncodedResource>> {
        let entry = self.pods.get(pod)?;
        let publish = || {
            let groups = self.route_groups(pod, facts, &entry.serves);
            self.names.published(groups)
        };
        entry.routes.get_or_init(publish).clone()
    }
}
