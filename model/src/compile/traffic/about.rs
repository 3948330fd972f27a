//! Selects the TrafficPolicies that count at each Service port, within bounds, and reports the
//! others once each.
//!
//! The author of any policy in a namespace may write policies for its Services, and the proxies of
//! callers elsewhere hold them. So each port has bounds, and the excess is reported in one
//! sentence of the policy, however many Services it is about.
//!
//! Policies that set nothing, or that others take precedence over, are sent to no proxy. They do
//! not count towards the bounds, and are reported elsewhere.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Display,
};

use policy::{
    http_match::HttpMatch,
    name::ServiceId,
    route::Match,
    traffic::{
        Policy, Section, Target,
        bounds::POLICIES_PER_SERVICE,
        precedence::{Calls, Decided, Lost, order},
    },
};

use super::candidate::PolicyCandidate;
use crate::{
    compile::{findings::Findings, routes::MOST_COMPILED},
    problem::Reason,
};

/// Max bytes of policies at one port of a Service. Callers hold them for each port that they call,
/// and refuse messages far above.
pub(super) const MOST_BYTES: usize = 512 * 1024;
/// Max policies that are evaluated at one Service for those that decide something there. Each is
/// compared with all that do, at every port. A policy that sets nothing there is not evaluated.
const MAX_COMPARED: usize = 4 * POLICIES_PER_SERVICE;

/// Candidates by what they are about, so that not every Service has to evaluate all.
pub(super) struct ByTarget<'a> {
    /// In order of precedence.
    candidates: Vec<&'a PolicyCandidate>,
    /// Places in that order, ascending.
    services: BTreeMap<&'a ServiceId, Vec<usize>>,
    namespaces: BTreeMap<&'a str, Vec<usize>>,
    mesh: Vec<usize>,
    /// How each fares, by place.
    coverages: Vec<Coverage>,
    /// The calls of each, by place; `None` as long as there was room for all.
    calls: Option<Vec<Calls>>,
}

/// The policies of one port.
pub(super) struct Counting<'a> {
    /// Those that may decide something, in order of precedence.
    pub(super) policies: Vec<&'a PolicyCandidate>,
    /// What those lose that decide nothing, where they are not among these. However large they are,
    /// they cost no other policy anything.
    pub(super) lost: Vec<Lost>,
}

/// Where a policy counts, and where it does not.
#[derive(Clone, Debug, Default)]
struct Coverage {
    counts: bool,
    /// The first place where it does not, as text.
    first: Option<String>,
    /// How many there are.
    occurrences: usize,
}

