//! Access and mTLS modes: chart, namespace, pod.
//!
//! A value that cannot be read counts as the tightest. Its author wanted
//! something, and if that was tightening, ignoring it would open what should be
//! closed; the Event tells either way.

use std::str::FromStr;

use policy::{
    mode::{AccessMode, MtlsMode, resolve},
    name::Kind,
};

use crate::world::object;
use crate::{
    model::Defaults,
    problem::{Findings, Reason},
    world::{Appearance, NamespaceFacts, World},
};

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

/// Whether a mode cannot be read.
pub(super) fn is_told(appearance: &Appearance) -> bool {
    bad::<AccessMode>(&appearance.access).is_some() || bad::<MtlsMode>(&appearance.mtls).is_some()
}

/// Says which pods and namespaces carry a mode that cannot be read.
pub(super) fn check_annotations(world: &World, findings: &mut Findings) {
    let pods = world.pods.iter().filter(|(_, facts)| facts.proxy.is_some());
    let pods = pods.map(|(key, facts)| (Kind::Pod, key, &facts.appearance));
    let namespaces = world.namespaces.iter();
    let namespaces = namespaces.map(|(key, facts)| (Kind::Namespace, key, &facts.appearance));
    for (kind, key, appearance) in pods.chain(namespaces) {
        let mut check = |name: &str, bad: Option<String>| {
            if let Some(message) = bad {
                let mut about = findings.about(&object(kind, key), 0);
                let message = format!("{message}; the tightest mode applies");
                about.warn(Reason::Invalid, name, message);
            }
        };
        check(
            "metadata.annotations[weft.dev/access]",
            bad::<AccessMode>(&appearance.access),
        );
        check(
            "metadata.annotations[weft.dev/mtls]",
            bad::<MtlsMode>(&appearance.mtls),
        );
    }
}

fn bad<M: FromStr>(value: &Option<std::sync::Arc<str>>) -> Option<String>
where
    M::Err: std::fmt::Display,
{
    value
        .as_deref()?
        .parse::<M>()
        .err()
        .map(|error| error.to_string())
}
