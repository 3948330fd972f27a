//! Who says which protocol a port of a pod carries, in words.

use crds::labels::OPAQUE_PORTS;
use policy::protocol::DEFAULT_OPAQUE_PORTS;

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

/// Asks in the order in which proxies are told.
pub(super) fn by(index: &Index, pod: &ObjectKey, facts: &PodFacts, port: u16) -> By {
    let lists = |list: Option<&str>| holds(&ranges(list), port);
    let nobodys = |text: String| By {
        text,
        service: None,
    };
    if lists(facts.appearance.opaque_ports.as_deref()) {
        return nobodys(format!("annotation {OPAQUE_PORTS} of the pod"));
    }
    if let Some(by) = by_service(index, pod, port) {
        return by;
    }
    let namespace = index.world.namespace(&pod.namespace);
    let list = namespace.and_then(|namespace| namespace.appearance.opaque_ports.as_deref());
    if lists(list) {
        let name = &pod.namespace;
        return nobodys(format!("annotation {OPAQUE_PORTS} of namespace {name}"));
    }
    nobodys(if DEFAULT_OPAQUE_PORTS.contains(&port) {
        "it is among the ports that carry bytes unless declared otherwise".to_owned()
    } else {
        "nobody declares it".to_owned()
    })
}

/// The oldest Service that declares the port decides.
fn by_service(index: &Index, pod: &ObjectKey, port: u16) -> Option<By> {
    let entry = index.pods.get(pod)?;
    let protocol = entry.declared.get(&port)?;
    let here = entry.serves.iter().filter(|(_, _, own)| *own == port);
    let claims = here.filter_map(|(key, number, _)| {
        let service = index.world.services.get(key)?;
        let (declared, by) = declaration(service, *number)?;
        (declared == *protocol).then_some((service.created, key, *number, by))
    });
    let oldest = claims.min_by_key(|(created, key, number, _)| (*created, *key, *number));
    let (_, key, _, by) = oldest?;
    let service = format!("Service {key}");
    Some(By {
        text: match by {
            Declares::Annotation => format!("annotation {OPAQUE_PORTS} of {service}"),
            Declares::AppProtocol(value) => format!("appProtocol {value} of {service}"),
            Declares::PortName(name) => format!("port name {name} of {service}"),
        },
        service: Some(service),
    })
}
