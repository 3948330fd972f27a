//! Compiles IdentityBindings: the workloads that each one selects.
//!
//! A binding covers workloads of its own namespace only, from wherever it is referenced. One that
//! contradicts itself admits no caller; as a destination it still protects every workload that it
//! names, so that a validation error opens nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::name::{Kind, SpiffeId};

use super::accounts;
use super::findings::{About, Findings};
use crate::{
    model::{
        Defaults,
        bindings::{Binding, Bindings},
    },
    problem::{Reason, few},
    world::{BindingFacts, ObjectKey, PodFacts, World, object, origin},
};

/// Reads all of them.
pub(super) fn bindings(world: &World, defaults: &Defaults, findings: &mut Findings) -> Bindings {
    let bindings = world.bindings.iter().map(|(key, facts)| {
        let this = object(Kind::IdentityBinding, key);
        findings.seen(this.clone(), &facts.meta, summary(facts));
        let mut about = findings.about(&this, facts.meta.generation);
        about.add_mistakes(&facts.meta.mistakes);
        let reading = Reading {
            world,
            defaults,
            key,
            facts,
            about,
        };
        (key.clone(), reading.binding())
    });
    bindings.collect()
}

/// What is selected and not how much of it there is, which changes by itself.
fn summary(facts: &BindingFacts) -> String {
    let account = facts.spec.service_account.iter().map(ToString::to_string);
    let labels = facts.spec.labels.iter().flatten();
    let labels = labels.map(|(name, value)| format!("{name}={value}"));
    let ids = facts.spec.ids.iter().map(|id| id.written.to_string());
    few(account.chain(labels).chain(ids))
}

/// One binding being read.
struct Reading<'a> {
    world: &'a World,
    defaults: &'a Defaults,
    key: &'a ObjectKey,
    facts: &'a BindingFacts,
    about: About<'a>,
}

impl Reading<'_> {
    fn binding(mut self) -> Binding {
        let mut binding = Binding {
            origin: origin(Kind::IdentityBinding, self.key, &self.facts.meta),
            usable: self.facts.spec.usable,
            ids: Vec::new(),
            accounts: BTreeSet::new(),
            callers_only: Vec::new(),
            foreign: Vec::new(),
        };
        self.account(&mut binding);
        self.spiffe_ids(&mut binding);
        binding
    }

    fn account(&mut self, binding: &mut Binding) {
        let Some(account) = &self.facts.spec.service_account else {
            return;
        };
        match SpiffeId::of(&self.defaults.trust_domain, &self.key.namespace, account) {
            Ok(id) => {
                binding.ids.push(id);
                binding.accounts.insert(account.clone());
                self.must_exist(account, "spec.schemes.serviceAccount");
            }
            Err(error) => {
                let message = format!("{account:?} is no service account: {error}");
                let field = "spec.schemes.serviceAccount";
                self.about.refuse(Reason::Invalid, field, message);
            }
        }
    }

    /// Reports that an account of the binding's namespace is not there.
    fn must_exist(&mut self, account: &str, field: &str) {
        let own = &*self.key.namespace;
        let account = ObjectKey::new(own, account);
        accounts::must_exist(self.world, &mut self.about, &account, (field, own));
    }

    fn spiffe_ids(&mut self, binding: &mut Binding) {
        const FIELD: &str = "spec.schemes.spiffeIdentities";
        let mut seen: BTreeSet<SpiffeId> = binding.ids.iter().cloned().collect();
        for (i, written) in self.facts.spec.ids.iter().enumerate() {
            let field = format!("{FIELD}[{i}]");
            let Some(id) = written.id.clone() else {
                continue;
            };
            let ours = id.trust_domain() == &*self.defaults.trust_domain;
            match (ours, id.namespace(), id.service_account()) {
                (true, Some(namespace), _) if namespace != &*self.key.namespace => {
                    let message = format!(
                        "{id} is of namespace {namespace:?}, and a binding speaks of its own \
                         only; ignored: name an IdentityBinding or ServiceAccount of {namespace}"
                    );
                    self.about.refuse(Reason::ForeignIdentity, &field, message);
                    binding.foreign.push(id);
                    continue;
                }
                (true, Some(_), Some(account)) => {
                    binding.accounts.insert(account.into());
                    self.must_exist(account, &field);
                }
                _ => binding.callers_only.push(id.clone()),
            }
            if seen.insert(id.clone()) {
                binding.ids.push(id);
            }
        }
    }
}

/// Whether some binding means a pod by its labels in one of two worlds, and not in the
/// other or not in the same way.
pub(super) fn differ_about(world: &World, before: &World, pod: &ObjectKey) -> bool {
    let (now, then) = (world.pods.get(pod), before.pods.get(pod));
    let mut bindings = world
        .bindings
        .range(ObjectKey::new(&pod.namespace, "")..)
        .take_while(|(key, _)| key.namespace == pod.namespace)
        .filter_map(|(_, binding)| binding.spec.labels.as_ref());
    bindings.any(|labels| {
        let meant = |facts: Option<&Arc<PodFacts>>| {
            let facts = facts.filter(|facts| !facts.ended && has_all(facts, labels))?;
            Some((facts.uid.clone(), facts.proxy.is_some()))
        };
        meant(now) != meant(then)
    })
}

/// Whether a pod carries all of these labels.
pub(super) fn has_all(facts: &PodFacts, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
    let mut labels = labels.iter();
    labels.all(|(name, value)| facts.labels.get(name) == Some(value))
}
