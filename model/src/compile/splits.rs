//! Compiles TrafficSplits, and decides which of them, and of releases, are in force on which
//! Service.

use std::collections::{BTreeMap, BTreeSet};

use crds::smi::validation::{Backend, ServiceRef};
use policy::{
    name::{Kind, ObjectRef},
    route::Match,
};

use super::findings::{About, Findings};
use super::releases::{self, Claim};
use super::routes::{MOST_BYTES, MOST_COMPILED, Routes};
use crate::{
    model::{Split, published},
    problem::{Reason, few},
    world::{ObjectKey, ServiceFacts, SplitFacts, World, object, origin},
};

/// The rules in force by root Service, in order of precedence: those with matches by age, then the
/// oldest without. Also the releases that hold their Service.
pub(super) fn by_root<'a>(
    world: &'a World,
    routes: &Routes,
    findings: &mut Findings,
) -> (BTreeMap<ObjectKey, Vec<Split>>, Vec<Claim<'a>>) {
    let mut roots: BTreeMap<ObjectKey, Vec<Split>> = BTreeMap::new();
    let mut sizes = BTreeMap::new();
    for (key, facts) in world.splits.iter() {
        let this = object(Kind::TrafficSplit, key);
        findings.seen(this.clone(), &facts.meta, summary(facts));
        let mut about = findings.about(&this, facts.meta.generation);
        about.add_mistakes(&facts.meta.mistakes);
        let reading = Reading {
            world,
            routes,
            key,
            facts,
            about,
        };
        if let Some((root, split, size)) = reading.split() {
            sizes.insert(split.origin.clone(), size);
            roots.entry(root).or_default().push(split);
        }
    }
    let mut claims = releases::claims(world, routes, findings);
    for claim in &claims {
        let splits = roots.entry(claim.root.clone()).or_default();
        splits.extend(claim.splits(routes));
    }
    let mut beaten = BTreeSet::new();
    for splits in roots.values_mut() {
        beaten.extend(settle(splits, findings));
        // Of a release that is beaten, or without a run, nothing is left.
        let is_release = |split: &Split| split.origin.kind == Kind::CanaryRelease;
        splits.retain(|split| {
            !is_release(split) || split.release.is_some() && !beaten.contains(&split.origin)
        });
        keep_within_bounds(splits, &sizes, findings);
    }
    claims.retain(|claim| !beaten.contains(&claim.object));
    (roots, claims)
}

/// Brings the rules of one Service in order, and takes those out that an older one without matches
/// beats. Returns the objects of these.
fn settle(splits: &mut Vec<Split>, findings: &mut Findings) -> Vec<ObjectRef> {
    splits.sort_by(|a, b| {
        let rank = |s: &Split| (s.when == Match::Always, s.created);
        rank(a)
            .cmp(&rank(b))
            .then_with(|| a.origin.name.cmp(&b.origin.name))
            .then_with(|| a.origin.cmp(&b.origin))
    });
    let first = splits.iter().position(|split| split.when == Match::Always);
    let Some(first) = first else {
        return Vec::new();
    };
    let (winner, created) = (splits[first].origin.clone(), splits[first].created);
    let mut beaten = Vec::new();
    for split in splits.drain(first + 1..) {
        let generation = generation(&split);
        let why = if created < split.created {
            "is older"
        } else {
            "is as old and the first by name"
        };
        let (kind, name) = (winner.kind, &winner.name);
        let message = format!("{kind} {name} splits this Service already, and {why}");
        let mut about = findings.about(&split.origin, generation);
        about.refuse(Reason::Conflicted, "spec.service", message);
        beaten.push(split.origin);
    }
    beaten
}

/// What a split takes in the resource of each port of its Service, and at its callers.
#[derive(Clone, Copy, Debug, Default)]
struct SplitSize {
    /// Of matches.
    matches: usize,
    backends: usize,
    /// Of the expressions of its matches, as callers' proxies hold them compiled.
    compiled: usize,
}

impl SplitSize {
    const fn and(self, other: Self) -> Self {
        Self {
            matches: self.matches + other.matches,
            backends: self.backends + other.backends,
            compiled: self.compiled + other.compiled,
        }
    }

