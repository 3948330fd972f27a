//! Reads the scope of a TrafficPolicy or a FaultExperiment: which requests of which callers it is
//! about.

use std::{collections::BTreeSet, sync::Arc};

use crds::{
    smi::validation::{Source, SourceKind},
    weft::validation::Route,
};
use policy::{
    access,
    name::{ObjectRef, SpiffeId},
    route::Match,
    traffic::Sources,
};

use super::candidate::Named;
use crate::{
    compile::{accounts, findings::About, routes::MOST_COMPILED},
    problem::Reason,
    world::ObjectKey,
};

/// Most bytes of HTTP matches that one object may add up to; they are repeated for every
/// section and port.
const MOST_BYTES: usize = 256 * 1024;

/// What the matches of one object take.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::compile) struct MatchesSize {
    /// In a rule.
    pub(super) bytes: usize,
    /// At a proxy that has compiled their expressions.
    pub(super) compiled: usize,
}

/// Most pods that the callers of one object may be, by their labels.
const MOST_PODS: usize = 10_000;

/// One object being read.
pub(in crate::compile) struct Scope<'s, 'a> {
    pub(in crate::compile) named: &'s Named<'a>,
    pub(in crate::compile) key: &'s ObjectKey,
    pub(in crate::compile) about: &'s mut About<'a>,
    /// What it is made from, with itself.
    pub(in crate::compile) origins: &'s mut Vec<(ObjectRef, i64)>,
}

impl MatchesSize {
    /// Why it is too much for one object; `None` if it is not.
    fn excess(self) -> Option<String> {
        if self.bytes > MOST_BYTES {
            return Some(format!(
                "name matches of more than {} KiB; the policy fits no request",
                MOST_BYTES / 1024
            ));
        }
        (self.compiled > MOST_COMPILED).then(|| {
            format!(
                "name matches whose expressions take more than {} MiB when compiled; the policy \
                 fits no request: write plain paths and values in place of expressions",
                MOST_COMPILED / (1024 * 1024)
            )
        })
    }
}

impl Scope<'_, '_> {
    /// The requests that are meant, and what their matches take; without any entry all, and what
    /// is not there is none.
    pub(in crate::compile) fn routes(&mut self, routes: &[Option<Route>]) -> (Match, MatchesSize) {
        let mut size = MatchesSize::default();
        if routes.is_empty() {
            return (Match::Always, size);
        }
        let mut matches = Vec::new();
        for (i, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            self.route(i, route, &mut matches, &mut size);
        }
        if let Some(message) = size.excess() {
            self.about.refuse(Reason::Invalid, "spec.routes", message);
            matches.clear();
            size = MatchesSize::default();
        }
        (Match::AnyOf(matches), size)
    }

    fn route(
        &mut self,
        index: usize,
        route: &Route,
        matches: &mut Vec<policy::http_match::HttpMatch>,
        size: &mut MatchesSize,
    ) {
        let field = format!("spec.routes[{index}]");
        let Some(group) = self.named.routes.group(&self.key.namespace, &route.group) else {
            let message = format!(
                "there is no HTTPRouteGroup {}; it fits no request",
                route.group
            );
            self.about
                .unresolved(Reason::RefNotFound, &format!("{field}.name"), message);
            return;
        };
        self.origins.push(group.origin.clone());
        let wanted = route.matches.as_deref();
        for (i, name) in wanted.into_iter().flatten().enumerate() {
            let named = group.matches.iter();
            let mut named = named.filter(|(known, _)| **known == **name).peekable();
            let message = if named.peek().is_none() {
                format!("{} has no match {name}", route.group)
            } else if named.all(|(_, usable)| usable.is_none()) {
                format!(
                    "match {name} of {} cannot be used, as the status of that says; it fits no \
                     request",
                    route.group
                )
            } else {
                continue;
            };
            let field = format!("{field}.matches[{i}]");
            self.about.unresolved(Reason::RefNotFound, &field, message);
        }
        if wanted.is_none() && group.all().next().is_none() {
            let message = format!(
                "{} has no match that can be used; it fits no request",
                route.group
            );
            self.about
                .unresolved(Reason::RefNotFound, &format!("{field}.name"), message);
        }
        let chosen = |name: &str| wanted.is_none_or(|names| names.iter().any(|one| **one == *name));
        for (name, usable) in &group.matches {
            if let Some(usable) = usable
                && chosen(name)
            {
                size.bytes += usable.bytes;
                size.compiled += usable.one.compiled_size();
                matches.push(usable.one.clone());
            }
        }
    }