impl<'a> ByTarget<'a> {
    pub(super) fn new(candidates: &'a [PolicyCandidate]) -> Self {
        let mut ordered: Vec<&PolicyCandidate> = candidates.iter().collect();
        ordered.sort_by(|one, other| order(&one.policy, &other.policy));
        let mut by_target = Self {
            coverages: vec![Coverage::default(); ordered.len()],
            candidates: ordered,
            services: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            mesh: Vec::new(),
            calls: None,
        };
        for (index, candidate) in by_target.candidates.iter().enumerate() {
            if candidate.policy.is_void() {
                continue;
            }
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

    /// Of each of these ports of a Service those that count there. `says`: the sections of a policy
    /// that apply at a port of it.
    pub(super) fn at(
        &mut self,
        service: &ServiceId,
        ports: &[u16],
        says: impl Fn(&Policy, u16) -> Vec<Section>,
    ) -> Vec<Counting<'a>> {
        let about = self.about(service);
        if !self.all_fit(&about, service, ports) {
            return self.choose(&about, service, ports, says);
        }
        let mut counting = Vec::new();
        for port in ports {
            let here: Vec<usize> = self.covering(&about, service, *port).collect();
            for place in &here {
                let coverage = &mut self.coverages[*place];
                // Evaluated only until it sets something somewhere: most do at the first port.
                if !coverage.counts {
                    let policy = &self.candidates[*place].policy;
                    coverage.counts = !says(policy, *port).is_empty();
                }
            }
            let candidates = here.into_iter().map(|place| self.candidates[place]);
            counting.push(Counting {
                policies: candidates.collect(),
                lost: Vec::new(),
            });
        }
        counting
    }

    /// The places of those that are about a Service, in order of precedence.
    fn about(&self, service: &ServiceId) -> Vec<usize> {
        let own = self.services.get(service).into_iter().flatten();
        let near = self.namespaces.get(&*service.namespace);
        let near = near.into_iter().flatten();
        let mut about: Vec<usize> = own.chain(near).chain(&self.mesh).copied().collect();
        about.sort_unstable();
        about
    }

    /// Those of them that are about a port.
    fn covering(
        &self,
        about: &[usize],
        service: &ServiceId,
        port: u16,
    ) -> impl Iterator<Item = usize> {
        let about = about.iter().copied();
        about.filter(move |index| {
            let target = &self.candidates[*index].policy.target;
            target.covers(service, port)
        })
    }

    /// Whether there is room for all, so that none has to be evaluated.
    fn all_fit(&self, about: &[usize], service: &ServiceId, ports: &[u16]) -> bool {
        about.len() <= POLICIES_PER_SERVICE
            && ports.iter().all(|port| {
                let (mut bytes, mut compiled) = (0, 0);
                for index in self.covering(about, service, *port) {
                    bytes += self.candidates[index].bytes;
                    compiled += self.candidates[index].compiled;
                }
                bytes <= MOST_BYTES && compiled <= MOST_COMPILED
            })
    }

    /// Of each port those that count there, where there may not be room for all: evaluates one
    /// after another, and skips each that decides something that there is no room for.
    fn choose(
        &mut self,
        about: &[usize],
        service: &ServiceId,
        ports: &[u16],
        says: impl Fn(&Policy, u16) -> Vec<Section>,
    ) -> Vec<Counting<'a>> {
        let Self {
            candidates,
            coverages,
            calls,
            ..
        } = self;
        let candidates: &[&'a PolicyCandidate] = candidates;
        let calls: &[Calls] =
            calls.get_or_insert_with(|| Calls::of_each(candidates.iter().map(|one| &one.policy)));
        let mut at_ports: Vec<AtPort<'_, 'a>> = ports
            .iter()
            .map(|port| AtPort::new(*port, candidates, calls))
            .collect();
        let mut left = POLICIES_PER_SERVICE;
        let mut compared = 0;
        for index in about.iter().copied() {
            let policy = &candidates[index].policy;
            let said = ports.iter().map(|port| {
                if policy.target.covers(service, *port) {
                    says(policy, *port)
                } else {
                    Vec::new()
                }
            });
            let said: Vec<Vec<Section>> = said.collect();
            // It needs no room, and has no effect here whatever else there is.
            if said.iter().all(Vec::is_empty) {
                continue;
            }
            let before = if left == 0 {
                POLICIES_PER_SERVICE
            } else {
                MAX_COMPARED
            };
            if left == 0 || compared >= MAX_COMPARED {
                coverages[index].left_out(|| {
                    format!("{before} TrafficPolicies come before this one at {service}")
                });
                continue;
            }
            compared += 1;
            let mut decides = false;
            let setting = at_ports.iter_mut().zip(said);
            for (at, said) in setting.filter(|(_, said)| !said.is_empty()) {
                let port = at.port;
                match at.compare(index, said) {
                    Ok(decides_here) => {
                        decides |= decides_here;
                        coverages[index].counts = true;
                    }
                    Err(excess) => coverages[index].left_out(|| excess.words(service, port)),
                }
            }
            left -= usize::from(decides);
        }
        at_ports.into_iter().map(|at| at.counting).collect()
    }

    /// Reports those that do not count somewhere. One that does elsewhere is accepted: the policy
    /// before it often has another author, who could switch off its condition at will.
    pub(super) fn report(self, findings: &mut Findings) {
        for (candidate, coverage) in self.candidates.iter().zip(self.coverages) {
            let Some(first) = coverage.first else {
                continue;
            };
            let more = more(coverage.occurrences);
            let message = format!("{first}{more}, and more do not count; it has no effect there");
            let mut about = findings.about(&candidate.object, candidate.generation);
            if coverage.counts {
                about.warn(Reason::PartlyOverridden, "spec.targetRef", message);
            } else {
                about.refuse(Reason::Invalid, "spec.targetRef", message);
            }
        }
    }
}

/// One port of a Service, while policies are evaluated for those that count there.
struct AtPort<'b, 'a> {
    port: u16,
    /// All policies, by place.
    candidates: &'b [&'a PolicyCandidate],
    decided: Decided<'b>,
    /// Bytes that are left.
    room: usize,
    /// Bytes that are left for compiled expressions.
    compiled_room: usize,
    /// The matches of those that count. A proxy compiles each once, whatever number of policies
    /// and sections it is in.
    matches: HashSet<&'a HttpMatch>,
    counting: Counting<'a>,
}

