//! Reports annotations that cannot be parsed. `model::modes`, `model::protocols` and
//! `model::telemetry` decide which value holds instead.

use std::str::FromStr;

use policy::{
    access_log::AccessLog,
    egress::EgressMode,
    log_filter::LogFilter,
    mode::{AccessMode, MtlsMode},
    name::Kind,
    protocol::PortRange,
    share::Share,
};

use super::findings::Findings;
use crate::{
    problem::Reason,
    world::{Annotations, PodFacts, World, object},
};

/// Whether something is reported about a pod's annotations.
pub(super) fn has_problem(facts: &PodFacts) -> bool {
    has_unreadable_ports(&facts.annotations)
        || (facts.proxy.is_some()
            && (has_unreadable_mode(&facts.annotations)
                || bad_ports(facts.annotations.permissive_ports.as_deref()).is_some()
                || bad::<LogFilter>(&facts.annotations.log_level).is_some()
                || bad::<AccessLog>(&facts.annotations.access_log).is_some()
                || bad::<Share>(&facts.annotations.trace_sampling).is_some()))
}

/// Whether a mode cannot be read.
fn has_unreadable_mode(annotations: &Annotations) -> bool {
    bad::<AccessMode>(&annotations.access).is_some()
        || bad::<MtlsMode>(&annotations.mtls).is_some()
        || bad::<EgressMode>(&annotations.egress).is_some()
}

/// Whether a list of opaque ports cannot be read.
fn has_unreadable_ports(annotations: &Annotations) -> bool {
    bad_ports(annotations.opaque_ports.as_deref()).is_some()
}

/// Reports which pods with a proxy and namespaces carry a mode, or a value for logs or traces, that
/// cannot be read.
pub(super) fn check_proxies(world: &World, findings: &mut Findings) {
    let pods = world.pods.iter().filter(|(_, facts)| facts.proxy.is_some());
    let pods = pods.map(|(key, facts)| (Kind::Pod, key, &facts.annotations));
    let namespaces = world.namespaces.iter();
    let namespaces = namespaces.map(|(key, facts)| (Kind::Namespace, key, &facts.annotations));
    for (kind, key, annotations) in pods.chain(namespaces) {
        let mut check = |name: &str, bad: Option<String>, then: &str| {
            if let Some(message) = bad {
                let mut about = findings.about(&object(kind, key), 0);
                about.warn(Reason::Invalid, name, format!("{message}; {then}"));
            }
        };
        check(
            "metadata.annotations[weft.dev/access]",
            bad::<AccessMode>(&annotations.access),
            "the tightest mode applies",
        );
        check(
            "metadata.annotations[weft.dev/mtls]",
            bad::<MtlsMode>(&annotations.mtls),
            "the tightest mode applies",
        );
        check(
            "metadata.annotations[weft.dev/egress]",
            bad::<EgressMode>(&annotations.egress),
            "the tightest mode applies",
        );
        check(
            "metadata.annotations[weft.dev/permissive-ports]",
            bad_ports(annotations.permissive_ports.as_deref()),
            "it excepts no port",
        );
        check(
            "metadata.annotations[weft.dev/log-level]",
            bad::<LogFilter>(&annotations.log_level),
            "ignored",
        );
        check(
            "metadata.annotations[weft.dev/access-log]",
            bad::<AccessLog>(&annotations.access_log),
            "ignored",
        );
        check(
            "metadata.annotations[weft.dev/trace-sampling]",
            bad::<Share>(&annotations.trace_sampling),
            "ignored",
        );
    }
}

/// Reports which lists of opaque ports cannot be read.
pub(super) fn check_opaque_ports(world: &World, findings: &mut Findings) {
    const FIELD: &str = "metadata.annotations[weft.dev/opaque-ports]";
    let services = world.services.iter();
    let services = services.map(|(key, f)| (Kind::Service, key, f.generation, &f.annotations));
    let pods = world.pods.iter();
    let pods = pods.map(|(key, f)| (Kind::Pod, key, 0, &f.annotations));
    let namespaces = world.namespaces.iter();
    let namespaces = namespaces.map(|(key, f)| (Kind::Namespace, key, 0, &f.annotations));
    for (kind, key, generation, annotations) in services.chain(pods).chain(namespaces) {
        if let Some(message) = bad_ports(annotations.opaque_ports.as_deref()) {
            let message = format!("{message}; ignored");
            findings
                .about(&object(kind, key), generation)
                .warn(Reason::Invalid, FIELD, message);
        }
    }
}

fn bad_ports(list: Option<&str>) -> Option<String> {
    let error = PortRange::parse_list(list?).err()?;
    Some(error.to_string())
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
