//! Defaults of the chart, which apply where no namespace, pod or object sets a value.
//!
//! They are apart from the settings, which read the environment: compiling is pure, and tests pass
//! these as an argument.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::egress::EgressMode;
use policy::mode::{AccessMode, MtlsMode};
use policy::trace::Tracing;

use super::revoked::RevocationContext;

/// What the chart says where nothing closer does.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Trust domain of every identity.
    pub trust_domain: Arc<str>,
    /// DNS domain of the cluster, without dots at its ends.
    pub cluster_domain: Arc<str>,
    /// `access.default`.
    pub access: AccessMode,
    /// `mtls.default`.
    pub mtls: MtlsMode,
    /// `access.podsMayLoosen`.
    pub access_pods_may_loosen: bool,
    /// `mtls.podsMayLoosen`.
    pub mtls_pods_may_loosen: bool,
    /// `egress.default`.
    pub egress: EgressMode,
    /// `egress.podsMayLoosen`.
    pub egress_pods_may_loosen: bool,
    /// `access.udpNetworkPolicies`.
    pub udp_network_policies: bool,
    /// `excludedNamespaces`, in which no pod is given a proxy, and the mesh's own.
    pub excluded_namespaces: Arc<BTreeSet<String>>,
    /// `tracing`; none: it has no endpoint.
    pub tracing: Option<Arc<Tracing>>,
    /// What Revocations may not be about, and which are not in force yet. This part changes while
    /// the controller runs.
    pub revocation: Arc<RevocationContext>,
}

impl Default for Defaults {
    /// What the chart says when its values are left alone.
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            cluster_domain: "cluster.local".into(),
            access: AccessMode::Auto,
            mtls: MtlsMode::Permissive,
            access_pods_may_loosen: false,
            mtls_pods_may_loosen: false,
            egress: EgressMode::Allow,
            egress_pods_may_loosen: false,
            udp_network_policies: false,
            excluded_namespaces: Arc::default(),
            tracing: None,
            revocation: Arc::default(),
        }
    }
}
