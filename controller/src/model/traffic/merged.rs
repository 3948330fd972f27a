//! What one container port is told, of all the Service ports that lead to it.
//!
//! Nobody knows by which Service a call comes, so what several of them say becomes one. Who
//! loses by that has won at the port of his own Service, and would not hear of it there: so
//! the same answer that goes to the pod says whose section it leaves out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use policy::{
    access::Caller,
    origin::Origin,
    route::{Match, Rule},
    traffic::{
        EffectivePolicy, Limited, Scoped, Section, Sources,
        call::Timeouts,
        guard::{Overload, Priority},
        pod::GuardPort,
        precedence::{Precedence, Rank},
    },
};

use crate::world::ObjectKey;

/// Where the policies that win at a Service port stand among all.
pub(crate) type Ranks = BTreeMap<Origin, Rank>;

/// A section that decides nothing at a port of a pod, because another one does by another
/// Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Overridden {
    pub(crate) loser: Origin,
    pub(crate) section: Section,
    pub(crate) winner: Origin,
    /// The Service by which the winner speaks of it, and which port of that.
    pub(crate) service: ObjectKey,
    pub(crate) port: u16,
    /// Why it is the winner; `None`: its priority is the lowest.
    pub(crate) by: Option<Precedence>,
}

/// What a container port is told, Service by Service.
#[derive(Default)]
pub(super) struct GuardBuilder<'a> {
    port: GuardPort,
    /// Rules of limits that are in it: one policy may reach the port by two Services, and
    /// is one limit all the same.
    limits: BTreeSet<Origin>,
    overload: Vec<Said<'a, Overload>>,
    /// Priorities of some requests or callers.
    narrow: Vec<Said<'a, Scoped<Priority>>>,
    /// Priorities of everyone's every request, which say the last word.
    for_all: Vec<Said<'a, Scoped<Priority>>>,
    /// The longest time that the Services so far give a call from outside; `None`: there was
    /// none yet. Within it `None`: one of them ends not all of them.
    longest: Option<Option<TimeoutRule>>,
}

type TimeoutRule = Rule<Option<Scoped<Timeouts>>>;

/// A Service and the number of one of its ports.
type ServicePort<'a> = (&'a ObjectKey, u16);

/// A rule, by which Service port it comes, and where its policy stands.
struct Said<'a, T> {
    rank: &'a Rank,
    at: ServicePort<'a>,
    rule: &'a Rule<Option<T>>,
}

impl<'a> GuardBuilder<'a> {
    /// Adds what a port of one Service says, if anything. Limits of every Service count;
    /// overload is one matter of the port, of the policy that comes first; callers from outside
    /// get the longest time of any, and one that says nothing of them lets them have all.
    pub(super) fn add(
        &mut self,
        at: ServicePort<'a>,
        says: Option<(&'a EffectivePolicy, &'a Ranks)>,
    ) {
        let none = Limited::<Timeouts>::only(None);
        self.add_timeouts(says.map_or(&none, |(configured, _)| &configured.timeouts));
        let Some((configured, ranks)) = says else {
            return;
        };
        for rule in &configured.rate_limits.rules {
            if self.limits.insert(rule.origin.clone()) {
                self.port.rate_limits.rules.push(rule.clone());
            }
        }
        let overload = said(at, ranks, &configured.overload.rules);
        self.overload.extend(overload);
        for priority in said(at, ranks, &configured.priority.rules) {
            // Among the rules of one Service only the last can be for all; it must not hide
            // the narrower ones of the next.
            if is_for_all(priority.rule) {
                self.for_all.push(priority);
            } else {
                self.narrow.push(priority);
            }
        }
    }

    /// Nobody knows by which Service a call from outside comes. So what several of them say
    /// differently becomes the longest time of all, whatever is called.
    fn add_timeouts(&mut self, configured: &Limited<Timeouts>) {
        let longest = longest(configured);
        let Some(before) = self.longest.take() else {
            self.longest = Some(longest.cloned());
            self.port.timeouts = configured.clone();
            return;
        };
        let longest = match (before, longest) {
            (Some(before), Some(now)) if request(&before) >= request(now) => Some(before),
            (Some(_), Some(now)) => Some(now.clone()),
            _ => None,
        };
        if self.port.timeouts != *configured {
            self.port.timeouts = Limited::only(None);
            self.port
                .timeouts
                .rules
                .extend(longest.clone().map(|rule| Rule {
                    when: Match::Always,
                    ..rule
                }));
        }
        self.longest = Some(longest);
    }

