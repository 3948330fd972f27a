//! What a pod is injected with: the installation's settings, its namespace, and the
//! token of its lifecycle hooks.

use std::collections::BTreeMap;

/// What an installation of Weft puts into every proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of the proxy.
    pub proxy_image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub proxy_pull_policy: String,
    /// Host and port of the controller.
    pub controller_address: String,
    /// Namespace of the controller.
    pub controller_namespace: String,
    /// Trust domain of all identities.
    pub trust_domain: String,
    /// Version of the proxy.
    pub version: String,
    /// Other meshes whose names the proxy's series get too, `linkerd,osm`; empty
    /// for none, and then the pod's workload is not written down either.
    pub compatibility_series: String,
    /// CPU that the proxy requests, and may use, in a pod that is Guaranteed.
    pub guaranteed_cpu: String,
    /// The same of memory.
    pub guaranteed_memory: String,
    /// Limits of the proxy's containers where neither pod nor namespace names one.
    pub limits: DefaultLimits,
}

impl Settings {
    /// `guaranteed_cpu` where an installation names none. The request of other pods' proxies
    /// would hold up calls if it were a limit.
    pub const GUARANTEED_CPU: &str = "200m";
    /// `guaranteed_memory` where an installation names none: twice what the bounds of a
    /// proxy are made for.
    pub const GUARANTEED_MEMORY: &str = "128Mi";
}

/// Limits that an installation gives proxies; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultLimits {
    /// Of CPU.
    pub cpu: Option<String>,
    /// Of memory.
    pub memory: Option<String>,
}

/// What matters of the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations: defaults for the pod's.
    pub annotations: BTreeMap<String, String>,
}

/// A secret part of the path under which a pod's lifecycle hooks are called, because
/// any client that could guess it could run them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookToken(pub [u8; 16]);

impl std::fmt::Display for HookToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
