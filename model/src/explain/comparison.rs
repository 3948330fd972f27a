//! Evaluates recorded calls by two Models, and reports those that a change would affect.
//!
//! Of a recorded call both ends are known, but not its method and path. So where the result
//! depends on these, the result is reported as dependent. Of several callers and called pods the
//! worst result counts.

mod routing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use policy::access::passes::{Effect, Passes, Spoken};
use policy::access::{Caller as Proven, Source};
use policy::mode::{Enforcement, MtlsMode};
use policy::name::SpiffeId;
use policy::reason::Reason;
use policy::well_known::PROXY_PORTS;

pub use self::routing::Share;
use self::routing::{Routing, endpoints};
use super::evaluate::PodAccess;
use crate::model::{Index, Model, PodId, Target, modes};
use crate::world::{ObjectKey, Proxy};

/// The caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerSet {
    /// Pods, with a proxy or without.
    Pods(Vec<PodId>),
    /// A service account as one, regardless of its pods.
    Account(ObjectKey),
    /// A caller without an identity.
    Outside,
}

impl CallerSet {
    /// The namespace of the callers, if they have one; pods are of one workload.
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pods(pods) => pods.first().map(|pod| &*pod.namespace),
            Self::Account(account) => Some(&account.namespace),
            Self::Outside => None,
        }
    }
}

/// Calls that were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    pub from: CallerSet,
    /// Through this Service; without one to the pods' own addresses.
    pub service: Option<ObjectKey>,
    /// Of the Service, or of the pods.
    pub port: u16,
    /// The pods that were called.
    pub to: Vec<PodId>,
    /// Requests; else bytes.
    pub http: bool,
}

/// What a change means for calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Meaning {
    pub effect: Effect,
    /// Where they are refused from now on.
    pub reason: Option<Reason>,
    /// Where they go, before and after, if that changes.
    pub rerouted: Option<[Vec<Share>; 2]>,
}

/// Two Models, and what was worked out of each so far.
#[derive(Debug)]
pub struct ModelComparison<'a> {
    models: [&'a Model; 2],
    /// What the proxies of pods hold.
    pod_access: [BTreeMap<PodId, Arc<PodAccess>>; 2],
    /// Whether what the proxy of a pod holds is the same in both.
    same: BTreeMap<PodId, bool>,
    /// Some rule names pods, so that those of one account differ.
    by_pod: bool,
    until: Instant,
}

impl<'a> ModelComparison<'a> {
    /// Compares until then: how much there is to compare, users say.
    #[must_use]
    pub fn new(before: &'a Model, after: &'a Model, until: Instant) -> Self {
        let models = [before, after];
        let names_pods = |model: &Model| {
            let mut rules = model.index.targets.rules();
            rules.any(|rule| {
                let mut sources = rule.sources.iter();
                sources.any(|source| matches!(source, Source::Pods(_)))
            })
        };
        Self {
            models,
            pod_access: Default::default(),
            same: BTreeMap::new(),
            until,
            by_pod: models.into_iter().any(names_pods),
        }
    }

