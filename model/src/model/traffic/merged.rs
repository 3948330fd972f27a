//! Merges the policies of all Service ports that lead to one container port.
//!
//! A proxy does not know by which Service a call comes, so policies of several Services become
//! one. A policy that loses by that has won at the port of its own Service, where nothing would be
//! reported: so the same result that goes to the pod names the section that it skips.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use policy::{
    access::Source,
    origin::Origin,
    route::{Match, Rule},
    traffic::{
        EffectivePolicy, Scoped, Section, Sources,
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
    /// `None`: no policy's time ends all calls there, so none holds.
    pub(crate) winner: Option<Origin>,
    /// The other Service: by which the winner speaks of it, or which leaves it open; and which
    /// port of that.
    pub(crate) service: ObjectKey,
    pub(crate) port: u16,
    /// The winner speaks by the loser's own Service, too. Then `service` is one that says
    /// something else of the section: without it both would hold.
    pub(crate) by_own: bool,
    /// Why it is the winner; `None`: its priority is the lowest, or its time the longest.
    pub(crate) by: Option<Precedence>,
}

/// What a container port gets, Service by Service.
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
    /// What each Service says of times, also of none.
    timeouts: Vec<(ServicePort<'a>, &'a [TimeoutRule])>,
}

type TimeoutRule = Rule<Option<Scoped<Timeouts>>>;

/// A Service and the number of one of its ports.
type ServicePort<'a> = (&'a ObjectKey, u16);

/// Callers that get one time together, where what Services say of them differs.
#[derive(Clone, Copy)]
enum Callers {
    Outside,
    /// Those that call the pod by its own address, or through a proxy that read no request.
    Mesh,
}

/// A rule, by which Service port it comes, and where its policy stands.
struct Said<'a, T> {
    rank: &'a Rank,
    at: ServicePort<'a>,
    rule: &'a Rule<Option<T>>,
}

