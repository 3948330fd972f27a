//! Which policies count at a Service port, and what the others are told of it, once each.
//!
//! Whoever may write in a namespace may write policies for its Services, which lie in the
//! proxies of callers elsewhere. So there are bounds for each port, and what goes beyond
//! is told in one sentence of the policy, however many Services it is about.

use std::{collections::BTreeMap, fmt::Display};

use policy::{
    name::ServiceId,
    traffic::{Target, bounds::POLICIES_PER_SERVICE, precedence::order},
};

use super::candidate::PolicyCandidate;
use crate::{compile::findings::Findings, problem::Reason};

/// Most bytes that policies say of one port of a Service. Callers hold them for each port
/// that they call, and refuse messages far above.
pub(super) const MOST_BYTES: usize = 512 * 1024;

/// Candidates by what they are about, so that not every Service has to ask all.
pub(super) struct ByTarget<'a> {
    /// In order of precedence.
    candidates: Vec<&'a PolicyCandidate>,
    /// Places in that order, ascending.
    services: BTreeMap<&'a ServiceId, Vec<usize>>,
    namespaces: BTreeMap<&'a str, Vec<usize>>,
    mesh: Vec<usize>,
    /// How each fares, by place.
    fates: Vec<Fate>,
}

/// Where a policy counts, and where it does not.
#[derive(Clone, Debug, Default)]
struct Fate {
    counts: bool,
    /// The first place where it does not, in words.
    first: Option<String>,
    /// How many there are.
    occurrences: usize,
}

impl<'a> ByTarget<'a> {
    pub(super) fn new(candidates: &'a [PolicyCandidate]) -> Self {
        let mut ordered: Vec<&PolicyCandidate> = candidates.iter().collect();
        ordered.sort_by(|one, other| order(&one.policy, &other.policy));
        let mut by_target = Self {
            fates: vec![Fate::default(); ordered.len()],
            candidates: ordered,
            services: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            mesh: Vec::new(),
        };
        for (index, candidate) in by_target.candidates.iter().enumerate() {
            let here = match &candidate.policy.target {
                Target::Port(service, _) | Target::Service(service) => {
                    by_target.services.entry(service).or_default()
                }
                Target::Namespace(namespace) => by_target.namespaces.entry(namespace).or_default(),
                Target::Mesh => &mut by_target.mesh,
            };
            here.push(index);
        }
        by_target
    }

    /// The places of those that count for a Service, in order of precedence.
    pub(super) fn about(&mut self, service: &ServiceId) -> Vec<usize> {
        let own = self.services.get(service).into_iter().flatten();
        let near = self.namespaces.get(&*service.namespace);
        let near = near.into_iter().flatten();
        let mut about: Vec<usize> = own.chain(near).chain(&self.mesh).copied().collect();
        about.sort_unstable();
        for late in about.drain(POLICIES_PER_SERVICE.min(about.len())..) {
            self.fates[late].left_out(|| {
                format!("{POLICIES_PER_SERVICE} TrafficPolicies come before this one at {service}")
            });
        }
        about
    }

    /// Of those about a Service, the ones that count at a port: as many as there is room
    /// for.
    pub(super) fn at(
        &mut self,
        about: &[usize],
        service: &ServiceId,
        port: u16,
    ) -> Vec<&'a PolicyCandidate> {
        let mut room = MOST_BYTES;
        let mut here = Vec::new();
        for index in about {
            let candidate = self.candidates[*index];
            if !candidate.policy.target.covers(service, port) {
                continue;
            }
            let fate = &mut self.fates[*index];
            if let Some(rest) = room.checked_sub(candidate.bytes) {
                room = rest;
                fate.counts = true;
                here.push(candidate);
            } else {
                fate.left_out(|| {
                    format!(
                        "with those before it TrafficPolicies say more than {} KiB of \
                         {service}:{port}, each section and limit with its own routes and sources",
                        MOST_BYTES / 1024
                    )
                });
            }
        }
        here
    }

    /// Tells those that do not count somewhere. One that does elsewhere is accepted: who comes
    /// before it is often somebody else, and could switch off its condition at will.
    pub(super) fn report(self, findings: &mut Findings) {
        for (candidate, fate) in self.candidates.iter().zip(self.fates) {
            let Some(first) = fate.first else { continue };
            let more = more(fate.occurrences);
            let message = format!("{first}{more}, and more do not count; it has no effect there");
            let mut about = findings.about(&candidate.object, candidate.generation);
            if fate.counts {
                about.warn(Reason::PartlyOverridden, "spec.targetRef", message);
            } else {
                about.refuse(Reason::Invalid, "spec.targetRef", message);
            }
        }
    }
}

impl Fate {
    fn left_out<T: Display>(&mut self, words: impl FnOnce() -> T) {
        self.occurrences += 1;
        self.first.get_or_insert_with(|| words().to_string());
    }
}

/// What follows the first of so many places.
pub(super) fn more(occurrences: usize) -> String {
    match occurrences {
        0 | 1 => String::new(),
        occurrences => format!(" (and {} more)", occurrences - 1),
    }
}
