//! The names by which a pod's requests are counted, from the routes that its Services name.
//!
//! They decide nothing, and are bounded nevertheless: a proxy matches every request with
//! them.

use policy::http_match::{Budget, HttpMatch};
use policy::origin::Origin;
use policy::route::names::{MAX_NAMES, Names};

use super::error::BadResource;
use super::http_match::within;
use super::object::origin;
use crate::v1;

impl TryFrom<&v1::Routes> for Names {
    type Error = BadResource;

    /// The expressions of all together may take what those of one group may: a proxy holds
    /// them beside those of its rules.
    fn try_from(message: &v1::Routes) -> Result<Self, BadResource> {
        let mut budget = Budget::group();
        let counted = message.routes.iter().take(MAX_NAMES).enumerate();
        let read = counted.map(|(i, route)| {
            route_of(&mut budget, route).map_err(|bad| bad.within(format_args!("routes[{i}]")))
        });
        let matches: Vec<(Origin, HttpMatch)> = read.collect::<Result<_, _>>()?;
        Ok(Self::of(matches))
    }
}

fn route_of(budget: &mut Budget, route: &v1::Route) -> Result<(Origin, HttpMatch), BadResource> {
    let http = route.http.as_ref();
    let http = http.ok_or_else(|| BadResource::new("http", "is missing"))?;
    let fits = within(budget, http).map_err(|bad| bad.within("http"))?;
    Ok((origin(route.origin.as_ref())?, fits))
}

impl From<&Names> for v1::Routes {
    fn from(names: &Names) -> Self {
        let routes = names.matches().map(|(origin, one)| v1::Route {
            origin: Some(origin.into()),
            http: Some(one.into()),
        });
        Self {
            routes: routes.collect(),
        }
    }
}
