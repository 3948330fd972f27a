//! Converts TrafficPolicies: rules with one section each and their tables for callers, and the
//! sections of a pod by container port.
//!
//! An unknown section is ignored, and so is a rule whose callers or requests are not understood:
//! it could apply to more calls than were meant. An invalid value of a known field refuses the
//! whole resource, so that the last good one stays.

mod section;
mod values;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use policy::access::Source;
use policy::http_match::HttpMatch;
use policy::origin::Origin;
use policy::route::{Match, Rule, Table};
use policy::traffic::pod::{GuardPort, PodGuard};
use policy::traffic::{EffectivePolicy, Limited, Scoped, Sources, Whole};

use self::section::ToSection;
use self::values::{tcp_messages, tcp_targets};
use super::error::{BadResource, each};
use super::object::origin;
use crate::convert::port::port;
use crate::v1;
use crate::v1::policy_rule::Section;

/// What a caller's proxy has to know of a Service port.
///
/// # Errors
/// With the field that is wrong.
pub fn traffic(message: &v1::Policy) -> Result<EffectivePolicy, BadResource> {
    collect_rules(&message.rules, &mut Matches::default())
}

/// The inverse of [`traffic`]. Sections that only the server's proxy needs are left out.
pub fn policy_message(traffic: &EffectivePolicy) -> v1::Policy {
    let mut rules = Vec::new();
    limited(&traffic.timeouts, &mut rules);
    limited(&traffic.retry, &mut rules);
    limited(&traffic.fallback, &mut rules);
    limited(&traffic.mirror, &mut rules);
    limited(&traffic.priority, &mut rules);
    whole(&traffic.ejection, &mut rules);
    whole(&traffic.breaker, &mut rules);
    whole(&traffic.balance, &mut rules);
    whole(&traffic.sticky, &mut rules);
    whole(&traffic.overrides, &mut rules);
    limited(&traffic.fault, &mut rules);
    v1::Policy { rules }
}

/// Reads rules into one table for each section, in their order.
fn collect_rules(
    rules: &[v1::PolicyRule],
    matches: &mut Matches,
) -> Result<EffectivePolicy, BadResource> {
    let mut traffic = EffectivePolicy::default();
    for (i, message) in rules.iter().enumerate() {
        let here = |bad: BadResource| bad.within(format_args!("rules[{i}]"));
        read(message, matches, &mut traffic).map_err(here)?;
    }
    Ok(traffic)
}

/// The matches of one resource, by how they are encoded. Each section of a policy repeats those of
/// the policy, other policies name the same groups, and what is compiled is much larger than its
/// text: so each is compiled once, and all rules share it.
#[derive(Default)]
struct Matches(HashMap<Vec<u8>, HttpMatch>);

impl Matches {
    fn when(&mut self, message: Option<&v1::HttpMatches>) -> Result<Match, BadResource> {
        let Some(list) = message else {
            return Ok(Match::Always);
        };
        let mut matches = Vec::with_capacity(list.matches.len());
        for (i, one) in list.matches.iter().enumerate() {
            let here = |bad: BadResource| bad.within(format_args!("matches.matches[{i}]"));
            matches.push(self.read(one).map_err(here)?);
        }
        Ok(Match::AnyOf(matches))
    }

    fn read(&mut self, message: &v1::HttpMatch) -> Result<HttpMatch, BadResource> {
        match self.0.entry(prost::Message::encode_to_vec(message)) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(new) => Ok(new.insert(HttpMatch::try_from(message)?).clone()),
        }
    }
}