    /// Whose calls are meant; without any entry everyone's.
    pub(in crate::compile) fn sources(&mut self, sources: &[Source]) -> Sources {
        match sources {
            [] => Sources::Everyone,
            sources => Sources::Only(self.callers("spec.sources", sources)),
        }
    }

    /// The identities that a proxy compares; what is not there stands for no caller.
    pub(super) fn callers(&mut self, field: &str, sources: &[Source]) -> Vec<access::Source> {
        let mut callers = BTreeSet::new();
        let mut pods: BTreeSet<Arc<str>> = BTreeSet::new();
        for (i, source) in sources.iter().enumerate() {
            let field = format!("{field}[{i}].name");
            let namespace = match &*source.namespace {
                "" => &self.key.namespace,
                _ => &source.namespace,
            };
            match source.kind {
                None => {}
                Some(SourceKind::Authenticated) => {
                    callers.insert(access::Source::Authenticated);
                }
                Some(SourceKind::Unauthenticated) => {
                    callers.insert(access::Source::Unauthenticated);
                }
                Some(SourceKind::ServiceAccount) => {
                    let trust_domain = &self.named.defaults.trust_domain;
                    match SpiffeId::of(trust_domain, namespace, &source.name) {
                        Ok(id) => {
                            callers.insert(access::Source::Identity(id));
                            let account = ObjectKey {
                                namespace: namespace.clone(),
                                name: source.name.clone(),
                            };
                            let at = (&*field, &*self.key.namespace);
                            let world = self.named.world;
                            accounts::must_exist(world, self.about, &account, at);
                        }
                        Err(error) => {
                            let message = format!("is no identity: {error}; it is ignored");
                            self.about.refuse(Reason::Invalid, &field, message);
                        }
                    }
                }
                Some(SourceKind::IdentityBinding) => {
                    let key = ObjectKey {
                        namespace: namespace.clone(),
                        name: source.name.clone(),
                    };
                    self.bound(&field, &key, &mut callers, &mut pods);
                }
            }
        }
        if pods.len() > MOST_PODS {
            let message = format!("name {} pods; only {MOST_PODS} are allowed", pods.len());
            self.about.refuse(Reason::Invalid, field, message);
            pods = pods.into_iter().take(MOST_PODS).collect();
        }
        if !pods.is_empty() {
            callers.insert(access::Source::pods(pods));
        }
        callers.into_iter().collect()
    }

    /// Adds the callers of a binding, if any.
    fn bound(
        &mut self,
        field: &str,
        key: &ObjectKey,
        callers: &mut BTreeSet<access::Source>,
        pods: &mut BTreeSet<Arc<str>>,
    ) {
        let Some(binding) = self.named.bindings.get(key) else {
            let words = || format!("there is no IdentityBinding {key}; it stands for no caller");
            self.about
                .unresolved_with(Reason::RefNotFound, field, words);
            return;
        };
        self.origins.push(binding.origin.clone());
        if !binding.usable {
            let why = "cannot be used, as its status says; it stands for no caller";
            let words = || format!("IdentityBinding {key} {why}");
            self.about
                .unresolved_with(Reason::RefNotFound, field, words);
            return;
        }
        let ids = binding.ids.iter().cloned();
        callers.extend(ids.map(access::Source::Identity));
        let selected = self.named.members.of(key);
        let known = selected.filter_map(|pod| self.named.world.pods.get(pod));
        pods.extend(known.map(|facts| facts.uid.clone()));
    }
}
