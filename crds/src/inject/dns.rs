//! Whether the proxy will find its controller, which it knows by a name of the cluster.
//!
//! A proxy that cannot resolve that name waits for its certificate for ever, and the pod
//! stays in `Init` without a word from Kubernetes about the reason.

use serde_json::{Map, Value};

use super::Refusal;

/// Refuses a pod that queries the node's name servers, which do not know Services. The warning
/// where the pod names servers of its own, which may know them.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub(super) fn check(
    spec: &Map<String, Value>,
    controller: &str,
) -> Result<Option<String>, Refusal> {
    // `ClusterFirstWithHostNet` means the same as the default without the node's network.
    match spec.get("dnsPolicy").and_then(Value::as_str) {
        Some("Default") => Err(Refusal::NodeDns),
        Some("None") => Ok(Some(format!(
            "weft: spec.dnsPolicy is None: the pod starts only if spec.dnsConfig.nameservers \
             resolve {controller}, where its proxy gets its certificate"
        ))),
        _ => Ok(None),
    }
}