    /// Whose `overload` holds: that of the first by precedence, by whichever Service.
    fn first_overload(&self) -> Option<&Said<'a, Overload>> {
        self.overload.iter().min_by_key(|said| said.rank)
    }

    /// Whose priority for all holds: the lowest.
    fn lowest_priority(&self) -> Option<&Said<'a, Scoped<Priority>>> {
        self.for_all
            .iter()
            .min_by_key(|said| (class(said.rule), said.rank))
    }

    pub(super) fn guard_port(mut self) -> GuardPort {
        let overload = self.first_overload().map(|said| said.rule.clone());
        self.port.overload.rules.extend(overload);
        let last = self.lowest_priority().map(|said| said.rule.clone());
        self.narrow.sort_by_key(|said| said.rank);
        // One policy may reach the port by two Services here, too.
        self.narrow.dedup_by_key(|said| said.rank);
        let narrow = self.narrow.iter().map(|said| said.rule.clone());
        self.port.priority.rules.extend(narrow.chain(last));
        self.port
    }

    /// Sections that are left out because of other policies, and would say something else.
    pub(super) fn overridden(&self) -> Vec<Overridden> {
        let mut overridden = Vec::new();
        if let Some(winner) = self.first_overload() {
            for loser in other_than(winner, &self.overload) {
                let by = Some(winner.rank.over(loser.rank));
                overridden.push(loser.overridden(Section::Overload, winner, by));
            }
        }
        if let Some(winner) = self.lowest_priority() {
            for loser in other_than(winner, &self.for_all) {
                overridden.push(loser.overridden(Section::Priority, winner, None));
            }
        }
        overridden
    }
}

impl<T> Said<'_, T> {
    fn overridden(&self, section: Section, winner: &Self, by: Option<Precedence>) -> Overridden {
        let (service, port) = winner.at;
        Overridden {
            loser: self.rule.origin.clone(),
            section,
            winner: winner.rule.origin.clone(),
            service: service.clone(),
            port,
            by,
        }
    }
}

/// What the rules of a Service port say, with the place of who says it.
fn said<'a, T>(
    at: ServicePort<'a>,
    ranks: &'a Ranks,
    rules: &'a [Rule<Option<T>>],
) -> impl Iterator<Item = Said<'a, T>> {
    rules.iter().filter_map(move |rule| {
        let rank = ranks.get(&rule.origin)?;
        Some(Said { rank, at, rule })
    })
}

/// Those that say something else than the winner.
fn other_than<'s, 'a, T: PartialEq>(
    winner: &'s Said<'a, T>,
    all: &'s [Said<'a, T>],
) -> impl Iterator<Item = &'s Said<'a, T>> {
    all.iter().filter(|said| said.rule.then != winner.rule.then)
}

fn class(rule: &Rule<Option<Scoped<Priority>>>) -> Option<Priority> {
    rule.then.as_ref().map(|scoped| scoped.section)
}

/// Whether a rule is for every request of everyone.
fn is_for_all<T>(rule: &Rule<Option<Scoped<T>>>) -> bool {
    let everyone = |scoped: &Scoped<T>| scoped.sources == Sources::Everyone;
    rule.when == Match::Always && rule.then.as_ref().is_some_and(everyone)
}

/// The rule that gives calls from outside the mesh the longest time; `None`: some of them
/// have no end.
fn longest(timeouts: &Limited<Timeouts>) -> Option<&TimeoutRule> {
    let is_for_outside = |rule: &&TimeoutRule| {
        let scoped = rule.then.as_ref();
        scoped.is_some_and(|scoped| scoped.sources.admits(Caller::Outside))
    };
    let mut longest: Option<&TimeoutRule> = None;
    for rule in timeouts.rules.iter().filter(is_for_outside) {
        let time = request(rule)?;
        if longest.is_none_or(|longest| request(longest) < Some(time)) {
            longest = Some(rule);
        }
        // What stands behind a rule for every request says nothing.
        if rule.when == Match::Always {
            return longest;
        }
    }
    None
}

fn request(rule: &TimeoutRule) -> Option<Duration> {
    rule.then.as_ref()?.section.request
}
