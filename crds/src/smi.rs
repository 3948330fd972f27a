//! The SMI kinds in their storage version.
//!
//! Every type deserializes leniently: a missing or empty field becomes empty, never an error,
//! because one odd object that another mesh's schema once admitted must not stop a whole
//! reflector. The validation webhook and the object's conditions report its errors.
//!
//! Claims: smi-11

mod access;
mod definition;
mod headers;
mod kinds;
mod specs;
mod split;
mod status;
pub mod validation;
mod versions;

use kube::core::schema::{OptionalEnum, StructuralSchemaRewriter};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

pub(crate) use access::{
    GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, RULE_HTTP_ROUTE_GROUP, RULE_TCP_ROUTE,
    SUBJECT_GROUP, SUBJECT_IDENTITY_BINDING, SUBJECT_SERVICE_ACCOUNT,
};
pub use access::{
    IdentityBinding, IdentityBindingSpec, IdentitySchemes, PodLabels, RuleRef, Subject,
    TrafficTarget, TrafficTargetSpec,
};
pub(crate) use definition::FAILING_PATH;
#[cfg(test)]
pub(crate) use definition::tests::{
    MANIFESTS, assert_explained, assert_structural, each_node, violations,
};
pub use definition::{CONVERSION_SERVICE, definitions};
pub(crate) use headers::parse_headers;
pub use kinds::{SmiKind, SmiVersion};
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

/// The structural schema of one Rust type, in the subset of OpenAPI v3 that the API
/// server accepts.
pub(crate) fn schema<S: JsonSchema>() -> Value {
    let schema = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .into_generator()
        .into_root_schema_for::<S>();
    let mut value = schema.to_value();
    tidy(&mut value);
    value
}

/// Removes what schemars adds and the API server ignores or warns about: titles,
/// and formats that Kubernetes does not know. Joins the lines of doc comments.
fn tidy(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    if map.get("title").is_some_and(Value::is_string) {
        map.remove("title");
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
    if let Some(items) = map.get_mut("items") {
        tidy(items);
    }
}
