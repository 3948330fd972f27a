//! The SMI kinds in their storage version.
//!
//! Every type reads leniently: a missing or empty field becomes empty, never a
//! parse error, because one odd object that another mesh's schema once let in
//! must not stop a whole reflector. What is wrong with an object is said by the
//! validation webhook and by its status conditions.

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

pub use access::{
    GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, RULE_HTTP_ROUTE_GROUP, RULE_TCP_ROUTE, RuleRef,
    SUBJECT_GROUP, SUBJECT_IDENTITY_BINDING, SUBJECT_SERVICE_ACCOUNT, Subject, TrafficTarget,
    TrafficTargetSpec,
};
pub use binding::{IdentityBinding, IdentityBindingSpec, IdentitySchemes, PodLabels};
#[cfg(test)]
pub(crate) use definition::tests::violations;
pub use definition::{CONVERSION_PATH, CONVERSION_SERVICE, definitions};
pub use headers::{BadHeaders, parse_headers};
pub use kinds::{SmiKind, SmiVersion};
pub use specs::{
    HTTPRouteGroup, HttpRouteGroupSpec, RouteMatch, TCPRoute, TcpMatch, TcpRouteSpec, UDPRoute,
    UdpMatch, UdpRouteSpec,
};
pub use split::{SplitBackend, SplitMatch, TrafficSplit, TrafficSplitSpec};
pub use status::{ACCEPTED, PROGRAMMED, RESOLVED_REFS, Status};

/// API group of TrafficSplit.
pub const SPLIT_GROUP: &str = "split.smi-spec.io";
/// API group of TrafficTarget.
pub const ACCESS_GROUP: &str = "access.smi-spec.io";
/// API group of HTTPRouteGroup and TCPRoute.
pub const SPECS_GROUP: &str = "specs.smi-spec.io";
/// The version every SMI kind is stored in.
pub const STORAGE_VERSION: &str = "v1alpha4";

/// Declares one kind: the object around its spec, and how the API names it.
///
/// kube's derive is not used because it makes `spec` a required field when
/// reading; see the module header.
macro_rules! smi_kind {
    (
        $(#[$doc:meta])*
        $kind:ident, spec $spec:ty, group $group:expr, plural $plural:literal
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $kind {
            /// `apiVersion` and `kind` as they were read.
            #[serde(flatten, default)]
            pub types: Option<kube::core::TypeMeta>,
            /// Name, namespace and the rest of the standard metadata.
            #[serde(default)]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What the user asked for.
            #[serde(default)]
            pub spec: $spec,
            /// What Weft says about it.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub status: Option<crate::smi::Status>,
        }

        impl $kind {
            /// An object of this kind with a name and nothing else in its metadata.
            pub fn new(name: &str, spec: $spec) -> Self {
                Self {
                    types: Some(kube::core::TypeMeta::resource::<Self>()),
                    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                        name: Some(name.to_owned()),
                        ..Default::default()
                    },
                    spec,
                    status: None,
                }
            }
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = kube::core::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($kind).into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                crate::smi::STORAGE_VERSION.into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(
                &mut self,
            ) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use smi_kind;

/// The schemas must not carry `default`: defaulting on read would change what
/// Flagger and Argo Rollouts compare, and they would start their rollouts over.
fn without_defaults(schema: &mut schemars::Schema) {
    let properties = schema.get_mut("properties").and_then(|p| p.as_object_mut());
    for property in properties.into_iter().flat_map(|p| p.values_mut()) {
        if let Some(property) = property.as_object_mut() {
            property.remove("default");
        }
    }
}
