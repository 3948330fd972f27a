//! The sources of a TrafficTarget, compiled to the identities that proxies compare.

use std::{collections::BTreeSet, sync::Arc};

use crds::smi::validation::{Source, SourceKind};
use policy::{
    access,
    name::{ObjectRef, SpiffeId},
};

use super::Reading;
use crate::{
    compile::accounts,
    model::bindings::Binding,
    problem::{Reason, few},
    world::ObjectKey,
};

/// Most identities that one target may admit: eight for each of its 256 sources. A
/// proxy looks through them for every request.
const MOST_IDS: usize = 2048;
/// Most pods that one target may admit by their labels: their uids take 370 KB in the
/// rule of every proxy that it protects, and a thirtieth of what one message holds.
const MOST_PODS: usize = 10_000;

/// The permitted callers, added up over the sources of one target.
#[derive(Default)]
pub(super) struct Callers {
    ids: BTreeSet<SpiffeId>,
    authenticated: bool,
    unauthenticated: bool,
    /// Uids.
    pods: BTreeSet<Arc<str>>,
    /// The bindings that were looked up.
    pub(super) origins: Vec<(ObjectRef, i64)>,
}

impl Callers {
    /// As a proxy reads them; empty if no caller is permitted.
    pub(super) fn sources(&self) -> Vec<access::Source> {
        let ids = self.ids.iter().cloned().map(access::Source::Identity);
        let authenticated = self.authenticated.then_some(access::Source::Authenticated);
        let unauthenticated = self.unauthenticated;
        let unauthenticated = unauthenticated.then_some(access::Source::Unauthenticated);
        let pods = !self.pods.is_empty();
        let pods = pods.then(|| access::Source::pods(self.pods.iter().cloned()));
        ids.chain(authenticated)
            .chain(unauthenticated)
            .chain(pods)
            .collect()
    }
}

impl Reading<'_> {
    pub(super) fn callers(&mut self) -> Callers {
        let mut callers = Callers::default();
        self.warn_of_missing_namespaces();
        for (i, source) in self.facts.spec.sources.iter().enumerate() {
            if let Some(kind) = source.kind {
                self.caller(kind, source, &format!("spec.sources[{i}]"), &mut callers);
            }
        }
        self.bound(&mut callers);
        callers
    }

    /// SMI leaves open what a source without a namespace is. Another mesh may take it for no
    /// caller, or for the account of that name in every namespace.
    fn warn_of_missing_namespaces(&mut self) {
        let named = [SourceKind::ServiceAccount, SourceKind::IdentityBinding];
        let sources = self.facts.spec.sources.iter();
        let without: BTreeSet<&str> = sources
            .filter(|source| source.kind.is_some_and(|kind| named.contains(&kind)))
            .filter(|source| source.namespace.is_empty())
            .map(|source| &*source.name)
            .collect();
        if !without.is_empty() {
            let message = format!(
                "no namespace is given for {}; taken for this object's, {}",
                few(without),
                self.key.namespace
            );
            self.about
                .caution(Reason::NamespaceDefaulted, "spec.sources", message);
        }
    }

    /// Adds one source.
    fn caller(&mut self, kind: SourceKind, source: &Source, field: &str, callers: &mut Callers) {
        let namespace = match &*source.namespace {
            "" => &self.key.namespace,
            _ => &source.namespace,
        };
        match kind {
            SourceKind::Authenticated => callers.authenticated = true,
            SourceKind::Unauthenticated => callers.unauthenticated = true,
            SourceKind::ServiceAccount => {
                let trust_domain = &self.named.defaults.trust_domain;
                match SpiffeId::of(trust_domain, namespace, &source.name) {
                    Ok(id) => {
                        callers.ids.insert(id);
                        let account = ObjectKey {
                            namespace: namespace.clone(),
                            name: source.name.clone(),
                        };
                        let field = format!("{field}.name");
                        let world = self.named.protocols.world;
                        let at = (&*field, &*self.key.namespace);
                        accounts::must_exist(world, &mut self.about, &account, at);
                    }
                    Err(error) => {
                        let message = format!("is no identity: {error}; this source is ignored");
                        let field = format!("{field}.name");
                        self.about.refuse(Reason::Invalid, &field, message);
                    }
                }
            }
            SourceKind::IdentityBinding => {
                let key = ObjectKey {
                    namespace: namespace.clone(),
                    name: source.name.clone(),
                };
                match self.named.bindings.get(&key) {
                    Some(binding) => self.bound_callers(&key, binding, callers),
                    None => {
                        let message = format!("there is no IdentityBinding {key}");
                        let field = format!("{field}.name");
                        self.about.unresolved(Reason::RefNotFound, &field, message);
                    }
                }
            }
        }
    }

    /// The callers of a binding. One that cannot be used stands for none, and its own status has
    /// the reason.
    fn bound_callers(&self, key: &ObjectKey, binding: &Binding, callers: &mut Callers) {
        callers.origins.push(binding.origin.clone());
        if !binding.usable {
            return;
        }
        callers.ids.extend(binding.ids.iter().cloned());
        let pods = self.named.members.of(key);
        let pods = pods.filter_map(|pod| self.pods.uid(pod));
        callers.pods.extend(pods.cloned());
    }

    fn bound(&mut self, callers: &mut Callers) {
        let too_many = |found: usize, most: usize, what: &str| {
            (found > most).then(|| format!("name {found} {what}; only {most} are allowed"))
        };
        let ids = too_many(callers.ids.len(), MOST_IDS, "identities");
        let pods = too_many(callers.pods.len(), MOST_PODS, "pods");
        for message in ids.into_iter().chain(pods) {
            self.about.refuse(Reason::Invalid, "spec.sources", message);
        }
        while callers.ids.len() > MOST_IDS {
            callers.ids.pop_last();
        }
        while callers.pods.len() > MOST_PODS {
            callers.pods.pop_last();
        }
    }
}
