//! IdentityBindings: names for callers, in the words of their own namespace.

use serde_json::Value;

use crate::{
    TRUST_DOMAIN, World,
    object::{account, has_labels, list, namespace, spec, text},
    shape::readable,
};

impl World {
    /// Whether the binding means this pod.
    pub(crate) fn binding_means(&self, binding: &Value, pod: &Value) -> bool {
        if !readable(binding) {
            return false;
        }
        let schemes = &spec(binding)["schemes"];
        let home = namespace(pod) == namespace(binding);
        let by_account = home
            && schemes["serviceAccount"]
                .as_str()
                .is_some_and(|wanted| wanted == account(pod));
        let by_labels = home && has_labels(pod, &schemes["podLabelSelector"]["matchLabels"]);
        let id = format!(
            "spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}",
            namespace(pod),
            account(pod)
        );
        let by_id = list(&schemes["spiffeIdentities"])
            .iter()
            .map(text)
            .any(|wanted| id == wanted || id.strip_prefix("spiffe://") == Some(wanted));
        by_account || by_labels || by_id
    }
}
