//! The table of kinds that the controller reads from the cluster, one row for each.
//!
//! All code that handles every kind is generated from these rows: the World, its collector, the
//! tasks that follow the API server, which changes concern pods and endpoints alone, whose status
//! is written, and how the API names each. A kind is added by a row, its facts and its
//! translation.
//!
//! A macro, because every row has types of its own; [`ROWS`] has what is the same for all kinds.

use kube::core::{ApiResource, Resource};
use policy::name::Kind;

/// Hands every row to the macro `$with`. A row says:
/// - the field that holds its facts in a World, and of which type they are,
/// - the type that says how the API names it, and how an object is read: `read` where that
///   can fail, `validate` where what is wrong with it becomes part of the fact, `serve` where
///   the same holds and the API server may serve one of several versions (see [`Versioned`]),
/// - `places` if it says where pods and endpoints are, whose changes are compiled in part,
///   `accounts` if only what objects of users name counts, and else `policy`,
/// - what it is called as an object that something is said about, if it ever is,
/// - whether its status is written.
#[macro_export]
macro_rules! rows {
    ($with:ident $($more:tt)*) => {
        $with! {
            /// Pods.
            pods: PodFacts = k8s_openapi::api::core::v1::Pod,
                read pod, places, Some(Kind::Pod), false;
            /// Services.
            services: ServiceFacts = k8s_openapi::api::core::v1::Service,
                read service, policy, Some(Kind::Service), false;
            /// EndpointSlices of both address families.
            slices: SliceFacts = k8s_openapi::api::discovery::v1::EndpointSlice,
                read slice, places, None, false;
            /// Namespaces; the key's namespace is empty.
            namespaces: NamespaceFacts = k8s_openapi::api::core::v1::Namespace,
                read namespace, policy, Some(Kind::Namespace), false;
            /// Nodes; the key's namespace is empty.
            nodes: NodeFacts = k8s_openapi::api::core::v1::Node,
                read node, policy, None, false;
            /// ServiceAccounts.
            service_accounts: ServiceAccountFacts = k8s_openapi::api::core::v1::ServiceAccount,
                read service_account, accounts, None, false;
            /// TrafficTargets.
            targets: TargetFacts = crds::smi::TrafficTarget,
                validate target, policy, Some(Kind::TrafficTarget), true;
            /// TrafficSplits.
            splits: SplitFacts = crds::smi::TrafficSplit,
                validate split, policy, Some(Kind::TrafficSplit), true;
            /// HTTPRouteGroups.
            groups: GroupFacts = crds::smi::HTTPRouteGroup,
                validate group, policy, Some(Kind::HttpRouteGroup), true;
            /// TCPRoutes.
            tcp_routes: TcpRouteFacts = crds::smi::TCPRoute,
                validate tcp_route, policy, Some(Kind::TcpRoute), true;
            /// UDPRoutes.
            udp_routes: UdpRouteFacts = crds::smi::UDPRoute,
                validate udp_route, policy, Some(Kind::UdpRoute), true;
            /// IdentityBindings.
            bindings: BindingFacts = crds::smi::IdentityBinding,
                validate binding, policy, Some(Kind::IdentityBinding), true;
            /// TrafficPolicies.
            policies: PolicyFacts = crds::weft::TrafficPolicy,
                validate traffic_policy, policy, Some(Kind::TrafficPolicy), true;
            /// CanaryReleases. Their status is written by what drives them.
            releases: ReleaseFacts = crds::weft::CanaryRelease,
                validate canary_release, policy, Some(Kind::CanaryRelease), false;
            /// FaultExperiments. Their status is written by what drives them.
            experiments: ExperimentFacts = crds::weft::FaultExperiment,
                validate fault_experiment, policy, Some(Kind::FaultExperiment), false;
            /// ExternalServices.
            external_services: ExternalFacts = crds::weft::ExternalService,
                validate external_service, policy, Some(Kind::ExternalService), true;
            /// Revocations; the key's namespace is empty.
            revocations: RevocationFacts = crds::weft::Revocation,
                validate revocation, policy, Some(Kind::Revocation), true;
            /// HTTPRoutes. A part of their status is written, and not this way.
            http_routes: GatewayRouteFacts = gateway_api::HTTPRoute,
                serve http_route, policy, Some(Kind::HttpRoute), false;
            /// GRPCRoutes; the same.
            grpc_routes: GatewayRouteFacts = gateway_api::GRPCRoute,
                serve grpc_route, policy, Some(Kind::GrpcRoute), false;
            /// TCPRoutes of the Gateway API; the same.
            gateway_tcp_routes: GatewayRouteFacts = gateway_api::TCPRoute,
                serve gateway_tcp_route, policy, Some(Kind::GatewayTcpRoute), false;
            /// ReferenceGrants.
            grants: GrantFacts = gateway_api::ReferenceGrant,
                serve reference_grant, policy, Some(Kind::ReferenceGrant), false;
            $($more)*
        }
    };
}

