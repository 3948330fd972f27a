//! Plans which NetworkPolicies should exist, and which problems to report about them.
//!
//! The unit is the service account: its pods get policies together or not at all. They get none
//! when some of them are in a mode that refuses nothing, because labels cannot distinguish them
//! from the others, nor when a foreign policy selects one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::labels::short_hash;
use k8s_openapi::api::networking::v1::{NetworkPolicyIngressRule, NetworkPolicySpec};
use model::{
    Defaults, Model, modes,
    problem::few,
    world::{Annotations, ObjectKey, World},
};
use policy::mode::AccessMode;

use super::{
    live::{Lives, PREFIX},
    permit::{self, Permit, Ports},
    pods::{Pod, Pods},
    selector::Labels,
    shape,
};

/// Peers and ports in the policies of one account. About 200 bytes each, and an object
/// may have 1.5 MB.
const MAX_ENTRIES: usize = 4096;

/// What should stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) policies: BTreeMap<ObjectKey, NetworkPolicySpec>,
    /// For every TrafficTarget with a UDPRoute, what it needs and what it lacks.
    pub(super) targets: BTreeMap<ObjectKey, TargetNeeds>,
    /// Accounts that should have a policy and cannot, with the reason. Also those that
    /// no target names.
    pub(super) unprotected: BTreeMap<ObjectKey, Lack>,
}

/// What one target needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TargetNeeds {
    pub(super) generation: i64,
    /// UDPRoutes that it names and that exist, with their generations.
    pub(super) routes: BTreeMap<Arc<str>, i64>,
    /// Policies in which it has its say.
    pub(super) policies: BTreeSet<ObjectKey>,
    /// Why it is not, or not wholly, in force; worst first.
    pub(super) lacks: BTreeSet<Lack>,
}

/// Why UDP is not filtered as a target says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lack {
    pub(super) reason: LackReason,
    pub(super) message: String,
}

/// Worst first: the first one becomes the condition's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LackReason {
    /// Another owner's ingress policy selects a pod.
    ForeignNetworkPolicy,
    /// Pods of one account are in modes that close and in modes that do not.
    MixedAccessModes,
    /// A policy would be too large.
    TooManyRules,
    /// A pod carries the label of an account that is not its own.
    FalseAccountLabel,
    /// Pods are older than the label.
    PodsNotLabelled,
}

impl LackReason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ForeignNetworkPolicy => "ForeignNetworkPolicy",
            Self::MixedAccessModes => "MixedAccessModes",
            Self::TooManyRules => "TooManyRules",
            Self::FalseAccountLabel => "FalseAccountLabel",
            Self::PodsNotLabelled => "PodsNotLabelled",
        }
    }
}

/// Decides; see the module.
pub(super) fn plan(model: &Model, lives: &Lives) -> Plan {
    let (world, defaults) = (&model.index.world, &model.index.defaults);
    let pods = Pods::new(world);
    let mut targets: Vec<_> = world
        .targets
        .iter()
        .filter_map(|(key, facts)| {
            let permit = permit::read(world, &pods, &model.index.bindings, key, facts)?;
            Some((key, facts, permit))
        })
        .collect();
    // Where there is room for some only, the oldest have it.
    targets.sort_by_key(|(key, facts, _)| (facts.meta.created, *key));

    let mut accounts: BTreeMap<&ObjectKey, Account<'_>> = BTreeMap::new();
    for account in pods.accounts().filter(|a| !pods.labelled(a).is_empty()) {
        accounts.entry(account).or_default();
    }
    for (key, _, permit) in &targets {
        for (account, labels) in &permit.destinations {
            let sayings = &mut accounts.entry(account).or_default().sayings;
            sayings.push((key, permit, labels.as_ref()));
        }
    }

    let mut plan = Plan::default();
    for (key, facts, _) in &targets {
        if permit::names_udp(facts) {
            let needs = plan.targets.entry((*key).clone()).or_default();
            needs.generation = facts.meta.generation;
            let routes = permit::udp_routes(world, key, facts);
            needs.routes = routes.collect();
        }
    }
    let foreign = Foreign::new(lives);
    for (account, about) in accounts {
        let planner = Planner {
            world,
            defaults,
            pods: &pods,
            foreign: &foreign,
            account,
            about,
        };
        planner.settle(&mut plan);
    }
    plan
}

