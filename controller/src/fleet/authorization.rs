//! Decides which callers' reports count for a fleet breaker: those that may make the calls it is
//! about.
//!
//! An account that the called pods refuse has seen no response of theirs. If its reports counted,
//! any two accounts could open the breaker of a Service of others. So the called pods' rules are
//! evaluated by the Model in force, and the result is cached for as long as that Model is.
//!
//! One pod that admits one call is enough, as is one that evaluates no rules: its mode is open or
//! audit, or it has no proxy. Where no pod serves, no caller's report counts.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use model::compiled::Compiled;
use model::world::ObjectKey;
use model::{Endpoint, Index, Target};
use policy::access::passes::{Passes, Spoken};
use policy::access::{Access, Caller as Proven, Source};
use policy::mode::Enforcement;
use policy::name::SpiffeId;

use super::announced::{Caller, Key};

/// Results that are kept: 400 accounts that call 50 Services each. What is not kept is evaluated
/// again for each breaker report.
const MAX_CACHED: usize = 20_000;
/// Pods of a Service that are evaluated, evenly spread over all: they nearly always hold the same
/// rules.
const MAX_SAMPLED: usize = 16;
/// Sources and matches of rules that are looked at for one pulse: 1300 for each of 50
/// Services. It takes about half a millisecond.
pub(super) const LOOKED_AT: usize = 65_536;

/// From which pods of an account the rules allow a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    All,
    NoPods,
    /// The pods that rules name.
    SomePods,
}

/// What the rules of one Model answer.
#[derive(Debug, Default)]
pub(super) struct Authorizations {
    /// Where the answers are from.
    compiled: Weak<Compiled>,
    /// By Service that serves, its port, and account.
    answers: HashMap<(ObjectKey, u16, Arc<str>), Allowed>,
}

impl Authorizations {
    /// Whether a proxy may make calls that this breaker is about. `left`: what may still be
    /// looked at; `None` where that is not enough to know.
    pub(super) fn allow(
        &mut self,
        compiled: &Arc<Compiled>,
        key: &Key,
        from: &Caller,
        left: &mut usize,
    ) -> Option<bool> {
        if self.compiled.as_ptr() != Arc::as_ptr(compiled) {
            self.compiled = Arc::downgrade(compiled);
            self.answers.clear();
        }
        let about = (key.backend.clone(), key.port, Arc::clone(&from.account));
        let known = self.answers.get(&about).copied();
        match known {
            Some(Allowed::All) => return Some(true),
            Some(Allowed::NoPods) => return Some(false),
            Some(Allowed::SomePods) | None => {}
        }
        let index = &*compiled.model.index;
        let Some(id) = identity(index, &from.account) else {
            return Some(false);
        };
        let mut rules = Rules {
            index,
            left,
            name_pods: false,
        };
        if known.is_none() {
            let allowed = match rules.allow(key, Proven::mesh(&id))? {
                true => Allowed::All,
                false if rules.name_pods => Allowed::SomePods,
                false => Allowed::NoPods,
            };
            if self.answers.len() < MAX_CACHED {
                self.answers.insert(about, allowed);
            }
            if allowed != Allowed::SomePods {
                return Some(allowed == Allowed::All);
            }
        }
        let caller = Proven::Mesh {
            id: &id,
            pod: Some(&*from.uid),
        };
        rules.allow(key, caller)
    }
}

/// What the proxies of an account prove; `None` for what is no account.
fn identity(index: &Index, account: &str) -> Option<SpiffeId> {
    let (namespace, account) = account.split_once('/')?;
    SpiffeId::of(&index.defaults.trust_domain, namespace, account).ok()
}

/// The rules of the pods behind a Service.
struct Rules<'a> {
    index: &'a Index,
    /// Sources and matches that may still be looked at.
    left: &'a mut usize,
    /// Some rule distinguishes pods of one account.
    name_pods: bool,
}

impl Rules<'_> {
    /// Whether some pod lets some call pass; `None` where there is more to look at than may
    /// be.
    fn allow(&mut self, key: &Key, caller: Proven<'_>) -> Option<bool> {
        let index = self.index;
        let service = index.backend(&key.backend);
        let port = service.and_then(|service| service.ports.get(&key.port));
        let endpoints = port.map_or(&[][..], |port| port.candidates.as_slice());
        let apart = endpoints.len().div_ceil(MAX_SAMPLED).max(1);
        for candidate in endpoints.iter().step_by(apart) {
            if self.pod_allows(&candidate.endpoint, caller)? {
                return Some(true);
            }
        }
        Some(false)
    }

    fn pod_allows(&mut self, at: &Endpoint, caller: Proven<'_>) -> Option<bool> {
        let index = self.index;
        // Outside of the cluster no rule is evaluated.
        let Some(pod) = &at.pod else {
            return Some(true);
        };
        let Some(facts) = index.world.pods.get(pod) else {
            return Some(false);
        };
        let proxy = facts.proxy.as_ref();
        let targets: Vec<&Target> = index.targets.of(pod, facts).collect();
        if proxy.is_none_or(|proxy| proxy.skips(at.port))
            || index.enforcement(pod, facts, &targets) != Enforcement::Enforce
        {
            return Some(true);
        }
        self.look_at(targets.len())?;
        for rule in targets.iter().filter_map(|target| target.rule.as_ref()) {
            let sources = &rule.rule.sources;
            self.look_at(sources.len())?;
            self.name_pods |= sources.iter().any(|one| matches!(one, Source::Pods(_)));
            if !sources.iter().any(|source| source.admits(caller)) {
                continue;
            }
            self.look_at(rule.rule.http.as_ref().map_or(0, Vec::len))?;
            let access = Access {
                enforcement: Enforcement::Enforce,
                rules: vec![rule.on(pod)],
            };
            let protocol = index.pod_protocols(pod, facts).lookup(at.port);
            let spoken = if protocol.is_opaque() {
                Spoken::Opaque
            } else {
                // What passes as other bytes passes as a request, too.
                Spoken::Http
            };
            if !matches!(access.passes(caller, at.port, spoken), Passes::Nothing) {
                return Some(true);
            }
        }
        Some(false)
    }

    fn look_at(&mut self, many: usize) -> Option<()> {
        *self.left = self.left.checked_sub(many)?;
        Some(())
    }
}
