//! The trusted roots, as every proxy gets them.

use std::sync::Arc;

use wire::v1;

use crate::authority::Authority;
use crate::model::published::{EncodedResource, SharedResources};

/// The trusted roots as a resource like any other, one for all streams.
pub(super) fn bundle(authority: &Authority, shared: &SharedResources) -> Arc<EncodedResource> {
    let roots = authority.roots_der();
    let content = v1::resource::Content::Bundle(v1::Bundle { roots });
    shared.of(wire::names::BUNDLE, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_one_bundle_until_roots_change() {
        let (authority, shared) = (Authority::in_memory(), SharedResources::default());
        let first = bundle(&authority, &shared);
        assert!(Arc::ptr_eq(&first, &bundle(&authority, &shared)));
        let other = bundle(&Authority::in_memory(), &shared);
        assert_ne!(other.resource.version, first.resource.version);
    }
}
