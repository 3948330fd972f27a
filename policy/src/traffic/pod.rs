//! What the proxy in front of a pod does with requests, by port of the container.

use std::collections::BTreeMap;

use super::{EffectivePolicy, call::TcpTarget};

/// All that policies say of requests to one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodGuard {
    /// By port of the container.
    pub ports: BTreeMap<u16, GuardPort>,
    /// What a pod that gets nothing but copies may open for opaque bytes; `None` for
    /// every other pod.
    pub read_only: Option<Vec<TcpTarget>>,
}

/// Of a [`EffectivePolicy`], what concerns the pod that serves: timeouts for callers outside the
/// mesh, limits, priority, overload.
pub type GuardPort = EffectivePolicy;