    /// The field of `split` with which all splits of its Service together take so much, and why
    /// that is too much; `None` if there is room.
    fn excess(self, split: &ObjectRef) -> Option<(&'static str, String)> {
        if self.compiled > MOST_COMPILED {
            let message = format!(
                "with the expressions of {split} those of all splits of this Service take more \
                 than {} MiB when compiled; the split has no effect: write plain paths and values \
                 in place of expressions, here or in the older splits",
                MOST_COMPILED / (1024 * 1024)
            );
            return Some(("spec.matches", message));
        }
        let (field, what) = if self.matches > MOST_BYTES {
            ("spec.matches", "matches")
        } else if self.backends > MOST_BYTES {
            ("spec.backends", "backends")
        } else {
            return None;
        };
        let message = format!(
            "with the {what} of {split} those of all splits of this Service are more than {} KiB; \
             the split has no effect: delete or shorten older splits",
            MOST_BYTES / 1024
        );
        Some((field, message))
    }
}

/// Takes out the splits with which those of one Service would take too much in a resource or at
/// its callers, the youngest first: a resource that is larger than a message may be would cut every
/// caller off from the controller. A split without matches stays, of which there is one; the steps
/// of a release are bounded by themselves.
fn keep_within_bounds(
    splits: &mut Vec<Split>,
    sizes: &BTreeMap<ObjectRef, SplitSize>,
    findings: &mut Findings,
) {
    let mut taken = SplitSize::default();
    splits.retain(|split| {
        if split.when == Match::Always {
            return true;
        }
        let own = sizes.get(&split.origin).copied().unwrap_or_default();
        let together = taken.and(own);
        let Some((field, message)) = together.excess(&split.origin) else {
            taken = together;
            return true;
        };
        let mut about = findings.about(&split.origin, generation(split));
        about.refuse(Reason::Invalid, field, message);
        false
    });
}

/// Of the object that a split is written in.
fn generation(split: &Split) -> i64 {
    let mut origins = split.origins.iter();
    let own = origins.find(|(object, _)| *object == split.origin);
    own.map_or(0, |(_, generation)| *generation)
}

fn summary(facts: &SplitFacts) -> String {
    let backends = facts.spec.backends.iter();
    few(backends.map(|backend| format!("{} {}", backend.service.written, backend.weight)))
}

struct Reading<'a> {
    world: &'a World,
    routes: &'a Routes,
    key: &'a ObjectKey,
    facts: &'a SplitFacts,
    about: About<'a>,
}

