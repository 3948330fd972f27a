//! Access and mTLS modes, as set by the chart, the namespace and the pod.

use serde_json::Value;

use crate::{
    World,
    object::{annotation, namespace},
};

/// From loose to tight.
const ACCESS: [&str; 4] = ["open", "audit", "auto", "deny"];
const MTLS: [&str; 2] = ["permissive", "strict"];

impl World {
    /// The access mode of a pod.
    pub(crate) fn access_mode(&self, pod: &Value) -> &'static str {
        self.mode(pod, "weft.dev/access", &ACCESS, &self.chart.access)
    }

    /// Whether the pod refuses callers without an identity.
    pub(crate) fn is_strict(&self, pod: &Value) -> bool {
        self.mode(pod, "weft.dev/mtls", &MTLS, &self.chart.mtls) == "strict"
    }

    fn mode(&self, pod: &Value, name: &str, modes: &[&'static str], chart: &str) -> &'static str {
        let tightest = modes.len() - 1;
        // What cannot be read is the tightest.
        let rank = |mode: &str| modes.iter().position(|m| *m == mode).unwrap_or(tightest);
        let around = self
            .find("Namespace", "", namespace(pod))
            .and_then(|namespace| annotation(namespace, name))
            .unwrap_or(chart);
        let around = rank(around);
        let rank = match annotation(pod, name) {
            None => around,
            Some(own) if self.chart.pods_may_loosen => rank(own),
            Some(own) => rank(own).max(around),
        };
        modes[rank]
    }
}
