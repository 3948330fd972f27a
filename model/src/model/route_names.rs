//! Chooses the HTTPRouteGroups whose match names label a pod's requests in metrics.
//!
//! Groups that the pod's Services name take precedence over those of its TrafficTargets: an author
//! who names routes wants these numbers, and no others beside them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use policy::{http_match::HttpMatch, name::Kind, route::names::Names};

use super::{
    published::{EncodedResource, match_len},
    service_ports::Served,
    targets::Target,
};
use crate::world::{ObjectKey, named, object};

/// Most bytes of matches that name the requests to one pod: 64 of 1 KiB. What goes beyond
/// has no name.
const MOST_BYTES: usize = 64 * 1024;

/// What requests are named after.
#[derive(Debug, Default)]
pub struct RouteNames {
    /// Matches that some request can fit, by group, in the order of the object.
    groups: BTreeMap<ObjectKey, Vec<HttpMatch>>,
    /// Groups by Service, for Services that name some or say that there are none.
    services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// What was encoded, by groups: pods of one workload have the same.
    published: Mutex<HashMap<BTreeSet<ObjectKey>, Option<Arc<EncodedResource>>>>,
}

impl RouteNames {
    pub(crate) fn new(
        groups: BTreeMap<ObjectKey, Vec<HttpMatch>>,
        services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    ) -> Self {
        Self {
            groups,
            services,
            published: Mutex::default(),
        }
    }

    /// The groups after which requests to a pod are named, by what it serves and what
    /// protects it.
    pub(crate) fn groups_of<'a>(
        &self,
        serves: &[Served],
        targets: impl Iterator<Item = &'a Target>,
    ) -> BTreeSet<ObjectKey> {
        let mut names = serves
            .iter()
            .filter_map(|(service, ..)| self.services.get(service))
            .peekable();
        if names.peek().is_some() {
            return names.flatten().cloned().collect();
        }
        let rules = targets.filter_map(|target| target.rule.as_ref());
        let origins = rules.flat_map(|rule| &rule.origins);
        let groups = origins.filter(|(object, _)| object.kind == Kind::HttpRouteGroup);
        groups
            .map(|(group, _)| ObjectKey {
                namespace: group.namespace.clone(),
                name: group.name.clone(),
            })
            .collect()
    }

    /// What proxies of pods with these groups get; `None` where nothing is named.
    pub(crate) fn published(&self, groups: BTreeSet<ObjectKey>) -> Option<Arc<EncodedResource>> {
        if groups.is_empty() {
            return None;
        }
        let mut published = self.published.lock();
        let made = published.entry(groups).or_insert_with_key(|groups| {
            let names = self.names(groups);
            (!names.is_empty()).then(|| Arc::new(EncodedResource::routes(&names)))
        });
        made.clone()
    }

    /// The names that requests to pods with these groups can have.
    pub fn names(&self, groups: &BTreeSet<ObjectKey>) -> Names {
        let mut left = MOST_BYTES;
        let matches = groups.iter().flat_map(|key| {
            let group = named(&object(Kind::HttpRouteGroup, key));
            let matches = self.groups.get(key).into_iter().flatten();
            matches.map(move |one| (group.clone(), one.clone()))
        });
        Names::of(matches.take_while(|(_, one)| {
            let room = left.checked_sub(match_len(one));
            left = room.unwrap_or(left);
            room.is_some()
        }))
    }

    /// Whether the two say the same, whatever was encoded of them so far.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.services == other.services && self.groups == other.groups
    }

    /// Whether the two say the same of these groups.
    pub(crate) fn same_matches(&self, other: &Self, groups: &BTreeSet<ObjectKey>) -> bool {
        let mut groups = groups.iter();
        groups.all(|group| self.groups.get(group) == other.groups.get(group))
    }
}
