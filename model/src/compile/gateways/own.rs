//! Finds the Gateways whose class Weft serves, each with the states of its listeners and with their
//! certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_api::{
    gateway::{CertificateRef, Listener},
    grants::Grants,
    listeners::{ListenerState, states},
};
use policy::gateway::ListenerProtocol;

use crate::{
    compile::findings::Finding,
    problem::{Reason, few},
    world::{GatewayFacts, ListenerCertificateFacts, ObjectKey, World},
};

/// A Gateway of a class that Weft serves.
pub(super) struct OwnGateway<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) facts: &'a GatewayFacts,
    /// Of each listener.
    pub(super) states: Vec<ListenerState>,
    /// The same.
    pub(super) certificates: Vec<Certificates>,
    /// Why none of it is served.
    pub(super) refused: Option<Finding>,
}

/// The certificates of a listener.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// Secrets, with the fingerprints of their certificates.
    pub(super) usable: BTreeMap<ObjectKey, Arc<str>>,
    /// What is wrong with the first of the others.
    pub(super) wrong: Option<Finding>,
}

/// All of them, by name.
pub(super) fn gateways<'a>(
    world: &'a World,
    grants: &Grants,
    namespaces: &BTreeSet<String>,
) -> Vec<OwnGateway<'a>> {
    let all = world.gateways.iter();
    let own = all.filter(|(_, facts)| world.is_own_class(&facts.spec.class));
    own.map(|(key, facts)| {
        let states = states(&facts.spec);
        let listeners = facts.spec.listeners.iter();
        OwnGateway {
            key,
            facts,
            certificates: listeners
                .map(|listener| certificates(world, grants, key, listener))
                .collect(),
            refused: refused(world, (key, facts), &states, namespaces),
            states,
        }
    })
    .collect()
}

impl OwnGateway<'_> {
    /// Whether a listener is served as it is written, certificates included.
    pub(super) fn is_served(&self, place: usize) -> bool {
        let needs_certificate =
            self.facts.spec.listeners[place].served == Some(ListenerProtocol::Https);
        self.refused.is_none()
            && self.states[place].refused.is_none()
            && !(needs_certificate && self.certificates[place].usable.is_empty())
    }
}

fn refused(
    world: &World,
    (key, facts): (&ObjectKey, &GatewayFacts),
    states: &[ListenerState],
    namespaces: &BTreeSet<String>,
) -> Option<Finding> {
    let spec = &facts.spec;
    if !namespaces.contains(&*key.namespace) {
        let message = format!(
            "Gateways of namespace {} are not served; add it to value gateway.namespaces of the \
             chart, or move the Gateway to one of {}",
            key.namespace,
            few(namespaces)
        );
        return Some(Finding::refuse(
            Reason::NotAllowed,
            "metadata.namespace",
            message,
        ));
    }
    if let Some(broken) = &spec.broken {
        let message = broken.message.clone();
        return Some(Finding::refuse(
            Reason::UnsupportedValue,
            &broken.path,
            message,
        ));
    }
    let class = world.gateway_classes.get(&ObjectKey::new("", &spec.class));
    if class.is_some_and(|class| class.spec.has_parameters) {
        let message = format!(
            "GatewayClass {} has parametersRef, which Weft does not know; use \
             spec.infrastructure.parametersRef of the Gateway",
            spec.class
        );
        let (reason, field) = (Reason::InvalidParameters, "spec.gatewayClassName");
        return Some(Finding::refuse(reason, field, message));
    }
    if let Some(address) = &spec.address {
        let message = address.message.clone();
        return Some(Finding::refuse(
            Reason::UnsupportedAddress,
            &address.path,
            message,
        ));
    }
    if states.iter().all(|state| state.refused.is_some()) {
        let message = "none of the listeners can be served; see the conditions of each";
        let (reason, field) = (Reason::ListenersNotValid, "spec.listeners");
        return Some(Finding::refuse(reason, field, message.to_owned()));
    }
    None
}

fn certificates(
    world: &World,
    grants: &Grants,
    gateway: &ObjectKey,
    listener: &Listener,
) -> Certificates {
    let mut found = Certificates::default();
    for one in &listener.certificates {
        match certificate(world, grants, gateway, one) {
            Ok((secret, fingerprint)) => drop(found.usable.insert(secret, fingerprint)),
            Err((reason, message)) => {
                let wrong = Finding::unresolved(reason, &one.path, message);
                found.wrong = found.wrong.or(Some(wrong));
            }
        }
    }
    found
}

/// The Secret that is meant, if its certificate can be served. Whether it may be named is looked at
/// first: of a namespace that permits nothing, nothing is said.
fn certificate(
    world: &World,
    grants: &Grants,
    gateway: &ObjectKey,
    one: &CertificateRef,
) -> Result<(ObjectKey, Arc<str>), (Reason, String)> {
    let invalid = |message| Err((Reason::InvalidCertificateRef, message));
    if !one.is_secret() {
        let CertificateRef { kind, name, .. } = one;
        return invalid(format!(
            "{name} is of kind {kind} in group {:?}, but only a Secret can hold a certificate; \
             name a Secret",
            &*one.group
        ));
    }
    let CertificateRef {
        namespace, name, ..
    } = one;
    if !grants.allows_secret(&gateway.namespace, namespace, name) {
        let message = format!(
            "no ReferenceGrant of namespace {namespace} permits Gateways of namespace {} to name \
             Secret {name}; make one there",
            gateway.namespace
        );
        return Err((Reason::RefNotPermitted, message));
    }
    let secret = ObjectKey {
        namespace: namespace.clone(),
        name: name.clone(),
    };
    match world.listener_certificates.get(&secret).map(Arc::as_ref) {
        None => invalid(format!("Secret {secret} has not been read yet")),
        Some(ListenerCertificateFacts::Unusable(why)) => invalid(why.to_string()),
        Some(ListenerCertificateFacts::Usable { fingerprint, .. }) => {
            Ok((secret, Arc::clone(fingerprint)))
        }
    }
}