fn read(
    message: &v1::PolicyRule,
    matches: &mut Matches,
    to: &mut EffectivePolicy,
) -> Result<(), BadResource> {
    let Some(section) = &message.section else {
        return Ok(());
    };
    let origin = origin(message.origin.as_ref())?;
    let when = matches.when(message.matches.as_ref())?;
    let sources = match &message.sources {
        None => Sources::Everyone,
        Some(callers) => match each::<_, Source>("sources", &callers.sources) {
            Ok(sources) => Sources::Only(sources),
            // The callers that it would be for are unknown.
            Err(bad) if bad.unknown => return Ok(()),
            Err(bad) => return Err(bad),
        },
    };
    let head = Head {
        origin,
        when,
        sources,
    };
    let namespace = head.origin.namespace().clone();
    match section {
        Section::Timeouts(one) => to
            .timeouts
            .rules
            .push(head.limited(section::timeouts(one)?)),
        Section::Retry(one) => to.retry.rules.push(head.limited(section::retry(one)?)),
        Section::Fallback(one) => {
            if let Some(fallback) = section::fallback(one, &namespace)? {
                to.fallback.rules.push(head.limited(fallback));
            }
        }
        Section::Mirrors(one) => {
            let mirrors = section::mirrors(one, &namespace)?;
            to.mirror.rules.push(head.limited(mirrors));
        }
        Section::Priority(one) => {
            to.priority
                .rules
                .push(head.limited(section::priority(*one)));
        }
        Section::RateLimit(one) => {
            let Some(limit) = section::rate_limit(one)? else {
                return Ok(());
            };
            // A limit is reported by its own name, too.
            let origin = head.origin.rule(&limit.name);
            let head = Head { origin, ..head };
            to.rate_limits.rules.push(head.limited(limit));
        }
        Section::Ejection(one) => head.whole(section::ejection(one)?, &mut to.ejection),
        Section::Breaker(one) => head.whole(section::breaker(one)?, &mut to.breaker),
        Section::Balance(one) => head.whole(section::balance(one)?, &mut to.balance),
        Section::Overload(one) => head.whole(section::overload(one)?, &mut to.overload),
        Section::Sticky(one) => {
            if let Some(sticky) = section::sticky(one)? {
                head.whole(sticky, &mut to.sticky);
            }
        }
        Section::Overrides(one) => {
            let overrides = section::overrides(one, &namespace)?;
            head.whole(overrides, &mut to.overrides);
        }
        Section::Fault(one) => {
            if let Some(fault) = section::fault(one)? {
                to.fault.rules.push(head.limited(fault));
            }
        }
        Section::Groups(one) => head.whole(section::groups(one)?, &mut to.groups),
    }
    Ok(())
}

/// Whose rule it is, and for which calls.
struct Head {
    origin: Origin,
    when: Match,
    sources: Sources,
}

impl Head {
    fn limited<T>(self, section: T) -> Rule<Option<Scoped<T>>> {
        let Self {
            origin,
            when,
            sources,
        } = self;
        Rule {
            origin,
            when,
            then: Some(Scoped { sources, section }),
        }
    }

    /// A section that is taken as a whole is never limited; one that is would decide about
    /// more than was meant, and is left out.
    fn whole<T>(self, section: T, table: &mut Whole<T>) {
        if self.when == Match::Always && self.sources == Sources::Everyone {
            table.rules.push(Rule {
                origin: self.origin,
                when: Match::Always,
                then: Some(section),
            });
        }
    }
}

fn limited<T: ToSection>(table: &Limited<T>, rules: &mut Vec<v1::PolicyRule>) {
    for Rule { origin, when, then } in &table.rules {
        if let Some(Scoped { sources, section }) = then {
            rules.push(v1::PolicyRule {
                origin: Some(origin.into()),
                matches: match when {
                    Match::Always => None,
                    Match::AnyOf(matches) => Some(v1::HttpMatches::from(&**matches)),
                },
                sources: match sources {
                    Sources::Everyone => None,
                    Sources::Only(sources) => Some(v1::Callers {
                        sources: sources.iter().map(v1::Source::from).collect(),
                    }),
                },
                section: Some(section.to_section()),
            });
        }
    }
}

fn whole<T: ToSection>(table: &Table<Option<T>>, rules: &mut Vec<v1::PolicyRule>) {
    for Rule { origin, then, .. } in &table.rules {
        if let Some(section) = then {
            rules.push(v1::PolicyRule {
                origin: Some(origin.into()),
                matches: None,
                sources: None,
                section: Some(section.to_section()),
            });
        }
    }
}

impl TryFrom<&v1::Guard> for PodGuard {
    type Error = BadResource;

    fn try_from(message: &v1::Guard) -> Result<Self, BadResource> {
        let mut matches = Matches::default();
        let ports = message.ports.iter().enumerate().map(|(i, one)| {
            let mut read = || {
                let port = port("port", one.port)?;
                Ok((port, collect_rules(&one.rules, &mut matches)?))
            };
            read().map_err(|bad: BadResource| bad.within(format_args!("ports[{i}]")))
        });
        let ports = ports.collect::<Result<BTreeMap<u16, GuardPort>, _>>()?;
        let read_only = message.read_only.as_ref();
        let read_only = read_only.map(|one| tcp_targets(&one.allow_tcp));
        Ok(Self {
            ports,
            read_only: read_only.transpose()?,
        })
    }
}

impl From<&PodGuard> for v1::Guard {
    fn from(guard: &PodGuard) -> Self {
        let ports = guard.ports.iter().map(|(port, traffic)| {
            let mut rules = Vec::new();
            limited(&traffic.timeouts, &mut rules);
            limited(&traffic.rate_limits, &mut rules);
            limited(&traffic.priority, &mut rules);
            whole(&traffic.overload, &mut rules);
            whole(&traffic.groups, &mut rules);
            v1::GuardPort {
                port: u32::from(*port),
                rules,
            }
        });
        let read_only = guard.read_only.as_deref();
        Self {
            ports: ports.collect(),
            read_only: read_only.map(|targets| v1::ReadOnly {
                allow_tcp: tcp_messages(targets),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