#[cfg(not(any(test, feature = "fixtures")))]
#[macro_export]
macro_rules! every_kind {
    ($with:ident) => {
        $crate::world::kinds::rows! { $with }
    };
}

/// With a kind that the mesh has no use for: tests see that a row is all that it takes.
#[cfg(any(test, feature = "fixtures"))]
#[macro_export]
macro_rules! every_kind {
    ($with:ident) => {
        $crate::world::kinds::rows! { $with
            /// ConfigMaps, in tests.
            config_maps: ConfigMapFacts = k8s_openapi::api::core::v1::ConfigMap,
                read config_map, policy, None, false;
        }
    };
}

pub use {every_kind, rows};

/// What can be said of a kind without its types.
#[derive(Debug)]
pub struct Row {
    /// What it is called as an object that something is said about.
    pub object: Option<Kind>,
    /// Whether its status is written.
    pub has_status: bool,
    /// How the API names it, in its newest version where there are several.
    pub resource: fn() -> ApiResource,
    /// The versions that are read, newest first; empty where only that of `resource` is.
    pub versions: &'static [&'static str],
}

/// A kind that the API server may serve in one of several versions, or not at all.
pub trait Versioned: Resource<DynamicType = ()> {
    /// Newest first.
    const VERSIONS: &'static [&'static str];
}

macro_rules! versioned {
    ($($kind:ty),+) => {
        $(impl Versioned for $kind {
            const VERSIONS: &'static [&'static str] = <$kind>::VERSIONS;
        })+
    };
}

versioned!(
    gateway_api::HTTPRoute,
    gateway_api::GRPCRoute,
    gateway_api::TCPRoute,
    gateway_api::ReferenceGrant
);

macro_rules! versions {
    (serve $kind:ty) => {
        <$kind as Versioned>::VERSIONS
    };
    ($how:ident $kind:ty) => {
        &[]
    };
}

macro_rules! table {
    ($($(#[$doc:meta])* $field:ident: $facts:ident = $kind:ty, $how:ident $translate:ident,
        $change:ident, $object:expr, $status:expr;)+) => {
        /// Every kind, in the order of the table.
        pub const ROWS: &[Row] = &[$(Row {
            object: $object,
            has_status: $status,
            resource: named::<$kind>,
            versions: versions!($how $kind),
        }),+];
    };
}

every_kind!(table);

fn named<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// How the API names a resource in each of these versions.
#[must_use]
pub fn in_versions(resource: &ApiResource, versions: &[&str]) -> Vec<ApiResource> {
    let in_version = |version: &&str| ApiResource {
        version: (*version).to_owned(),
        api_version: format!("{}/{version}", resource.group),
        ..resource.clone()
    };
    versions.iter().map(in_version).collect()
}

/// The row of an object that something is said about.
pub fn row(object: Kind) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.object == Some(object))
}
