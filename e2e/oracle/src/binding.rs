//! IdentityBindings: names for workloads of their own namespace.

use serde_json::Value;

use crate::{
    TRUST_DOMAIN, World,
    object::{account, has_labels, list, namespace, spec, text},
    shape::readable,
};

impl World {
    /// Whether the binding can be understood. Else it means no caller.
    pub(crate) fn is_understood(binding: &Value) -> bool {
        let schemes = &spec(binding)["schemes"];
        let both = !schemes["podLabelSelector"].is_null() && !schemes["serviceAccount"].is_null();
        readable(binding) && !both
    }

    /// Whether the pod may call as one of the binding's.
    pub(crate) fn binding_means(binding: &Value, pod: &Value) -> bool {
        Self::is_understood(binding) && Self::binding_names(binding, pod)
    }

    /// Whether the pod is one of the binding's, as far as that can be made out.
    pub(crate) fn binding_names(binding: &Value, pod: &Value) -> bool {
        let schemes = &spec(binding)["schemes"];
        let mut labels = schemes["podLabelSelector"]["matchLabels"].clone();
        if let Some(labels) = labels.as_object_mut() {
            labels.retain(|_, value| value.is_string());
        }
        let id = format!("{TRUST_DOMAIN}/ns/{}/sa/{}", namespace(pod), account(pod));
        namespace(pod) == namespace(binding)
            && (schemes["serviceAccount"].as_str() == Some(account(pod))
                || has_labels(pod, &labels)
                || (readable(binding)
                    && list(&schemes["spiffeIdentities"])
                        .iter()
                        .any(|wanted| bare(wanted) == id)))
    }

    /// Whether a caller that the binding means could exist.
    pub(crate) fn binding_can_match_callers(&self, binding: &Value) -> bool {
        let schemes = &spec(binding)["schemes"];
        // Accounts of other namespaces of this mesh are none of its business.
        let home = format!("{TRUST_DOMAIN}/ns/{}/sa/", namespace(binding));
        let ours = format!("{TRUST_DOMAIN}/ns/");
        let id = |wanted: &Value| {
            let id = bare(wanted);
            id.contains('/') && (id.starts_with(&home) || !id.starts_with(&ours))
        };
        Self::is_understood(binding)
            && (!text(&schemes["serviceAccount"]).is_empty()
                || list(&schemes["spiffeIdentities"]).iter().any(id)
                || self.all("Pod").any(|pod| Self::binding_means(binding, pod)))
    }
}

/// A SPIFFE id without its scheme, which may be left out.
fn bare(id: &Value) -> &str {
    let id = text(id);
    id.strip_prefix("spiffe://").unwrap_or(id)
}