impl<'a> GuardBuilder<'a> {
    /// Adds what a port of one Service says, if anything. Limits of every Service count;
    /// overload is one matter of the port, of the policy that comes first; callers get the
    /// longest time of any, and one that says nothing of them lets them have all.
    pub(super) fn add(
        &mut self,
        at: ServicePort<'a>,
        says: Option<(&'a EffectivePolicy, &'a Ranks)>,
    ) {
        let timeouts = says.map(|(configured, _)| configured.timeouts.rules.as_slice());
        self.timeouts.push((at, timeouts.unwrap_or_default()));
        let Some((configured, ranks)) = says else {
            return;
        };
        for rule in &configured.rate_limits.rules {
            if self.limits.insert(rule.origin.clone()) {
                self.port.rate_limits.rules.push(rule.clone());
            }
        }
        // A pod counts by the groups of one experiment: by those of the first Service that has any.
        if self.port.groups.rules.is_empty() {
            self.port.groups = configured.groups.clone();
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

    /// What all Services say alike of times; `None`: they differ.
    fn same_timeouts(&self) -> Option<&'a [TimeoutRule]> {
        let &(_, first) = self.timeouts.first()?;
        let mut others = self.timeouts.iter();
        others.all(|&(_, rules)| rules == first).then_some(first)
    }

    /// The pod's proxy does not know by which Service a call comes that it gives a time. So what
    /// several of them say differently becomes the longest time of all, whatever is called.
    fn merged_timeouts(&self) -> Vec<TimeoutRule> {
        if let Some(same) = self.same_timeouts() {
            return same.to_vec();
        }
        let [outside, mesh] = [Callers::Outside, Callers::Mesh]
            .map(|callers| self.longest_timeout(callers).map(|(_, rule)| rule));
        if outside == mesh {
            return outside
                .map(|rule| for_all_requests(rule, Sources::Everyone))
                .into_iter()
                .collect();
        }
        let scoped = [
            (outside, Source::Unauthenticated),
            (mesh, Source::Authenticated),
        ];
        let rules = scoped.into_iter().filter_map(|(rule, source)| {
            Some(for_all_requests(rule?, Sources::Only(vec![source])))
        });
        rules.collect()
    }

    /// The longest time that any Service gives these callers, and which one that is; `None`: one
    /// of them ends not all of their calls.
    fn longest_timeout(&self, callers: Callers) -> Option<(ServicePort<'a>, &'a TimeoutRule)> {
        let mut found: Option<(ServicePort<'a>, &'a TimeoutRule)> = None;
        for &(at, rules) in &self.timeouts {
            let rule = longest(rules, callers)?;
            if found.is_none_or(|(_, before)| request(before) < request(rule)) {
                found = Some((at, rule));
            }
        }
        found
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
        self.port.timeouts.rules = self.merged_timeouts();
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

    /// Sections that are skipped because of other policies, and would say something else.
    pub(super) fn overridden(&self) -> Vec<Overridden> {
        let mut overridden = self.overridden_timeouts();
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

    /// Times that are for callers outside the mesh alone, which have another one. What is for
    /// others too holds for those that call the Service by its name, whatever another one says.
    fn overridden_timeouts(&self) -> Vec<Overridden> {
        if self.same_timeouts().is_some() {
            return Vec::new();
        }
        let winner = self.longest_timeout(Callers::Outside);
        let loses = |rule: &TimeoutRule| {
            let is_other = winner.is_none_or(|(_, winner)| {
                winner.origin != rule.origin && request(winner) != request(rule)
            });
            is_other && request(rule).is_some() && is_for_outside_alone(rule)
        };
        let mut overridden = Vec::new();
        for &(own, rules) in &self.timeouts {
            // One policy may speak by several Services: where its time was found first says nothing
            // of the others.
            let by_own = winner
                .is_some_and(|(_, winner)| rules.iter().any(|rule| rule.origin == winner.origin));
            let named = self.other_service(own, |at, others| match winner {
                Some(_) if by_own => others != rules,
                Some((winner, _)) => at == winner,
                None => longest(others, Callers::Outside).is_none(),
            });
            let Some((service, port)) = named else {
                continue;
            };
            let losers = rules.iter().filter(|rule| loses(rule));
            overridden.extend(losers.map(|loser| Overridden {
                loser: loser.origin.clone(),
                section: Section::Timeouts,
                winner: winner.map(|(_, winner)| winner.origin.clone()),
                service: service.clone(),
                port,
                by_own,
                by: None,
            }));
        }
        overridden
    }

    /// Which one to name to the author who loses a time by `own`: the first other one that
    /// `is_why`, by what it says of times; if that is `own` alone, any other, without which no
    /// policy would lose.
    fn other_service(
        &self,
        own: ServicePort<'a>,
        is_why: impl Fn(ServicePort<'a>, &'a [TimeoutRule]) -> bool,
    ) -> Option<ServicePort<'a>> {
        let others = self.timeouts.iter().filter(|(at, _)| *at != own);
        let named = others.clone().find(|&&(at, rules)| is_why(at, rules));
        let named = named.or_else(|| others.clone().next());
        named.map(|&(at, _)| at)
    }
}

impl Callers {
    /// Whether any of them is among these, as far as sources alone tell.
    fn some_in(self, sources: &Sources) -> bool {
        let Sources::Only(listed) = sources else {
            return true;
        };
        listed.iter().any(|source| match self {
            Self::Outside => *source == Source::Unauthenticated,
            Self::Mesh => *source != Source::Unauthenticated,
        })
    }

    fn all_in(self, sources: &Sources) -> bool {
        let all = match self {
            Self::Outside => Source::Unauthenticated,
            Self::Mesh => Source::Authenticated,
        };
        match sources {
            Sources::Everyone => true,
            Sources::Only(listed) => listed.contains(&all),
        }
    }
}

impl<T> Said<'_, T> {
    fn overridden(&self, section: Section, winner: &Self, by: Option<Precedence>) -> Overridden {
        let (service, port) = winner.at;
        Overridden {
            loser: self.rule.origin.clone(),
            section,
            winner: Some(winner.rule.origin.clone()),
            service: service.clone(),
            port,
            by_own: false,
            by,
        }
    }
}

/// What the rules of a Service port say, with the place of their Service.
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

/// The rule that gives these callers the longest time; `None`: some of their calls have no end.
fn longest(rules: &[TimeoutRule], callers: Callers) -> Option<&TimeoutRule> {
    let mut found: Option<&TimeoutRule> = None;
    for rule in rules {
        let Some(scoped) = &rule.then else { continue };
        if !callers.some_in(&scoped.sources) {
            continue;
        }
        let time = request(rule)?;
        if found.is_none_or(|found| request(found) < Some(time)) {
            found = Some(rule);
        }
        // What stands behind a rule for every request says nothing.
        if rule.when == Match::Always && callers.all_in(&scoped.sources) {
            return found;
        }
    }
    None
}

/// The rule's time, for every request of these.
fn for_all_requests(rule: &TimeoutRule, sources: Sources) -> TimeoutRule {
    let section = rule.then.as_ref().map(|scoped| scoped.section);
    Rule {
        origin: rule.origin.clone(),
        when: Match::Always,
        then: section.map(|section| Scoped { sources, section }),
    }
}

fn is_for_outside_alone(rule: &TimeoutRule) -> bool {
    rule.then.as_ref().is_some_and(|scoped| {
        Callers::Outside.some_in(&scoped.sources) && !Callers::Mesh.some_in(&scoped.sources)
    })
}

fn request(rule: &TimeoutRule) -> Option<Duration> {
    rule.then.as_ref()?.section.request
}

#[cfg(test)]
mod tests;
