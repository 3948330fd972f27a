//! What is in the cluster, and one call in it.

use serde_json::Value;

/// The trust domain of every identity.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// The cluster's DNS domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// What is in the cluster.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// SMI objects in any version, Pods, Services and Namespaces, as JSON.
    pub objects: Vec<Value>,
    /// The installation's own settings.
    pub chart: Chart,
}

impl World {
    /// The world without the objects that a difference does not need: what a failed
    /// test shows.
    #[must_use]
    pub fn smallest(&self, differs: impl Fn(&Self) -> bool) -> Self {
        let mut least = self.clone();
        let mut at = 0;
        while at < least.objects.len() {
            let mut smaller = least.clone();
            smaller.objects.remove(at);
            if differs(&smaller) {
                least = smaller;
            } else {
                at += 1;
            }
        }
        least
    }
}

/// The installation's settings.
#[derive(Clone, Debug)]
pub struct Chart {
    /// `access.default`.
    pub access: String,
    /// `mtls.default`.
    pub mtls: String,
    /// `access.podsMayLoosen` and `mtls.podsMayLoosen`.
    pub pods_may_loosen: bool,
}

impl Default for Chart {
    fn default() -> Self {
        Self {
            access: "auto".into(),
            mtls: "permissive".into(),
            pods_may_loosen: false,
        }
    }
}

/// Who calls, as far as it can be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A pod with a proxy.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Everybody else.
    Outside,
}

/// What the caller sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One HTTP request.
    Http(Request),
    /// Something that is no HTTP.
    Bytes,
}

/// An HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Header lines in order; a name may occur several times. With `host`.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who calls.
    pub caller: Caller,
    /// Namespace of the pod that is called.
    pub namespace: String,
    /// Name of the pod that is called.
    pub pod: String,
    /// Container port.
    pub port: u16,
    /// What is sent.
    pub traffic: Traffic,
}
