//! The compiled Gateways: what each serves, in the form that its pods are sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use policy::gateway::Gateway;
use policy::name::ObjectRef;

use super::published::EncodedResource;
use super::service_routes::RulePlace;
use crate::world::ObjectKey;

/// Of each rule of a table which rule of its route it is.
pub(crate) type Places = Arc<[Option<RulePlace>]>;

/// All Gateways that are served, by name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Gateways(pub(crate) BTreeMap<ObjectKey, Arc<CompiledGateway>>);

/// A Gateway that is served.
#[derive(Debug)]
pub(crate) struct CompiledGateway {
    /// What its pods serve.
    pub(crate) gateway: Gateway,
    /// Of each listener, for the table of each of its hosts.
    pub(crate) places: Vec<Vec<Places>>,
    /// The Gateway, and the routes that are attached to it.
    pub(crate) origins: Vec<(ObjectRef, i64)>,
    /// Services and their ports that calls or copies of them go to.
    pub(crate) leads_to: BTreeSet<(ObjectKey, u16)>,
    /// Secrets whose certificates its listeners serve, with the fingerprints of these.
    pub(crate) certificates: BTreeMap<ObjectKey, Arc<str>>,
    /// As its pods get it.
    pub(crate) encoded: OnceLock<Arc<EncodedResource>>,
}

impl PartialEq for CompiledGateway {
    fn eq(&self, other: &Self) -> bool {
        self.gateway == other.gateway
            && self.places == other.places
            && self.origins == other.origins
            && self.leads_to == other.leads_to
            && self.certificates == other.certificates
    }
}

impl Gateways {
    /// Takes over what is as it was.
    pub(crate) fn take_over(&mut self, before: &Self) {
        for (key, now) in &mut self.0 {
            if let Some(then) = before.0.get(key).filter(|then| *then == now) {
                *now = Arc::clone(then);
            }
        }
    }
}
