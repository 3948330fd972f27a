//! What one container port is told, of all the Service ports that lead to it.
//!
//! Nobody knows by which Service a call comes, so what several of them say becomes one.

use std::{collections::BTreeSet, time::Duration};

use policy::{
    access::Caller,
    origin::Origin,
    route::{Match, Rule},
    traffic::{
        EffectivePolicy, Limited, Scoped, Sources, call::Timeouts, guard::Priority, pod::GuardPort,
    },
};

/// What a container port is told, Service by Service.
#[derive(Default)]
pub(super) struct GuardBuilder {
    port: GuardPort,
    /// Rules of limits that are in it: one policy may reach the port by two Services, and
    /// is one limit all the same.
    limits: BTreeSet<Origin>,
    /// Priorities of everyone's every request, which say the last word.
    last: Option<Rule<Option<Scoped<Priority>>>>,
    /// The longest time that the Services so far give a call from outside; `None`: there was
    /// none yet. Within it `None`: one of them ends not all of them.
    longest: Option<Option<TimeoutRule>>,
}

type TimeoutRule = Rule<Option<Scoped<Timeouts>>>;

impl GuardBuilder {
    /// Adds what one Service says, if anything. Limits of every Service count; overload is
    /// one matter of the port, of the first that says it; callers from outside get the
    /// longest time of any, and one that says nothing of them lets them have all.
    pub(super) fn add(&mut self, configured: Option<&EffectivePolicy>) {
        let none = Limited::<Timeouts>::only(None);
        self.add_timeouts(configured.map_or(&none, |configured| &configured.timeouts));
        let Some(configured) = configured else { return };
        for rule in &configured.rate_limits.rules {
            if self.limits.insert(rule.origin.clone()) {
                self.port.rate_limits.rules.push(rule.clone());
            }
        }
        if self.port.overload.rules.is_empty() {
            self.port.overload = configured.overload.clone();
        }
        for rule in &configured.priority.rules {
            self.add_priority(rule);
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

    /// Among the rules of one Service only the last can be for all; it must not hide the
    /// narrower ones of the next. Of several such ones the lowest holds.
    fn add_priority(&mut self, rule: &Rule<Option<Scoped<Priority>>>) {
        if !is_for_all(rule) {
            self.port.priority.rules.push(rule.clone());
            return;
        }
        let of =
            |rule: &Rule<Option<Scoped<Priority>>>| rule.then.as_ref().map(|scoped| scoped.section);
        if self.last.as_ref().is_none_or(|last| of(rule) < of(last)) {
            self.last = Some(rule.clone());
        }
    }

    pub(super) fn guard_port(mut self) -> GuardPort {
        self.port.priority.rules.extend(self.last);
        self.port
    }
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