/// What targets say about one account: which sources, which ports, and about which of its pods.
#[derive(Default)]
struct Account<'a> {
    sayings: Vec<(&'a ObjectKey, &'a Permit, Option<&'a Labels>)>,
}

/// Policies of others, by namespace.
struct Foreign<'a>(BTreeMap<&'a str, Vec<(&'a ObjectKey, &'a super::live::Live)>>);

impl<'a> Foreign<'a> {
    fn new(lives: &'a Lives) -> Self {
        let mut found: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (key, live) in lives.iter().filter(|(_, live)| !live.ours) {
            let here = found.entry(&*key.namespace).or_default();
            here.push((key, live.as_ref()));
        }
        Self(found)
    }

    fn of_pod(&self, (pod, facts): Pod<'_>) -> Option<&'a ObjectKey> {
        let here = self.0.get(&*pod.namespace)?;
        let limits = |(_, live): &&(_, &super::live::Live)| live.limits_ingress(&facts.labels);
        here.iter().find(limits).map(|(key, _)| *key)
    }
}

struct Planner<'a> {
    world: &'a World,
    defaults: &'a Defaults,
    pods: &'a Pods<'a>,
    foreign: &'a Foreign<'a>,
    account: &'a ObjectKey,
    about: Account<'a>,
}

