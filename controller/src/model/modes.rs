//! Access and mTLS modes: chart, namespace, pod.
//!
//! A value that cannot be read counts as the tightest. Its author wanted
//! something, and if that was tightening, ignoring it would open what should be
//! closed; the Event tells either way.

use std::str::FromStr;

use policy::mode::{AccessMode, MtlsMode, resolve};

use super::defaults::Defaults;
use crate::world::{Appearance, NamespaceFacts};

/// The access mode of a pod.
pub(crate) fn access(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Appearance,
) -> AccessMode {
    let namespace = namespace.and_then(|n| read(n.appearance.access.as_deref(), AccessMode::Deny));
    let pod = read(pod.access.as_deref(), AccessMode::Deny);
    resolve(
        defaults.access,
        namespace,
        pod,
        defaults.access_pods_may_loosen,
    )
}

/// Who set the access mode of a pod, as far as it was set.
pub(crate) fn access_set_by(namespace: Option<&NamespaceFacts>, pod: &Appearance) -> &'static str {
    match (
        &pod.access,
        namespace.and_then(|n| n.appearance.access.as_ref()),
    ) {
        (Some(_), Some(_)) => "set on the pod and its namespace",
        (Some(_), None) => "set on the pod",
        (None, Some(_)) => "set on the namespace",
        (None, None) => "the chart's",
    }
}

/// The mTLS mode of a pod.
pub(crate) fn mtls(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Appearance,
) -> MtlsMode {
    let namespace = namespace.and_then(|n| read(n.appearance.mtls.as_deref(), MtlsMode::Strict));
    let pod = read(pod.mtls.as_deref(), MtlsMode::Strict);
    resolve(defaults.mtls, namespace, pod, defaults.mtls_pods_may_loosen)
}

fn read<M: FromStr>(value: Option<&str>, tightest: M) -> Option<M> {
    value.map(|value| value.parse().unwrap_or(tightest))
}
