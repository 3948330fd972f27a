//! Suggests how plaintext reaches the rules of a strict workload: by a list of permissive ports
//! with that port alone.

use std::collections::BTreeSet;
use std::fmt::Display;

use crds::labels::PERMISSIVE_PORTS;
use policy::protocol::PortRange;

use crate::explain::outcome::BackendOutcome;
use crate::model::modes::{self, Exception};
use crate::model::protocols::{holds, ranges};
use crate::model::{Index, PodId};

/// What to do where no object helps.
pub(super) struct Advice {
    /// For a shell, or a comment for a person.
    pub(super) command: String,
    /// What it does besides.
    pub(super) warning: Option<String>,
}

impl Advice {
    pub(super) fn comment(text: impl Display) -> Self {
        Self {
            command: format!("# {text}"),
            warning: None,
        }
    }
}

/// What permits plaintext at a port of a strict pod. No object does.
pub(super) fn permit(
    index: &Index,
    outcomes: &[BackendOutcome<'_>],
    (pod, port): (&PodId, u16),
) -> Advice {
    let Some(facts) = index.world.pods.get(pod) else {
        return Advice::comment(format_args!("{pod} is not there any more"));
    };
    let name = &pod.namespace;
    let namespace = index.world.namespace(name);
    let ports = refused_at(outcomes, name);
    let of_namespace = namespace.and_then(|one| one.annotations.permissive_ports.as_deref());
    let of_namespace = list(of_namespace, &ports);
    let of_pod = list(facts.annotations.permissive_ports.as_deref(), &ports);
    let also = match modes::exception(&index.defaults, namespace, &facts.annotations, port) {
        Exception::Namespace => {
            let at: Vec<String> = ports.iter().map(ToString::to_string).collect();
            return Advice {
                command: format!(
                    "kubectl annotate namespace {name} {PERMISSIVE_PORTS}={of_namespace} --overwrite"
                ),
                warning: Some(format!(
                    "the annotation lets callers without an identity reach the rules of port {} of \
                     all pods of namespace {name}; a caller with a proxy needs no annotation",
                    at.join(", ")
                )),
            };
        }
        Exception::Pod => String::new(),
        Exception::Both => {
            format!(", and annotate namespace {name} {PERMISSIVE_PORTS}={of_namespace}")
        }
    };
    Advice::comment(format_args!(
        "{pod} is strict by its own annotation: give the caller a proxy, or write \
         {PERMISSIVE_PORTS}: \"{of_pod}\" into its pod template, by which plaintext reaches the \
         rules of these ports{also}"
    ))
}

/// Ports at which pods of a namespace refuse the plaintext of this call.
fn refused_at(outcomes: &[BackendOutcome<'_>], namespace: &str) -> BTreeSet<u16> {
    let evaluated = outcomes.iter().flat_map(|outcome| &outcome.evaluated);
    let refused = evaluated.filter(|one| {
        let by = one.by.as_ref();
        one.strict && by.is_some_and(|(pod, _)| *pod.namespace == *namespace)
    });
    refused.map(|one| one.endpoint.port).collect()
}

/// A list of ports as it is written, with these.
fn list(written: Option<&str>, ports: &BTreeSet<u16>) -> String {
    let mut all = ranges(written);
    for port in ports {
        if !holds(&all, *port) {
            all.extend(PortRange::new(*port, *port));
        }
    }
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(",")
}
