//! The trusted roots, as every proxy is told them.

use wire::v1;

use crate::authority::Authority;
use crate::model::published::EncodedResource;

/// The trusted roots as a resource like any other.
pub(super) fn bundle(authority: &Authority) -> EncodedResource {
    let roots = authority.roots_der();
    let resource = v1::Resource {
        name: wire::names::BUNDLE.to_owned(),
        version: String::new(),
        content: Some(v1::resource::Content::Bundle(v1::Bundle { roots })),
    };
    EncodedResource {
        resource: wire::version::stamp(resource),
        origins: Vec::new(),
    }
}
