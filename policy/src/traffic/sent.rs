//! Divides the winning sections of TrafficPolicies into those for callers' proxies and those for
//! the pods' own, and names the features that a proxy must support for them.
//!
//! A proxy is sent all of its side or, if it is older than policies, nothing. It ignores a part
//! that it does not carry out, as `wire` skips unknown fields; the object's status names that part.

use std::sync::Arc;

use crate::fault::{Fault, Selection};
use crate::origin::Origin;
use crate::route::Table;
use crate::traffic::call::{Fallback, Mirror, Override, Retry, Sticky, Timeouts};
use crate::traffic::endpoint::{Balance, Breaker, Ejection, Locality, Subset};
use crate::traffic::guard::{LimitScope, Overload, Priority, RateLimit};
use crate::traffic::part::{Part, Parts};
use crate::traffic::{EffectivePolicy, Limited, Scoped};

/// A section that is carried out by parts.
trait Carried {
    /// What a proxy has to carry out to do all that it sets.
    fn needs(&self) -> Parts;
}

impl Carried for Timeouts {
    fn needs(&self) -> Parts {
        let present = [
            (self.request.is_some(), Part::RequestTimeout),
            (self.backend_request.is_some(), Part::AttemptTimeout),
            (self.idle.is_some(), Part::IdleTimeout),
            (self.share != Self::DEFAULT.share, Part::TimeoutShare),
        ];
        let present = present.into_iter().filter(|(present, _)| *present);
        let parts: Parts = present.map(|(_, part)| Parts::of(&[part])).collect();
        if parts.is_empty() {
            return Parts::of(&[Part::AttemptTimeout]);
        }
        parts
    }
}

impl Carried for Balance {
    fn needs(&self) -> Parts {
        let mut parts = Parts::of(&[Part::Warmup]);
        if self
            .locality
            .is_some_and(|locality| locality != Locality::None)
        {
            parts = parts.and(Parts::of(&[Part::Locality]));
        }
        if self.subset != Subset::All {
            parts = parts.and(Parts::of(&[Part::Subset]));
        }
        parts
    }
}

impl Carried for Arc<RateLimit> {
    fn needs(&self) -> Parts {
        Parts::of(&[match self.scope {
            LimitScope::Instance => Part::InstanceLimit,
            LimitScope::Service => Part::ServiceLimit,
        }])
    }
}

macro_rules! whole_parts {
    ($($section:ty => $part:ident),+ $(,)?) => {
        $(impl Carried for $section {
            fn needs(&self) -> Parts {
                Parts::of(&[Part::$part])
            }
        })+
    };
}

whole_parts! {
    Retry => Retry,
    Arc<Fallback> => Fallback,
    Arc<[Mirror]> => Mirror,
    Ejection => Ejection,
    Breaker => Breaker,
    Sticky => Sticky,
    Arc<[Override]> => Overrides,
    Priority => Priority,
    Overload => Overload,
    Arc<Fault> => Fault,
    Selection => Groups,
}

impl<T: Carried> Carried for Scoped<T> {
    fn needs(&self) -> Parts {
        self.section.needs()
    }
}

impl EffectivePolicy {
    /// What the rules for callers need of a caller's proxy, and whose they are.
    pub fn caller_needs(&self) -> impl Iterator<Item = (&Origin, Parts)> {
        needs(&self.timeouts)
            .chain(needs(&self.retry))
            .chain(needs(&self.fallback))
            .chain(needs(&self.mirror))
            .chain(needs(&self.priority))
            .chain(needs(&self.ejection))
            .chain(needs(&self.breaker))
            .chain(needs(&self.balance))
            .chain(needs(&self.sticky))
            .chain(needs(&self.overrides))
            .chain(needs(&self.fault))
    }

    /// What the rules for pods need of a pod's proxy, and whose they are.
    pub fn pod_needs(&self) -> impl Iterator<Item = (&Origin, Parts)> {
        request_ends(&self.timeouts)
            .map(|origin| (origin, Parts::of(&[Part::OutsideTimeout])))
            .chain(needs(&self.rate_limits))
            .chain(needs(&self.priority))
            .chain(needs(&self.overload))
            .chain(needs(&self.groups))
    }

    /// What is sent to a caller's proxy.
    #[must_use]
    pub fn for_callers(&self) -> Self {
        Self {
            timeouts: stated(&self.timeouts),
            retry: stated(&self.retry),
            fallback: stated(&self.fallback),
            mirror: stated(&self.mirror),
            priority: stated(&self.priority),
            ejection: stated(&self.ejection),
            breaker: stated(&self.breaker),
            balance: stated(&self.balance),
            sticky: stated(&self.sticky),
            overrides: stated(&self.overrides),
            fault: stated(&self.fault),
            ..Self::default()
        }
    }

    /// What is sent to a pod's proxy.
    #[must_use]
    pub fn for_pods(&self) -> Self {
        let mut timeouts = Table::only(None);
        if request_ends(&self.timeouts).next().is_some() {
            timeouts = stated(&self.timeouts);
            for rule in &mut timeouts.rules {
                if let Some(scoped) = &mut rule.then {
                    // Of these a pod needs nothing but `request`.
                    scoped.section = Timeouts {
                        request: scoped.section.request,
                        ..Timeouts::DEFAULT
                    };
                }
            }
        }
        Self {
            timeouts,
            rate_limits: stated(&self.rate_limits),
            priority: stated(&self.priority),
            overload: stated(&self.overload),
            groups: stated(&self.groups),
            ..Self::default()
        }
    }
}

/// Whose rules give whole calls an end. Those for accounts of the mesh are among them: only
/// the pod's proxy holds callers to them that call the pod by its own address.
fn request_ends(timeouts: &Limited<Timeouts>) -> impl Iterator<Item = &Origin> {
    timeouts.rules.iter().filter_map(|rule| {
        let scoped = rule.then.as_ref()?;
        scoped.section.request.is_some().then_some(&rule.origin)
    })
}

fn needs<T: Carried>(table: &Table<Option<T>>) -> impl Iterator<Item = (&Origin, Parts)> {
    table.rules.iter().filter_map(|rule| {
        let section = rule.then.as_ref()?;
        Some((&rule.origin, section.needs()))
    })
}

/// The rules that set something.
fn stated<T: Clone>(table: &Table<Option<T>>) -> Table<Option<T>> {
    let rules = table.rules.iter().filter(|rule| rule.then.is_some());
    Table {
        rules: rules.cloned().collect(),
        otherwise: None,
    }
}

#[cfg(test)]
mod tests;