    /// There is no time left.
    #[must_use]
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// What the change means for these calls; `None` where one of their ends is gone, or there
    /// is no time left.
    pub fn of(&mut self, calls: &Calls) -> Option<Meaning> {
        let callers = self.callers(&calls.from)?;
        let from = calls.from.namespace();
        let called = calls.service.as_ref();
        let routings = self
            .models
            .map(|model| Routing::of(&model.index, (called, calls.port), calls.http, from));
        let [before, after] = &routings;
        let (before, after) = (before.as_ref()?, after.as_ref()?);
        let mut meaning = Meaning {
            effect: Effect::Kept,
            reason: None,
            rerouted: None,
        };
        // A caller without a proxy is carried by Kubernetes, which knows no splits.
        let meshed = callers.iter().any(|caller| caller.identity.is_some());
        let moves = meshed && !before.is_sent_as(after);
        if moves {
            meaning.rerouted = Some([before.shares(), after.shares()]);
            if let Some(reason) = after.dead()
                && before.dead().is_none()
            {
                meaning.effect = Effect::Refused;
                meaning.reason = Some(reason);
                return Some(meaning);
            }
            if before.is_conditional() || after.is_conditional() {
                meaning.effect = Effect::Depends;
            }
        }
        let reached = |routing: &Routing<'_>, model: &Model| {
            if meshed && calls.service.is_some() {
                routing.endpoints(&model.index)
            } else {
                calls.direct(&model.index)
            }
        };
        let from = reached(before, self.models[0]);
        let to = reached(after, self.models[1]);
        if to.is_empty() && !moves {
            return None;
        }
        for caller in &callers {
            for (pod, port) in &to {
                if self.is_late() {
                    return None;
                }
                let was = from.get_key_value(pod).or_else(|| from.first_key_value());
                let effect = self.effect(calls, caller, was, (pod, *port));
                if effect > meaning.effect {
                    meaning.effect = effect;
                }
                if effect == Effect::Refused {
                    meaning.reason = Some(caller.refused_for());
                }
            }
        }
        Some(meaning)
    }

    /// Whether the proxy of a pod refuses what no rule allows, and would refuse nothing after the
    /// change.
    #[must_use]
    pub fn opens(&self, pod: &PodId) -> bool {
        let is_closed = |model: &Model| {
            let index = &model.index;
            let facts = index.world.pods.get(pod);
            facts.is_some_and(|facts| {
                let targets: Vec<&Target> = index.targets.of(pod, facts).collect();
                facts.proxy.is_some()
                    && index.enforcement(pod, facts, &targets) == Enforcement::Enforce
            })
        };
        let [before, after] = self.models;
        is_closed(before) && !is_closed(after)
    }

    fn effect(
        &mut self,
        calls: &Calls,
        caller: &Caller,
        was: Option<(&PodId, &u16)>,
        (pod, port): (&PodId, u16),
    ) -> Effect {
        // A change touches rules and modes of access. Pods, what they speak and their mutual
        // TLS stay as they are.
        if was == Some((pod, &port)) && self.is_same(pod) {
            return Effect::Kept;
        }
        let before = was.and_then(|(pod, port)| Some((self.pod_access(0, pod)?, pod, *port)));
        let after = self.pod_access(1, pod);
        // The client may not learn which pods of an account the rules name.
        let lacks_uid = caller.identity.is_some() && caller.uid.is_none();
        let mut rules = before
            .iter()
            .map(|(pod_access, ..)| pod_access)
            .chain(&after);
        let depends_on_pod = lacks_uid && rules.any(|pod_access| pod_access.names_pods());
        let [first, second] = self.models;
        let before = match &before {
            Some((pod_access, pod, port)) => {
                passes(first, pod_access, caller, (pod, *port), calls.http)
            }
            None => Passes::All,
        };
        let after = match &after {
            Some(pod_access) => passes(second, pod_access, caller, (pod, port), calls.http),
            // No proxy evaluates it.
            None => Passes::All,
        };
        if depends_on_pod && !(matches!(before, Passes::All) && matches!(after, Passes::All)) {
            return Effect::Depends;
        }
        before.becomes(&after)
    }

    /// Whether nothing is changed of what the proxy of a pod holds.
    fn is_same(&mut self, pod: &PodId) -> bool {
        if let Some(same) = self.same.get(pod) {
            return *same;
        }
        let same = match [0, 1].map(|of| self.pod_access(of, pod)) {
            [Some(before), Some(after)] => before.access() == after.access(),
            [before, after] => before.is_none() && after.is_none(),
        };
        self.same.insert(pod.clone(), same);
        same
    }

    /// What the proxy of a pod holds; `None` where it has none.
    fn pod_access(&mut self, of: usize, pod: &PodId) -> Option<Arc<PodAccess>> {
        let model: &'a Model = self.models[of];
        let index = &model.index;
        let facts = index.world.pods.get(pod)?;
        facts.proxy.as_ref()?;
        let pod_access = self.pod_access[of].entry(pod.clone());
        let pod_access = pod_access.or_insert_with(|| Arc::new(PodAccess::of(index, pod, facts)));
        Some(Arc::clone(pod_access))
    }

    /// The callers that rules may tell apart; `None` where there are none.
    fn callers(&self, from: &CallerSet) -> Option<BTreeSet<Caller>> {
        let index = &self.models[0].index;
        let callers: BTreeSet<Caller> = match from {
            CallerSet::Outside => BTreeSet::from([Caller::default()]),
            CallerSet::Account(account) => {
                let domain = &index.defaults.trust_domain;
                let id = SpiffeId::of(domain, &account.namespace, &account.name).ok()?;
                BTreeSet::from([Caller {
                    identity: Some(id.as_str().to_owned()),
                    uid: None,
                }])
            }
            CallerSet::Pods(pods) => {
                let facts = |pod: &PodId| {
                    let facts = index.world.pods.get(pod)?;
                    Some(match facts.proxy {
                        Some(_) => Caller {
                            identity: Some(index.identity(pod, facts)),
                            uid: self.by_pod.then(|| Arc::clone(&facts.uid)),
                        },
                        None => Caller::default(),
                    })
                };
                pods.iter().filter_map(facts).collect()
            }
        };
        (!callers.is_empty()).then_some(callers)
    }
}

/// Callers that no rule distinguishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Caller {
    /// SPIFFE id; `None`: without a proxy.
    identity: Option<String>,
    uid: Option<Arc<str>>,
}

impl Caller {
    const fn refused_for(&self) -> Reason {
        match self.identity {
            Some(_) => Reason::NotAllowed,
            None => Reason::NoIdentity,
        }
    }
}

fn passes<'a>(
    model: &Model,
    pod_access: &'a PodAccess,
    caller: &Caller,
    (pod, port): (&PodId, u16),
    http: bool,
) -> Passes<'a> {
    let index = &model.index;
    let Some(facts) = index.world.pods.get(pod) else {
        return Passes::All;
    };
    let is_unjudged = |proxy: &Proxy| PROXY_PORTS.contains(&port) || proxy.skips(port);
    if facts.proxy.as_ref().is_some_and(is_unjudged) {
        return Passes::All;
    }
    let id = caller.identity.as_deref();
    let id = id.and_then(|id| SpiffeId::try_from(id).ok());
    let proven = match &id {
        Some(id) => Proven::Mesh {
            id,
            pod: caller.uid.as_deref(),
        },
        None => {
            let namespace = index.world.namespace(&pod.namespace);
            let mtls = modes::mtls_at(&index.defaults, namespace, &facts.annotations, port);
            if mtls == MtlsMode::Strict {
                return Passes::Nothing;
            }
            Proven::Outside
        }
    };
    let spoken = match (
        http,
        index.pod_protocols(pod, facts).lookup(port).is_opaque(),
    ) {
        (_, true) => Spoken::Opaque,
        (true, false) => Spoken::Http,
        (false, false) => Spoken::Bytes,
    };
    pod_access.access().passes(proven, port, spoken)
}

impl Calls {
    /// The pods that are called by their own addresses, or by Kubernetes' choice, each with
    /// its port.
    fn direct(&self, index: &Index) -> BTreeMap<PodId, u16> {
        let Some(service) = &self.service else {
            let pods = self.to.iter().cloned();
            return pods.map(|pod| (pod, self.port)).collect();
        };
        endpoints(index, service, self.port)
    }
}

#[cfg(test)]
mod tests;
