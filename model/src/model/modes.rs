//! Resolves access, mTLS and egress modes from chart, namespace and pod.
//!
//! A value that cannot be read counts as the tightest. If its author wanted to tighten, ignoring
//! it would open what should be closed; the Event names it either way.

use std::collections::BTreeSet;
use std::str::FromStr;

use policy::egress::EgressMode;
use policy::mode::{AccessMode, MtlsMode, resolve};
use policy::protocol::PortRange;

use super::defaults::Defaults;
use super::protocols::{holds, ranges};
use crate::world::{Annotations, NamespaceFacts};

/// The access mode of a pod.
pub fn access(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
) -> AccessMode {
    let namespace = namespace.and_then(|n| read(n.annotations.access.as_deref(), AccessMode::Deny));
    let pod = read(pod.access.as_deref(), AccessMode::Deny);
    resolve(
        defaults.access,
        namespace,
        pod,
        defaults.access_pods_may_loosen,
    )
}

/// The egress mode of a pod.
pub fn egress(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
) -> EgressMode {
    let namespace = namespace.and_then(|n| read(n.annotations.egress.as_deref(), EgressMode::Deny));
    let pod = read(pod.egress.as_deref(), EgressMode::Deny);
    resolve(
        defaults.egress,
        namespace,
        pod,
        defaults.egress_pods_may_loosen,
    )
}

/// Which object set the access mode of a pod, as far as it was set.
pub(crate) fn access_set_by(namespace: Option<&NamespaceFacts>, pod: &Annotations) -> &'static str {
    match (
        &pod.access,
        namespace.and_then(|n| n.annotations.access.as_ref()),
    ) {
        (Some(_), Some(_)) => "set on the pod and its namespace",
        (Some(_), None) => "set on the pod",
        (None, Some(_)) => "set on the namespace",
        (None, None) => "the chart's",
    }
}

/// The mTLS mode of a pod, but for its [`permissive_ports`].
pub fn mtls(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
) -> MtlsMode {
    mtls_where(defaults, namespace, pod, Excepted::default())
}

/// The mTLS mode of a pod at one of its ports.
pub(crate) fn mtls_at(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
    port: u16,
) -> MtlsMode {
    let excepted = Excepted::at(namespace, pod, port);
    mtls_where(defaults, namespace, pod, excepted)
}

/// The ports of a strict pod that take plaintext; none of a permissive one, which takes it
/// everywhere.
pub(crate) fn permissive_ports(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
) -> Vec<PortRange> {
    if mtls(defaults, namespace, pod) == MtlsMode::Permissive {
        return Vec::new();
    }
    let of_namespace = permissive_list(namespace.map(|n| &n.annotations));
    let of_pod = permissive_list(Some(pod));
    // Ports between two neighbouring bounds are in the same lists.
    let written = of_namespace.iter().chain(&of_pod);
    let bounds: BTreeSet<u16> = written
        .flat_map(|range| [Some(range.first()), range.last().checked_add(1)])
        .flatten()
        .collect();
    let lasts = bounds.iter().skip(1).map(|next| next - 1);
    let parts = bounds.iter().zip(lasts.chain([u16::MAX]));
    parts
        .filter(|(first, _)| {
            let excepted = Excepted {
                by_namespace: holds(&of_namespace, **first),
                by_pod: holds(&of_pod, **first),
            };
            mtls_where(defaults, namespace, pod, excepted) == MtlsMode::Permissive
        })
        .filter_map(|(first, last)| PortRange::new(*first, last))
        .collect()
}

/// Whose list of permissive ports has to hold a port, so that it takes plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exception {
    Namespace,
    Pod,
    Both,
}

/// The list that makes plaintext pass at a port of a strict pod: the namespace's where that is
/// enough.
pub(crate) fn exception(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
    port: u16,
) -> Exception {
    let held = Excepted::at(namespace, pod, port);
    let permits = |excepted| mtls_where(defaults, namespace, pod, excepted) == MtlsMode::Permissive;
    if permits(Excepted {
        by_namespace: true,
        ..held
    }) {
        Exception::Namespace
    } else if permits(Excepted {
        by_pod: true,
        ..held
    }) {
        Exception::Pod
    } else {
        Exception::Both
    }
}

/// Which lists of permissive ports hold a port.
#[derive(Clone, Copy, Default)]
struct Excepted {
    by_namespace: bool,
    by_pod: bool,
}

impl Excepted {
    fn at(namespace: Option<&NamespaceFacts>, pod: &Annotations, port: u16) -> Self {
        Self {
            by_namespace: holds(&permissive_list(namespace.map(|n| &n.annotations)), port),
            by_pod: holds(&permissive_list(Some(pod)), port),
        }
    }
}

/// A list is the word `permissive` for its ports, of the object that it stands on: it loosens what
/// that word would, and no more.
fn mtls_where(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
    excepted: Excepted,
) -> MtlsMode {
    let word = |annotations: &Annotations, excepted: bool| {
        let mode = read(annotations.mtls.as_deref(), MtlsMode::Strict);
        if excepted {
            Some(MtlsMode::Permissive)
        } else {
            mode
        }
    };
    let namespace = namespace.and_then(|n| word(&n.annotations, excepted.by_namespace));
    let pod = word(pod, excepted.by_pod);
    resolve(defaults.mtls, namespace, pod, defaults.mtls_pods_may_loosen)
}

/// The list of an annotation. One that cannot be read excepts nothing.
fn permissive_list(annotations: Option<&Annotations>) -> Vec<PortRange> {
    ranges(annotations.and_then(|annotations| annotations.permissive_ports.as_deref()))
}

fn read<M: FromStr>(value: Option<&str>, tightest: M) -> Option<M> {
    value.map(|value| value.parse().unwrap_or(tightest))
}
