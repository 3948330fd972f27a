//! Describes which object declares the protocol of a pod's port.

use crds::labels::OPAQUE_PORTS;
use crds::names::few;
use policy::protocol::{DEFAULT_OPAQUE_PORTS, Protocol};

use crate::model::Index;
use crate::model::protocols::{Declares, ServiceClaim, claims, holds, ranges};
use crate::world::{ObjectKey, PodFacts};

/// What the protocol of a port holds by.
#[derive(Debug)]
pub(super) struct By {
    /// For people.
    pub(super) text: String,
    /// The Service that says it, where one does.
    pub(super) service: Option<String>,
}

/// Looks in the order in which proxies get the ranges.
pub(super) fn by(index: &Index, pod: &ObjectKey, facts: &PodFacts, port: u16) -> By {
    let lists = |list: Option<&str>| holds(&ranges(list), port);
    let without_service = |text: String| By {
        text,
        service: None,
    };
    if lists(facts.annotations.opaque_ports.as_deref()) {
        return without_service(format!("annotation {OPAQUE_PORTS} of the pod"));
    }
    if let Some(by) = by_service(index, pod, port) {
        return by;
    }
    let namespace = index.world.namespace(&pod.namespace);
    let list = namespace.and_then(|namespace| namespace.annotations.opaque_ports.as_deref());
    if lists(list) {
        let name = &pod.namespace;
        return without_service(format!("annotation {OPAQUE_PORTS} of namespace {name}"));
    }
    without_service(if DEFAULT_OPAQUE_PORTS.contains(&port) {
        "it is among the ports that carry bytes unless declared otherwise".to_owned()
    } else {
        "no object declares it".to_owned()
    })
}

/// The oldest Service that declares the port decides, unless others contradict it so that the
/// port is detected.
fn by_service(index: &Index, pod: &ObjectKey, port: u16) -> Option<By> {
    let entry = index.pods.get(pod)?;
    let protocol = *entry.declared.get(&port)?;
    let claims = claims(&index.world, &entry.serves, port);
    if protocol == Protocol::Detect {
        let texts: Vec<String> = claims.iter().map(text).collect();
        let first = claims.first()?;
        return Some(By {
            text: format!("{} contradict each other", few(&texts, texts.len())),
            service: Some(format!("Service {}", first.service)),
        });
    }
    let decides = claims.iter().find(|claim| claim.protocol == protocol)?;
    Some(By {
        text: text(decides),
        service: Some(format!("Service {}", decides.service)),
    })
}

fn text(claim: &ServiceClaim<'_>) -> String {
    let service = claim.service;
    match claim.by {
        Declares::Annotation => format!("annotation {OPAQUE_PORTS} of Service {service}"),
        Declares::AppProtocol(value) => format!("appProtocol {value} of Service {service}"),
        Declares::PortName(name) => format!("port name {name} of Service {service}"),
    }
}
