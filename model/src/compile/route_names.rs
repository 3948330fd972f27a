//! Resolves the HTTPRouteGroups that Services name for the route labels of their metrics.

use std::collections::{BTreeMap, BTreeSet};

use crds::labels;
use policy::{name::Kind, route::names::MAX_NAMES};

use super::{findings::About, findings::Findings, routes::Routes};
use crate::{
    model::route_names::RouteNames,
    problem::Reason,
    world::{ObjectKey, World, object},
};

const FIELD: &str = "metadata.annotations[weft.dev/routes]";

/// The route names of every Service, and the matches of all groups.
pub(super) fn names(world: &World, routes: &Routes, findings: &mut Findings) -> RouteNames {
    let mut services = BTreeMap::new();
    for (key, facts) in world.services.iter() {
        let Some(written) = facts.routes.as_deref() else {
            continue;
        };
        let this = object(Kind::Service, key);
        let mut about = findings.about(&this, facts.generation);
        if let Some(groups) = groups(key, written, routes, &mut about) {
            services.insert(key.clone(), groups);
        }
    }
    RouteNames::new(routes.matches(), services)
}

/// The groups that a Service names and that there are; `None` where its list cannot be read.
fn groups(
    key: &ObjectKey,
    written: &str,
    routes: &Routes,
    about: &mut About<'_>,
) -> Option<BTreeSet<ObjectKey>> {
    let named = match labels::parse_routes(written) {
        Ok(named) => named.into_iter().collect::<BTreeSet<&str>>(),
        Err(bad) => {
            about.warn(Reason::Invalid, FIELD, format!("{bad}; ignored"));
            return None;
        }
    };
    let (mut groups, mut matches) = (BTreeSet::new(), 0);
    for name in named {
        let Some(group) = routes.group(&key.namespace, name) else {
            let message = format!("there is no HTTPRouteGroup {name}");
            about.unresolved(Reason::RefNotFound, FIELD, message);
            continue;
        };
        matches += group.all().count();
        groups.insert(ObjectKey::new(&key.namespace, name));
    }
    if matches > MAX_NAMES {
        let message = format!(
            "its groups have {matches} matches; requests are named after the first {MAX_NAMES}, \
             in the order of the groups' names"
        );
        about.warn(Reason::Invalid, FIELD, message);
    }
    Some(groups)
}
