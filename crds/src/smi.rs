//! The SMI kinds in their storage version.
//!
//! Every type reads leniently: a missing or empty field becomes empty, never a
//! parse error, because one odd object that another mesh's schema once let in
//! must not stop a whole reflector. What is wrong with an object is said by the
//! validation webhook and by its status conditions.
//!
//! Claims: smi-11

mod access;
mod binding;
mod columns;
mod definition;
mod headers;
pub mod judge;
mod kinds;
mod schema;
mod specs;
mod split;
mod status;
mod versions;

pub(crate) use access::{
    GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, RULE_HTTP_ROUTE_GROUP, RULE_TCP_ROUTE,
    SUBJECT_GROUP, SUBJECT_IDENTITY_BINDING, SUBJECT_SERVICE_ACCOUNT,
};
pub use access::{RuleRef, Subject, TrafficTarget, TrafficTargetSpec};
pub use binding::{IdentityBinding, IdentityBindingSpec, IdentitySchemes, PodLabels};
pub(crate) use columns::FAILING_PATH;
#[cfg(test)]
pub(crate) use definition::tests::{
    MANIFESTS, assert_explained, assert_structural, each_node, violations,
};
pub use definition::{CONVERSION_SERVICE, definitions};
pub(crate) use headers::parse_headers;
pub use kinds::{SmiKind, SmiVersion};
pub(crate) use schema::schema;
pub use specs::{
    HTTPRouteGroup, HttpRouteGroupSpec, RouteMatch, TCPRoute, TcpMatch, TcpRouteSpec, UDPRoute,
    UdpMatch, UdpRouteSpec,
};
pub use split::{SplitBackend, SplitMatch, TrafficSplit, TrafficSplitSpec};
pub(crate) use status::conditions_schema;
pub use status::{ACCEPTED, PROGRAMMED, RESOLVED_REFS, Status};

/// API group of TrafficSplit.
pub const SPLIT_GROUP: &str = "split.smi-spec.io";
/// API group of TrafficTarget.
pub const ACCESS_GROUP: &str = "access.smi-spec.io";
/// API group of HTTPRouteGroup and TCPRoute.
pub const SPECS_GROUP: &str = "specs.smi-spec.io";
/// The version every SMI kind is stored in.
pub const STORAGE_VERSION: &str = "v1alpha4";

/// The schemas must not carry `default`: defaulting on read would change what
/// Flagger and Argo Rollouts compare, and they would start their rollouts over.
pub(crate) fn without_defaults(schema: &mut schemars::Schema) {
    let properties = schema.get_mut("properties").and_then(|p| p.as_object_mut());
    for property in properties.into_iter().flat_map(|p| p.values_mut()) {
        if let Some(property) = property.as_object_mut() {
            property.remove("default");
        }
    }
}
