//! Finds the name of a pod's workload as `kubectl rollout restart` takes it, for commands that
//! `weft` prints.

use crds::label_syntax::is_dns_subdomain;
use crds::labels::POD_TEMPLATE_HASH;
use serde_json::Value;

/// What `kubectl rollout restart` calls the owner of a pod, if it can restart it.
pub(super) fn workload(pod: &Value) -> Option<String> {
    let metadata = &pod["metadata"];
    let mut owners = metadata["ownerReferences"].as_array()?.iter();
    let owner = owners.find(|owner| owner["controller"] == true)?;
    if owner["apiVersion"] != "apps/v1" {
        // A kind that others define may have such a name.
        return None;
    }
    // A client that may create pods chooses the names of owners, and an administrator pastes this.
    let name = owner["name"]
        .as_str()
        .filter(|name| is_dns_subdomain(name))?;
    match owner["kind"].as_str()? {
        "StatefulSet" => Some(format!("statefulset/{name}")),
        "DaemonSet" => Some(format!("daemonset/{name}")),
        "ReplicaSet" => {
            // A Deployment names its ReplicaSets after itself and this hash.
            let hash = metadata["labels"][POD_TEMPLATE_HASH].as_str()?;
            let deployment = name.strip_suffix(hash)?.strip_suffix('-')?;
            is_dns_subdomain(deployment).then(|| format!("deployment/{deployment}"))
        }
        _ => None,
    }
}