impl Reading<'_> {
    /// The root, the split, and what it takes, unless the object has no effect.
    fn split(mut self) -> Option<(ObjectKey, Split, SplitSize)> {
        let root = self.root();
        let mut origins = vec![origin(Kind::TrafficSplit, self.key, &self.facts.meta)];
        let when = self.when(&mut origins);
        let (root, (when, size)) = (root?, when.ok()?);
        if !self.facts.spec.weights_fit {
            return None;
        }
        let service = self.world.services.get(&root)?.clone();
        let backends = self.backends(&root, &service);
        let lens = backends.iter();
        let lens = lens.map(|(service, weight)| published::split_backend_len(service, *weight));
        let size = SplitSize {
            backends: lens.sum(),
            ..size
        };
        let split = Split {
            origin: object(Kind::TrafficSplit, self.key),
            origins,
            created: self.facts.meta.created,
            when,
            backends,
            release: None,
        };
        Some((root, split, size))
    }

    fn root(&mut self) -> Option<ObjectKey> {
        let root = key(&self.facts.spec.root)?;
        let Some(service) = self.world.services.get(&root) else {
            let message = format!("there is no Service {}", root.name);
            self.about
                .unresolved(Reason::RefNotFound, "spec.service", message);
            return None;
        };
        if service.external_name.is_some() {
            let message = format!("{} is of type ExternalName and cannot be split", root.name);
            self.about
                .refuse(Reason::UnsupportedService, "spec.service", message);
            return None;
        }
        if service.headless {
            let message = format!(
                "{} is headless: HTTP requests that name it are split, other traffic is not",
                root.name
            );
            self.about
                .warn(Reason::UnsupportedService, "spec.service", message);
        }
        Some(root)
    }

    /// The matches of all groups together, and what they take.
    fn when(
        &mut self,
        origins: &mut Vec<(ObjectRef, i64)>,
    ) -> Result<(Match, SplitSize), Inactive> {
        let mut size = SplitSize::default();
        if self.facts.spec.groups.is_empty() {
            return Ok((Match::Always, size));
        }
        let mut matches = Vec::new();
        let mut complete = Ok(());
        for (i, group) in self.facts.spec.groups.iter().enumerate() {
            let Some(name) = group else {
                complete = Err(Inactive);
                continue;
            };
            match self.routes.group(&self.key.namespace, name) {
                Some(group) if !origins.contains(&group.origin) => {
                    matches.extend(group.all().map(|usable| usable.one.clone()));
                    for usable in group.all() {
                        size.matches += usable.bytes;
                        size.compiled += usable.one.compiled_size();
                    }
                    origins.push(group.origin.clone());
                }
                Some(_) => {}
                None => {
                    let message =
                        format!("there is no HTTPRouteGroup {name}; the split has no effect");
                    let field = format!("spec.matches[{i}].name");
                    self.about.unresolved(Reason::RefNotFound, &field, message);
                    complete = Err(Inactive);
                }
            }
        }
        if size.matches > MOST_BYTES {
            let message = format!(
                "name matches of more than {} KiB; the split has no effect",
                MOST_BYTES / 1024
            );
            self.about.refuse(Reason::Invalid, "spec.matches", message);
            return Err(Inactive);
        }
        complete.map(|()| (Match::AnyOf(matches), size))
    }

    /// The backends that exist, without repetition.
    fn backends(&mut self, root: &ObjectKey, root_facts: &ServiceFacts) -> Vec<(ObjectKey, u32)> {
        let mut backends: Vec<(ObjectKey, u32)> = Vec::new();
        for (i, backend) in self.facts.spec.backends.iter().enumerate() {
            let field = format!("spec.backends[{i}].service");
            let Backend { service, weight } = backend;
            let (Some(service), weight) = (key(service), *weight) else {
                continue;
            };
            if let Some((_, sum)) = backends.iter_mut().find(|(known, _)| *known == service) {
                *sum = sum.saturating_add(weight);
                continue;
            }
            match self.world.services.get(&service) {
                None => {
                    let message = format!("there is no Service {}", service.name);
                    self.missing(&service, Reason::RefNotFound, &field, message);
                }
                Some(facts) if facts.external_name.is_some() => {
                    let message = format!("{} is of type ExternalName", service.name);
                    self.about
                        .unresolved(Reason::UnsupportedService, &field, message);
                }
                Some(facts) => {
                    if service != *root {
                        self.compare_ports(&field, &service, facts, root_facts);
                    }
                    backends.push((service, weight));
                }
            }
        }
        let stranded: Vec<String> = root_facts
            .ports
            .iter()
            .map(|port| port.number)
            .filter(|number| {
                !backends
                    .iter()
                    .any(|(key, w)| *w > 0 && self.has(key, *number))
            })
            .map(|number| number.to_string())
            .collect();
        if !stranded.is_empty() {
            let message = format!(
                "no backend with a weight takes port {}; where this split decides, it answers 503",
                few(&stranded)
            );
            self.about
                .unresolved(Reason::NoUsableBackend, "spec.backends", message);
        }
        backends
    }

    /// Reports that a backend is not there, or not on every port. One that gets no traffic takes
    /// nothing away by that: canary tools name a backend before they make it, and weigh it 0 until
    /// then.
    fn missing(&mut self, backend: &ObjectKey, reason: Reason, field: &str, message: String) {
        let backends = self.facts.spec.backends.iter();
        let named = backends.filter(|one| key(&one.service).as_ref() == Some(backend));
        if named.clone().any(|one| one.weight > 0) {
            self.about.unresolved(reason, field, message);
        } else {
            let message = format!("{message}; its weight is 0");
            self.about.caution(reason, field, message);
        }
    }

    fn has(&self, service: &ObjectKey, number: u16) -> bool {
        let service = self.world.services.get(service);
        service.is_some_and(|facts| facts.ports.iter().any(|port| port.number == number))
    }

    fn compare_ports(
        &mut self,
        field: &str,
        service: &ObjectKey,
        facts: &ServiceFacts,
        root: &ServiceFacts,
    ) {
        let has = |number| facts.ports.iter().any(|port| port.number == number);
        let missing: Vec<String> = root
            .ports
            .iter()
            .filter(|port| !has(port.number))
            .map(|port| port.number.to_string())
            .collect();
        if !missing.is_empty() {
            let message = format!("{} has no port {}", service.name, few(&missing));
            self.missing(service, Reason::PortNotFound, field, message);
        }
    }
}

/// The Service that is meant, if it can be one of the split's namespace.
fn key(service: &ServiceRef) -> Option<ObjectKey> {
    let id = service.id.as_ref()?;
    Some(ObjectKey {
        namespace: id.namespace.clone(),
        name: id.name.clone(),
    })
}

/// The split has no effect; the reason has been reported.
#[derive(Clone, Copy, Debug)]
struct Inactive;