/// What there is no room for at a port.
#[derive(Clone, Copy, Debug)]
enum Excess {
    Bytes,
    Compiled,
}

impl<'b, 'a> AtPort<'b, 'a> {
    fn new(port: u16, candidates: &'b [&'a PolicyCandidate], calls: &'b [Calls]) -> Self {
        Self {
            port,
            candidates,
            decided: Decided::new(calls),
            room: MOST_BYTES,
            compiled_room: MOST_COMPILED,
            matches: HashSet::new(),
            counting: Counting {
                policies: Vec::new(),
                lost: Vec::new(),
            },
        }
    }

    /// Whether a policy with these sections decides something; an error: it would, and there is no
    /// room for it. Of one that decides nothing the winners are kept.
    fn compare(&mut self, place: usize, says: Vec<Section>) -> Result<bool, Excess> {
        let candidate = self.candidates[place];
        let outcome = self.decided.outcome_of(says, place);
        if outcome.decides.is_empty() {
            let candidates = self.candidates;
            let to = |(section, winner): (Section, usize)| {
                let winner = &candidates[winner].policy;
                Lost::to(winner, &candidate.policy, section)
            };
            self.counting.lost.extend(outcome.lost.into_iter().map(to));
            return Ok(false);
        }
        let room = self.room.checked_sub(candidate.bytes);
        let room = room.ok_or(Excess::Bytes)?;
        let matches: &'a [HttpMatch] = match &candidate.policy.routes {
            Match::Always => &[],
            Match::AnyOf(matches) => matches,
        };
        let new = matches.iter().filter(|one| !self.matches.contains(one));
        let compiled: usize = new.map(HttpMatch::compiled_size).sum();
        let compiled_room = self.compiled_room.checked_sub(compiled);
        self.compiled_room = compiled_room.ok_or(Excess::Compiled)?;
        self.room = room;
        self.matches.extend(matches);
        self.decided.add(&outcome.decides, place);
        self.counting.policies.push(candidate);
        Ok(true)
    }
}

impl Excess {
    fn words(self, service: &ServiceId, port: u16) -> String {
        match self {
            Self::Bytes => format!(
                "with those before it TrafficPolicies say more than {} KiB of {service}:{port}, \
                 each section and limit with its own routes and sources",
                MOST_BYTES / 1024
            ),
            Self::Compiled => format!(
                "with those before it TrafficPolicies name expressions of {service}:{port} that \
                 take more than {} MiB when compiled, where plain paths and values take nothing",
                MOST_COMPILED / (1024 * 1024)
            ),
        }
    }
}

impl Coverage {
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

#[cfg(test)]
mod tests;