impl Planner<'_> {
    fn settle(&self, plan: &mut Plan) {
        let obstacle = match self.obstacle() {
            Ok(true) => None,
            // Nothing is refused in these modes, so nothing is missing.
            Ok(false) => return,
            Err(obstacle) => Some(obstacle),
        };
        let older = self.older_than_the_label();
        for (target, permit, _) in &self.about.sayings {
            let Some(needs) = plan.targets.get_mut(*target) else {
                continue;
            };
            needs.lacks.extend(obstacle.iter().chain(&older).cloned());
            needs.lacks.extend(self.callers_left_out(permit));
        }
        if let Some(obstacle) = obstacle {
            plan.unprotected.insert(self.account.clone(), obstacle);
        } else {
            self.write(plan);
        }
    }

    /// Whether the account's pods refuse UDP by default; an error when that cannot be
    /// brought about.
    fn obstacle(&self) -> Result<bool, Lack> {
        let selected = self.pods.labelled(self.account);
        // The modes are a matter of the mesh's pods. A pod that carries the label without a proxy
        // is to be treated as they are.
        let (closed, open): (Vec<_>, Vec<_>) = selected
            .iter()
            .filter(|(_, facts)| facts.proxy.is_some())
            .partition(|pod| self.closes(&pod.1.annotations, Some(*pod)));
        if closed.is_empty() {
            let before_pods = open.is_empty() && self.closes(&Annotations::default(), None);
            if !before_pods {
                return Ok(false);
            }
        }
        if let Some((pod, _)) = open.first() {
            return Err(Lack {
                reason: LackReason::MixedAccessModes,
                message: format!(
                    "service account {} has pods that refuse by default ({}) and pods that do not \
                     ({}), and NetworkPolicies cannot tell them apart; give them accounts of \
                     their own",
                    self.account,
                    few(closed.iter().map(|(pod, _)| &pod.name)),
                    pod.name,
                ),
            });
        }
        let mut selected = selected.iter();
        match selected.find_map(|pod| Some((pod.0, self.foreign.of_pod(*pod)?))) {
            None => Ok(true),
            Some((pod, policy)) => Err(Lack {
                reason: LackReason::ForeignNetworkPolicy,
                message: format!(
                    "NetworkPolicy {} selects pod {}, and what Weft allows would be added to it; \
                     UDP to service account {} is not filtered by Weft: add UDP to that policy, \
                     or let it select other pods",
                    policy.name, pod.name, self.account
                ),
            }),
        }
    }

    /// Whether a pod of the account refuses UDP that no target allows. Without a pod:
    /// one that has no mode of its own.
    fn closes(&self, annotations: &Annotations, pod: Option<&Pod<'_>>) -> bool {
        let namespace = self.world.namespace(&self.account.namespace);
        match modes::access(self.defaults, namespace, annotations) {
            AccessMode::Deny => true,
            AccessMode::Auto => self.about.sayings.iter().any(|(_, permit, labels)| {
                let concerns = labels.is_none_or(|labels| {
                    pod.is_some_and(|(_, facts)| {
                        let mut labels = labels.iter();
                        labels.all(|(name, value)| facts.labels.get(name) == Some(value))
                    })
                });
                permit.closes && concerns
            }),
            AccessMode::Open | AccessMode::Audit => false,
        }
    }

    fn older_than_the_label(&self) -> Option<Lack> {
        older(self.pods, self.account, "UDP to them is not filtered")
    }

    /// Callers that the target allows and that the policy cannot name.
    fn callers_left_out(&self, permit: &Permit) -> Vec<Lack> {
        let accounts = permit.peers.iter().filter_map(|peer| match peer {
            permit::Peer::Account(account) => Some(account),
            _ => None,
        });
        accounts
            .filter_map(|account| {
                let pretender = self.pods.pretender(account).map(|pod| Lack {
                    reason: LackReason::FalseAccountLabel,
                    message: format!(
                        "pod {pod} carries the label of service account {account} and runs as \
                         another one; that account is left out until the pod is gone"
                    ),
                });
                pretender.or_else(|| older(self.pods, account, "UDP from them is refused"))
            })
            .collect()
    }

    fn write(&self, plan: &mut Plan) {
        let namespace = &self.world.namespace(&self.account.namespace);
        if namespace.is_some_and(|namespace| namespace.terminating) {
            return;
        }
        let hash = self.pods.hash(self.account);
        let name = |suffix: &str| ObjectKey {
            namespace: self.account.namespace.clone(),
            name: format!("{PREFIX}{hash}{suffix}").into(),
        };
        let mut rules: BTreeMap<Option<&Labels>, Vec<NetworkPolicyIngressRule>> = BTreeMap::new();
        rules.insert(None, vec![shape::not_udp()]);
        let mut room = MAX_ENTRIES;
        for (target, permit, labels) in &self.about.sayings {
            let mut needs = plan.targets.get_mut(*target);
            let ports = match &permit.ports {
                Ports::Any => 1,
                Ports::Only(ports) => ports.len(),
            };
            let entries = permit.peers.len() + ports;
            let says_something = !permit.peers.is_empty() && !permit.ports.is_none();
            // Before the peers are looked at, which costs the more the less room there is.
            if says_something && entries > room {
                if let Some(needs) = needs {
                    needs.lacks.insert(self.too_many());
                }
                continue;
            }
            if let Some(needs) = &mut needs {
                needs.policies.insert(name(""));
            }
            if !says_something {
                continue;
            }
            let trusted = permit.peers.iter().filter(|peer| match peer {
                permit::Peer::Account(account) => self.pods.pretender(account).is_none(),
                _ => true,
            });
            let rule = shape::udp(&trusted.collect(), &permit.ports, self.pods);
            if let (Some(needs), true) = (needs, rule.is_some()) {
                let suffix = labels.map(suffix).unwrap_or_default();
                needs.policies.insert(name(&suffix));
            }
            if let Some(rule) = rule {
                room -= entries;
                rules.entry(*labels).or_default().push(rule);
            }
        }
        for (labels, ingress) in rules {
            let suffix = labels.map(suffix).unwrap_or_default();
            let spec = shape::policy(&hash, labels, ingress);
            plan.policies.insert(name(&suffix), spec);
        }
    }

    fn too_many(&self) -> Lack {
        Lack {
            reason: LackReason::TooManyRules,
            message: format!(
                "the targets for service account {} have more than {MAX_ENTRIES} sources and UDP \
                 ports together; the older ones are in force",
                self.account
            ),
        }
    }
}

fn older(pods: &Pods<'_>, account: &ObjectKey, so: &str) -> Option<Lack> {
    let older: Vec<&Arc<str>> = pods.unlabelled(account).map(|pod| &pod.name).collect();
    (!older.is_empty()).then(|| Lack {
        reason: LackReason::PodsNotLabelled,
        message: format!(
            "pods {} of service account {account} lack the label {}, {so}: they are older than \
             it, restart them",
            few(older),
            crds::labels::ACCOUNT
        ),
    })
}

/// The part of the name that distinguishes the policies for some pods of an account.
fn suffix(labels: &Labels) -> String {
    // No label holds a line break.
    let lines = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"));
    format!("-{}", short_hash(&lines.collect::<String>()))
}
