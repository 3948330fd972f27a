//! Decides which TrafficPolicy applies to calls to a Service port, section by section, and names
//! the policies that lost.
//!
//! `enforce` comes first, then the closest target, the narrowest, the oldest, the name. A section
//! is taken as a whole: two half sections of two authors would be a third without an author. Rate
//! limits add up, because each protects something else.
//!
//! A rule that an earlier one covers completely can never decide: it is skipped, and reported to
//! its author. Only plain coverage counts: the same or all routes, the same or all sources. That
//! two narrow rules cover a third together is not detected.

mod covered;
mod deciding_sections;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::covered::Calls;
pub use self::deciding_sections::{Decided, SectionOutcome};

use self::covered::Covered;
use crate::name::ServiceId;
use crate::origin::Origin;
use crate::route::{Match, Rule, Table};
use crate::traffic::{EffectivePolicy, Limited, Policy, Scoped, Section, Sources, Target, Whole};

/// What decides about one Service port, and whose sections lost there to which policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub traffic: EffectivePolicy,
    pub won: BTreeSet<(Origin, Section)>,
    pub lost: Vec<Lost>,
}

/// A section that decides nothing at some port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    pub loser: Origin,
    pub section: Section,
    pub winner: Origin,
    pub by: Precedence,
}

/// Why one policy comes before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precedence {
    /// It is of the mesh, with `enforce`.
    Enforced,
    /// Its target is closer.
    Closer,
    /// It is limited to some routes or sources, and the other one is not, or to less.
    Narrower,
    Older,
    /// It is as old, and the first by namespace and name.
    Name,
}

/// The winners of every section for calls to `port` of `service`. Policies that are about
/// something else are passed over, so all of a namespace may be handed in.
#[must_use]
pub fn resolve<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    service: &ServiceId,
    port: u16,
) -> Resolved {
    let mut ranked: Vec<&Policy> = policies
        .into_iter()
        .filter(|policy| policy.target.covers(service, port) && !policy.is_void())
        .collect();
    ranked.sort_by(|a, b| order(a, b));
    let mut resolving = Resolving {
        covered: Covered::new(&ranked),
        ranked,
        won: BTreeSet::new(),
        lost: Vec::new(),
    };
    let traffic = EffectivePolicy {
        timeouts: resolving.limited(Section::Timeouts, |policy| policy.sections.timeouts),
        retry: resolving.limited(Section::Retry, |policy| policy.sections.retry.clone()),
        fallback: resolving.limited(Section::Fallback, |policy| policy.sections.fallback.clone()),
        mirror: resolving.limited(Section::Mirror, |policy| policy.sections.mirror.clone()),
        priority: resolving.limited(Section::Priority, |policy| policy.sections.priority),
        rate_limits: resolving.rate_limits(),
        ejection: resolving.whole(Section::Ejection, |policy| policy.sections.ejection),
        breaker: resolving.whole(Section::Breaker, |policy| policy.sections.breaker),
        balance: resolving.whole(Section::Balance, |policy| policy.sections.balance),
        overload: resolving.whole(Section::Overload, |policy| policy.sections.overload),
        sticky: resolving.whole(Section::Sticky, |policy| policy.sections.sticky.clone()),
        overrides: resolving.whole(Section::Overrides, |policy| {
            policy.sections.overrides.clone()
        }),
        // No TrafficPolicy sets these.
        ..EffectivePolicy::default()
    };
    Resolved {
        traffic,
        won: resolving.won,
        lost: resolving.lost,
    }
}

/// Which of two policies about one port comes first.
#[must_use]
pub fn order(one: &Policy, other: &Policy) -> Ordering {
    rank(one).cmp(&rank(other))
}

/// Lower decides. What is equal in all but the name is decided by it, so that every
/// replica and every restart agrees.
fn rank(policy: &Policy) -> (Reverse<bool>, u8, u8, i64, &Origin) {
    let enforced = policy.enforce && policy.target == Target::Mesh;
    let far = match policy.target {
        Target::Port(..) => 0,
        Target::Service(_) => 1,
        Target::Namespace(_) => 2,
        Target::Mesh => 3,
    };
    let routes = policy.routes != Match::Always;
    let sources = policy.sources != Sources::Everyone;
    let wide = match (routes, sources) {
        (true, true) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 3,
    };
    let Policy {
        created, origin, ..
    } = policy;
    (Reverse(enforced), far, wide, *created, origin)
}

/// Where a policy stands among all: the lower one decides, as by [`order`]. Compares policies
/// that won at different ports without having them any longer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    enforced: Reverse<bool>,
    far: u8,
    wide: u8,
    created: i64,
    origin: Origin,
}

impl Rank {
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let (enforced, far, wide, created, origin) = rank(policy);
        Self {
            enforced,
            far,
            wide,
            created,
            origin: origin.clone(),
        }
    }

    /// Whether it is of the mesh, with `enforce`.
    #[must_use]
    pub const fn is_enforced(&self) -> bool {
        self.enforced.0
    }

    /// Why it comes before `other`.
    #[must_use]
    pub fn over(&self, other: &Self) -> Precedence {
        if self.enforced != other.enforced {
            Precedence::Enforced
        } else if self.far != other.far {
            Precedence::Closer
        } else if self.wide != other.wide {
            Precedence::Narrower
        } else if self.created != other.created {
            Precedence::Older
        } else {
            Precedence::Name
        }
    }
}

