//! A resource with what it was made from.

use policy::{access::Source, http_match::HttpMatch, name::ObjectRef, route::names::Names};
use prost::Message as _;
use wire::v1;

/// Bytes that a match takes in a resource.
pub(crate) fn match_len(one: &HttpMatch) -> usize {
    v1::HttpMatch::from(one).encoded_len()
}

/// What callers take in a resource.
pub(crate) fn sources_len(sources: &[Source]) -> usize {
    let each = sources.iter().map(|one| match one {
        Source::Pods(pods) => pods.iter().map(|pod| pod.len() + 4).sum(),
        Source::Identity(_) | Source::Authenticated | Source::Unauthenticated => {
            v1::Source::from(one).encoded_len() + 4
        }
    });
    each.sum()
}

/// A resource, stamped with its version, and the objects that it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedResource {
    /// Name, version and content.
    pub resource: v1::Resource,
    /// Objects with the generation that is in force here, sorted. A proxy that has
    /// acknowledged this resource has this part of them.
    pub origins: Vec<(ObjectRef, i64)>,
}

impl EncodedResource {
    /// Names and stamps a resource.
    pub(crate) fn new(
        name: String,
        content: v1::resource::Content,
        origins: Vec<(ObjectRef, i64)>,
    ) -> Self {
        let resource = v1::Resource {
            name,
            version: String::new(),
            content: Some(content),
        };
        Self::stamped(resource, origins)
    }

    /// After what requests are named: no object's state depends on what only names.
    pub(crate) fn routes(names: &Names) -> Self {
        let content = v1::resource::Content::Routes(names.into());
        Self::new(wire::names::ROUTES.to_owned(), content, Vec::new())
    }

    /// Whether some object's state depends on who has this.
    pub(crate) fn is_of_objects(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Stamps a resource.
    pub(crate) fn stamped(resource: v1::Resource, mut origins: Vec<(ObjectRef, i64)>) -> Self {
        origins.sort();
        origins.dedup();
        Self {
            resource: wire::version::stamp(resource),
            origins,
        }
    }
}
