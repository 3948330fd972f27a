//! Compiled TrafficTargets, indexed by the pods that they protect.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use policy::{
    access::{Ports, Rule, Source},
    name::ObjectRef,
};

use super::published::EncodedResource;
use crate::world::{ObjectKey, PodFacts};

/// Every TrafficTarget that protects an account.
#[derive(Debug, Default)]
pub struct Targets {
    all: Vec<Target>,
    /// Places in `all` by account (namespace, account).
    by_account: BTreeMap<ObjectKey, Vec<usize>>,
    /// Places in `all` by pod, for targets that name pods by label.
    by_pod: BTreeMap<ObjectKey, Vec<usize>>,
}

impl Targets {
    /// Adds a target for all pods of these accounts, and for these pods.
    pub(crate) fn add(
        &mut self,
        target: Target,
        accounts: impl IntoIterator<Item = ObjectKey>,
        pods: impl IntoIterator<Item = ObjectKey>,
    ) {
        let index = self.all.len();
        self.all.push(target);
        for account in accounts {
            self.by_account.entry(account).or_default().push(index);
        }
        for pod in pods {
            self.by_pod.entry(pod).or_default().push(index);
        }
    }

    /// The targets that protect a pod, each once and in one order.
    pub fn of(&self, pod: &ObjectKey, facts: &PodFacts) -> impl Iterator<Item = &Target> {
        let account = ObjectKey {
            namespace: pod.namespace.clone(),
            name: facts.service_account.clone(),
        };
        let lists = [self.by_account.get(&account), self.by_pod.get(pod)];
        let indices: BTreeSet<usize> = lists.into_iter().flatten().flatten().copied().collect();
        indices.into_iter().filter_map(|index| self.all.get(index))
    }

    /// What the targets allow, in one order.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.all.iter().filter_map(|target| target.rule.as_ref());
        rules.map(|rule| &rule.rule)
    }

    /// Which of the rules name the pod with this uid among their callers, by their places.
    pub(crate) fn naming(&self, uid: &str) -> Vec<usize> {
        let names = |source: &Source| match source {
            Source::Pods(uids) => uids.iter().any(|one| **one == *uid),
            Source::Identity(_) | Source::Authenticated | Source::Unauthenticated => false,
        };
        let rules = self.rules().enumerate();
        rules
            .filter(|(_, rule)| rule.sources.iter().any(names))
            .map(|(place, _)| place)
            .collect()
    }

    /// Every target with the accounts and the pods that it is about.
    pub(super) fn about(&self) -> impl Iterator<Item = (&Target, About<'_>)> {
        let mut about: Vec<About<'_>> = self.all.iter().map(|_| About::default()).collect();
        for (account, indices) in &self.by_account {
            for index in indices {
                if let Some(about) = about.get_mut(*index) {
                    about.accounts.push(account);
                }
            }
        }
        for (pod, indices) in &self.by_pod {
            for index in indices {
                if let Some(about) = about.get_mut(*index) {
                    about.pods.push(pod);
                }
            }
        }
        self.all.iter().zip(about)
    }

    /// Whether the two say the same, whatever was encoded of them so far.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.by_account == other.by_account
            && self.by_pod == other.by_pod
            && self.all.len() == other.all.len()
            && self
                .all
                .iter()
                .zip(&other.all)
                .all(|(one, other)| one.same(other))
    }
}

/// The pods that a target is about.
#[derive(Debug, Default)]
pub(super) struct About<'a> {
    pub(super) accounts: Vec<&'a ObjectKey>,
    pub(super) pods: Vec<&'a ObjectKey>,
}

/// A TrafficTarget, as far as it concerns the pods that it protects.
#[derive(Debug)]
pub struct Target {
    pub origin: (ObjectRef, i64),
    /// Whether it closes its destination in mode auto.
    pub(crate) protects: bool,
    /// What it allows; `None` if nothing.
    pub rule: Option<TargetRule>,
}

impl Target {
    /// Whether the two say the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.origin == other.origin
            && self.protects == other.protects
            && match (&self.rule, &other.rule) {
                (None, None) => true,
                (Some(one), Some(other)) => one.same(other),
                _ => false,
            }
    }
}

impl TargetRule {
    /// The ports that are written in it.
    pub fn written(&self) -> impl Iterator<Item = u16> {
        let sets = self.rule.ports.iter().chain(&self.rule.limit);
        let written = sets.filter_map(|set| match set {
            Ports::Any => None,
            Ports::Only(ports) => Some(ports),
        });
        written.flatten().copied()
    }

    /// As one pod's proxy gets it: with that pod's own ports.
    pub fn on(&self, pod: &ObjectKey) -> Rule {
        match self.mapped.get(pod) {
            None => self.rule.clone(),
            Some(mapped) => Rule {
                ports: mapped.ports.clone(),
                limit: mapped.limit.clone(),
                ..self.rule.clone()
            },
        }
    }

    fn same(&self, other: &Self) -> bool {
        self.rule == other.rule && self.origins == other.origins && self.mapped == other.mapped
    }
}

/// What a TrafficTarget allows.
#[derive(Debug)]
pub struct TargetRule {
    /// Complete, with ports as written.
    pub rule: Rule,
    pub(crate) origins: Vec<(ObjectRef, i64)>,
    /// By pod; pods that are not listed take the ports as written.
    pub(crate) mapped: BTreeMap<ObjectKey, Mapped>,
    pub(crate) published: OnceLock<Arc<EncodedResource>>,
}

/// Container ports that stand for the written ports of a rule on one pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mapped {
    pub(crate) ports: Option<Ports>,
    pub(crate) limit: Option<Ports>,
}