impl Lost {
    /// A section of `loser` that `winner` decides.
    #[must_use]
    pub fn to(winner: &Policy, loser: &Policy, section: Section) -> Self {
        Self {
            loser: loser.origin.clone(),
            section,
            winner: winner.origin.clone(),
            by: Rank::of(winner).over(&Rank::of(loser)),
        }
    }
}

struct Resolving<'a> {
    /// Those that are about the port, in order of precedence.
    ranked: Vec<&'a Policy>,
    covered: Covered,
    won: BTreeSet<(Origin, Section)>,
    lost: Vec<Lost>,
}

impl Resolving<'_> {
    /// Every policy whose section is not covered by an earlier one.
    fn limited<T>(&mut self, section: Section, say: impl Fn(&Policy) -> Option<T>) -> Limited<T> {
        let mut kept: Vec<usize> = Vec::new();
        let mut rules = Vec::new();
        for (index, policy) in self.ranked.iter().enumerate() {
            let Some(decided) = say(policy) else { continue };
            let winner = kept.iter().find(|at| self.covered.by(index, **at));
            if let Some(winner) = winner {
                self.lost
                    .push(Lost::to(self.ranked[*winner], policy, section));
                continue;
            }
            self.won.insert((policy.origin.clone(), section));
            kept.push(index);
            rules.push(rule(policy, policy.origin.clone(), decided));
        }
        Table {
            rules,
            otherwise: None,
        }
    }

    /// The first policy that sets it.
    fn whole<T>(&mut self, section: Section, say: impl Fn(&Policy) -> Option<T>) -> Whole<T> {
        // A limited policy cannot say such a section; one that does anyway is not asked.
        let mut sayers = self
            .ranked
            .iter()
            .filter(|policy| !policy.is_limited())
            .filter_map(|policy| say(policy).map(|decided| (*policy, decided)));
        let Some((winner, decided)) = sayers.next() else {
            return Table::only(None);
        };
        let lost = sayers.map(|(loser, _)| Lost::to(winner, loser, section));
        self.lost.extend(lost);
        self.won.insert((winner.origin.clone(), section));
        Table {
            rules: vec![Rule {
                origin: winner.origin.clone(),
                when: Match::Always,
                then: Some(decided),
            }],
            otherwise: None,
        }
    }

    /// All of them: one rule per limit, named in the rule's origin.
    fn rate_limits(&mut self) -> Limited<Arc<crate::traffic::guard::RateLimit>> {
        let mut rules = Vec::new();
        for policy in &self.ranked {
            for limit in &policy.sections.rate_limits {
                let origin = policy.origin.rule(&limit.name);
                rules.push(rule(policy, origin, Arc::clone(limit)));
                self.won
                    .insert((policy.origin.clone(), Section::RateLimits));
            }
        }
        Table {
            rules,
            otherwise: None,
        }
    }
}

fn rule<T>(policy: &Policy, origin: Origin, section: T) -> Rule<Option<Scoped<T>>> {
    Rule {
        origin,
        when: policy.routes.clone(),
        then: Some(Scoped {
            sources: policy.sources.clone(),
            section,
        }),
    }
}

/// How one policy fares everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrecedenceResult {
    /// Ports at which closer, narrower or older ones decide a section. For a policy of the
    /// mesh or of a namespace that is normal life, and its status holds no more than this.
    pub lost_at: BTreeMap<Section, u32>,
    /// Sections that decide somewhere.
    pub won: BTreeSet<Section>,
    /// Sections that decide nothing at some port, each with the first by name of those that
    /// do: a policy of a namespace or of the mesh may lose to thousands.
    pub lost: BTreeMap<Section, Winner>,
}

/// The policy that decides a section instead, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Winner {
    pub origin: Origin,
    pub by: Precedence,
}

/// What is reported to the author of a policy about others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    None,
    /// It wins nothing anywhere: `Accepted=False Conflicted`.
    Conflicted(Vec<(Section, Winner)>),
    /// It loses these, each to this one at least: a warning `PartlyOverridden`.
    PartlyOverridden(Vec<(Section, Winner)>),
}

impl PrecedenceResult {
    #[must_use]
    pub fn conflict(&self) -> Conflict {
        if self.lost.is_empty() {
            return Conflict::None;
        }
        let lost = self.lost.iter();
        let lost = lost.map(|(section, winner)| (*section, winner.clone()));
        let lost = lost.collect();
        if self.won.is_empty() {
            Conflict::Conflicted(lost)
        } else {
            Conflict::PartlyOverridden(lost)
        }
    }
}

/// How every policy fares, summed over the ports of all Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrecedenceResults(BTreeMap<Origin, PrecedenceResult>);

impl PrecedenceResults {
    pub fn add(&mut self, resolved: &Resolved) {
        for lost in &resolved.lost {
            let result = self.0.entry(lost.loser.clone()).or_default();
            *result.lost_at.entry(lost.section).or_default() += 1;
        }
        for (winner, section) in &resolved.won {
            let result = self.0.entry(winner.clone()).or_default();
            result.won.insert(*section);
        }
        for lost in &resolved.lost {
            let result = self.0.entry(lost.loser.clone()).or_default();
            let new = || Winner {
                origin: lost.winner.clone(),
                by: lost.by,
            };
            let winner = result.lost.entry(lost.section).or_insert_with(new);
            if lost.winner < winner.origin {
                *winner = new();
            }
        }
    }

    /// `None`: it is about no Service that exists, or sets nothing.
    #[must_use]
    pub fn of(&self, policy: &Origin) -> Option<&PrecedenceResult> {
        self.0.get(policy)
    }
}

#[cfg(test)]
mod tests;
