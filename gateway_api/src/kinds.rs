//! The kinds of the Gateway API that are read, and the versions in which each may be served.
//!
//! Their specs stay JSON until `route` or `grants` reads them: the schema in the cluster may be
//! newer than this program, and a field of an unknown shape costs the rule that holds it, not the
//! object.

/// The API group of all of them.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// Declares one kind: the object around its spec and status, and how the API names it.
macro_rules! gateway_kind {
    ($(#[$doc:meta])* $kind:ident, $scope:ident, plural $plural:literal, versions $versions:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $kind {
            /// `apiVersion` and `kind` as they were read.
            #[serde(flatten, default)]
            pub types: Option<kube::core::TypeMeta>,
            /// Name, namespace and the rest of the standard metadata.
            #[serde(default)]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What is wanted, as it is written.
            #[serde(default)]
            pub spec: serde_json::Value,
            /// What controllers report of it, as it is written.
            #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
            pub status: serde_json::Value,
        }

        impl $kind {
            /// The versions that are read, newest first. A cluster serves one or more of them, or
            /// none.
            pub const VERSIONS: &'static [&'static str] = $versions;

            /// An object of the newest version with this name and spec, and nothing else.
            #[must_use]
            pub fn new(namespace: &str, name: &str, spec: serde_json::Value) -> Self {
                Self {
                    types: Some(kube::core::TypeMeta::resource::<Self>()),
                    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                        namespace: Some(namespace.to_owned()),
                        name: Some(name.to_owned()),
                        ..Default::default()
                    },
                    spec,
                    status: serde_json::Value::Null,
                }
            }
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = kube::core::$scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($kind).into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                GROUP.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                Self::VERSIONS[0].into()
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

gateway_kind! {
    /// Routes HTTP requests by path, method, headers and query.
    HTTPRoute, NamespaceResourceScope, plural "httproutes", versions &["v1"]
}

gateway_kind! {
    /// Routes calls of gRPC by service, method and headers.
    GRPCRoute, NamespaceResourceScope, plural "grpcroutes", versions &["v1"]
}

gateway_kind! {
    /// Shares connections out by weight. SMI has a kind of the same name.
    TCPRoute, NamespaceResourceScope, plural "tcproutes", versions &["v1", "v1alpha2"]
}

gateway_kind! {
    /// Permits objects of other namespaces to name objects of its own.
    ReferenceGrant, NamespaceResourceScope, plural "referencegrants", versions &["v1", "v1beta1"]
}

gateway_kind! {
    /// Passes connections of TLS on by their server name.
    TLSRoute, NamespaceResourceScope, plural "tlsroutes", versions &["v1", "v1alpha3", "v1alpha2"]
}

gateway_kind! {
    /// Lets traffic into the cluster.
    Gateway, NamespaceResourceScope, plural "gateways", versions &["v1"]
}

gateway_kind! {
    /// Says which controller serves the Gateways that name it. The namespace of one is empty.
    GatewayClass, ClusterResourceScope, plural "gatewayclasses", versions &["v1"]
}
