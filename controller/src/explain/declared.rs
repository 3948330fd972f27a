//! Which object declares the protocol of a pod's port, in words.

use crds::labels::OPAQUE_PORTS;
use crds::names::few;
use policy::protocol::{DEFAULT_OPAQUE_PORTS, Protocol};

use crate::model::Index;
use crate::model::protocols::{Declares, declaration, holds, ranges};
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
    if lists(facts.appearance.opaque_ports.as_deref()) {
        return without_service(format!("annotation {OPAQUE_PORTS} of the pod"));
    }
    if let Some(by) = by_service(index, pod, port) {
        return by;
    }
    let namespace = index.world.namespace(&pod.namespace);
    let list = namespace.and_then(|namespace| namespace.appearance.opaque_ports.as_deref());
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
    let here = entry.serves.iter().filter(|(_, _, own)| *own == port);
    let claims = here.filter_map(|(key, number, _)| {
        let service = index.world.services.get(key)?;
        let (declared, by) = declaration(service, *number)?;
        let text = match by {
            Declares::Annotation => format!("annotation {OPAQUE_PORTS} of Service {key}"),
            Declares::AppProtocol(value) => format!("appProtocol {value} of Service {key}"),
            Declares::PortName(name) => format!("port name {name} of Service {key}"),
        };
        Some(((service.created, key, *number), declared, text))
    });
    let mut claims: Vec<_> = claims.collect();
    claims.sort();
    if protocol == Protocol::Detect {
        let texts: Vec<String> = claims.iter().map(|(.., text)| text.clone()).collect();
        let ((_, key, _), ..) = claims.first()?;
        return Some(By {
            text: format!("{} contradict each other", few(&texts, texts.len())),
            service: Some(format!("Service {key}")),
        });
    }
    let mut decides = claims
        .into_iter()
        .filter(|(_, declared, _)| *declared == protocol);
    let ((_, key, _), _, text) = decides.next()?;
    Some(By {
        text,
        service: Some(format!("Service {key}")),
    })
}
