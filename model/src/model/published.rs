//! An encoded resource, with its version and the objects that it was made from.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use policy::{
    access::Source,
    egress::ExternalObject,
    http_match::HttpMatch,
    name::ObjectRef,
    revoked::Revocation,
    route::{Forward, names::Names},
};
use prost::Message as _;
use wire::v1;

use crate::world::ObjectKey;

/// Resources of a [`SharedResources`] that stay whether or not some proxy has them.
const KEPT: usize = 1024;

/// Bytes that a match takes in a resource.
pub(crate) fn match_len(one: &HttpMatch) -> usize {
    v1::HttpMatch::from(one).encoded_len()
}

/// Bytes that what is done with calls takes in a resource.
pub(crate) fn action_len(then: &Forward) -> usize {
    v1::RouteAction::from(then).encoded_len()
}

/// Bytes that a backend of a TrafficSplit takes in a resource, at the port with the longest number.
pub(crate) fn split_backend_len(service: &ObjectKey, weight: u32) -> usize {
    let backend = v1::Backend {
        service: service.name.to_string(),
        weight,
        endpoints: endpoints_name(service, u16::MAX),
    };
    backend.encoded_len()
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

/// Bytes that an ExternalService takes in a resource, before its hosts are resolved.
pub(crate) fn external_len(object: &ExternalObject) -> usize {
    v1::ExternalObject::from(object).encoded_len()
}

/// Host and port of the resource with the addresses of a host outside the mesh; `None` for another
/// name.
pub(crate) fn external_host(name: &str) -> Option<(&str, u16)> {
    match wire::names::parse(name)? {
        wire::names::Name::External { host, port } => Some((host, port)),
        _ => None,
    }
}

/// Name of the resource with the certificate of a Secret that a Gateway names.
pub(crate) fn certificate_name(secret: &ObjectKey) -> String {
    wire::names::certificate(&secret.namespace, &secret.name)
}

/// Name of the resource that says where a port of a Service is served.
pub(crate) fn endpoints_name(service: &ObjectKey, port: u16) -> String {
    wire::names::endpoints(&service.namespace, &service.name, port)
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

    /// What all proxies refuse.
    pub(crate) fn revocations(all: &[Revocation], origins: Vec<(ObjectRef, i64)>) -> Self {
        let content = v1::resource::Content::Revocations(wire::convert::revocations_message(all));
        Self::new(wire::names::REVOCATIONS.to_owned(), content, origins)
    }

    /// Whether some object's state depends on which proxies have this.
    pub fn is_of_objects(&self) -> bool {
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

/// What several proxies get in the same bytes and no part of a Model holds, such as what stands at
/// an address: in memory once, however many call there, and encoded once.
///
/// Models that follow each other share it. It decides nothing: what it gives is equal to what
/// would be made anew.
#[derive(Debug, Default)]
pub struct SharedResources(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Under their names, or other keys where several have one name.
    by_name: HashMap<String, Arc<EncodedResource>>,
    /// When there are so many, those that no proxy has go: at most twice as many are held as
    /// are in use, or [`KEPT`].
    room: usize,
}

impl SharedResources {
    /// The resource of this name and content, made from no object.
    pub fn of(&self, name: &str, content: v1::resource::Content) -> Arc<EncodedResource> {
        self.of_objects(name, name, content, Vec::new())
    }

    /// The resource of this name and content, made from these objects. `key` distinguishes it from
    /// others of its name, which other proxies get.
    pub(crate) fn of_objects(
        &self,
        key: &str,
        name: &str,
        content: v1::resource::Content,
        mut origins: Vec<(ObjectRef, i64)>,
    ) -> Arc<EncodedResource> {
        origins.sort();
        origins.dedup();
        let mut shared = self.0.lock();
        let is_same = |shared_resource: &&Arc<EncodedResource>| {
            shared_resource.resource.content.as_ref() == Some(&content)
                && shared_resource.origins == origins
        };
        if let Some(shared_resource) = shared.by_name.get(key).filter(is_same) {
            return Arc::clone(shared_resource);
        }
        let made = Arc::new(EncodedResource::new(name.to_owned(), content, origins));
        shared.make_room();
        shared.by_name.insert(key.to_owned(), Arc::clone(&made));
        made
    }
}

impl Shared {
    fn make_room(&mut self) {
        if self.by_name.len() < self.room.max(KEPT) {
            return;
        }
        self.by_name
            .retain(|_, shared_resource| Arc::strong_count(shared_resource) > 1);
        self.room = 2 * self.by_name.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> v1::resource::Content {
        let roots = vec![text.as_bytes().to_vec()];
        v1::resource::Content::Bundle(v1::Bundle {
            roots,
            ..v1::Bundle::default()
        })
    }

    #[test]
    fn equal_resource_content_is_shared_and_changes_replace_it() {
        let shared = SharedResources::default();
        let first = shared.of("a", content("1"));
        let alone = EncodedResource::new("a".to_owned(), content("1"), Vec::new());
        assert_eq!(*first, alone);
        assert!(Arc::ptr_eq(&first, &shared.of("a", content("1"))));
        let other = shared.of("b", content("1"));
        assert_eq!(other.resource.name, "b");
        let newer = shared.of("a", content("2"));
        assert_eq!(newer.resource.content, Some(content("2")));
        assert!(Arc::ptr_eq(&newer, &shared.of("a", content("2"))));
    }

    #[test]
    fn unused_shared_resources_are_evicted_but_used_stay() {
        let shared = SharedResources::default();
        let shared_resource = || shared.0.lock().by_name.len();
        let own = shared.of("own", content("1"));
        for number in 0..3 * KEPT {
            shared.of(&number.to_string(), content("unused"));
        }
        assert!(shared_resource() <= KEPT, "{}", shared_resource());
        assert!(Arc::ptr_eq(&own, &shared.of("own", content("1"))));
        let all = (0..3 * KEPT).map(|number| shared.of(&number.to_string(), content("used")));
        let used: Vec<_> = all.collect();
        assert_eq!(shared_resource(), used.len() + 1);
        drop(used);
        // Looked at again when there are twice as many as were in use.
        for number in 0..4 * KEPT {
            shared.of(&format!("later-{number}"), content("unused"));
        }
        assert!(shared_resource() <= KEPT, "{}", shared_resource());
    }
}
