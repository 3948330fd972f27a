//! What of the winners is sent to a proxy that carries out only some parts of them.
//!
//! A part that is left out changes no precedence: the rule stays with what is left of it,
//! and only a section of which nothing is left goes as a whole.

use std::sync::Arc;

use crate::origin::Origin;
use crate::route::Table;
use crate::traffic::call::{Fallback, Mirror, Override, Retry, Sticky, Timeouts};
use crate::traffic::endpoint::{Balance, Breaker, Ejection, Locality, Subset};
use crate::traffic::guard::{LimitScope, Overload, Priority, RateLimit};
use crate::traffic::part::{Part, Parts};
use crate::traffic::{EffectivePolicy, Limited, Scoped};

/// A section that is carried out by parts.
trait Carried: Clone {
    /// What a proxy has to carry out to do all that it sets.
    fn needs(&self) -> Parts;

    /// What is left of it for a proxy that carries out these; `None`: nothing.
    fn cut(&self, to: Parts) -> Option<Self> {
        (!self.needs().within(to).is_empty()).then(|| self.clone())
    }
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

    /// Stays even when it sets nothing any more: it ends what a wider policy sets.
    fn cut(&self, to: Parts) -> Option<Self> {
        let kept = |part, limit: Option<_>| limit.filter(|_| to.has(part));
        Some(Self {
            request: kept(Part::RequestTimeout, self.request),
            backend_request: kept(Part::AttemptTimeout, self.backend_request),
            idle: kept(Part::IdleTimeout, self.idle),
            share: if to.has(Part::TimeoutShare) {
                self.share
            } else {
                Self::DEFAULT.share
            },
        })
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

    fn cut(&self, to: Parts) -> Option<Self> {
        let default = Self::DEFAULT;
        Some(Self {
            locality: self.locality.filter(|_| to.has(Part::Locality)),
            subset: if to.has(Part::Subset) {
                self.subset
            } else {
                default.subset
            },
            warmup: if to.has(Part::Warmup) {
                self.warmup
            } else {
                default.warmup
            },
        })
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
}

impl<T: Carried> Carried for Scoped<T> {
    fn needs(&self) -> Parts {
        self.section.needs()
    }

    fn cut(&self, to: Parts) -> Option<Self> {
        Some(Self {
            sources: self.sources.clone(),
            section: self.section.cut(to)?,
        })
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
    }

    /// What the rules for pods need of a pod's proxy, and whose they are.
    pub fn pod_needs(&self) -> impl Iterator<Item = (&Origin, Parts)> {
        request_ends(&self.timeouts)
            .map(|origin| (origin, Parts::of(&[Part::OutsideTimeout])))
            .chain(needs(&self.rate_limits))
            .chain(needs(&self.priority))
            .chain(needs(&self.overload))
    }

    /// What is sent to a caller's proxy that carries out these parts.
    #[must_use]
    pub fn for_callers(&self, parts: Parts) -> Self {
        Self {
            timeouts: cut(&self.timeouts, parts),
            retry: cut(&self.retry, parts),
            fallback: cut(&self.fallback, parts),
            mirror: cut(&self.mirror, parts),
            priority: cut(&self.priority, parts),
            ejection: cut(&self.ejection, parts),
            breaker: cut(&self.breaker, parts),
            balance: cut(&self.balance, parts),
            sticky: cut(&self.sticky, parts),
            overrides: cut(&self.overrides, parts),
            ..Self::default()
        }
    }

    /// What is sent to a pod's proxy that carries out these parts.
    #[must_use]
    pub fn for_pods(&self, parts: Parts) -> Self {
        let ends = parts.has(Part::OutsideTimeout) && request_ends(&self.timeouts).next().is_some();
        Self {
            timeouts: if ends {
                // Of these a pod needs nothing but `request`.
                cut_rules(&self.timeouts, Parts::of(&[Part::RequestTimeout]))
            } else {
                Table::only(None)
            },
            rate_limits: cut(&self.rate_limits, parts),
            priority: cut(&self.priority, parts),
            overload: cut(&self.overload, parts),
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

fn cut<T: Carried>(table: &Table<Option<T>>, to: Parts) -> Table<Option<T>> {
    let all: Parts = needs(table).map(|(_, parts)| parts).collect();
    if all.within(to).is_empty() {
        return Table::only(None);
    }
    cut_rules(table, to)
}

fn cut_rules<T: Carried>(table: &Table<Option<T>>, to: Parts) -> Table<Option<T>> {
    let rules = table.rules.iter().filter_map(|rule| {
        let section = rule.then.as_ref()?.cut(to)?;
        Some(rule.clone().map(|_| Some(section)))
    });
    Table {
        rules: rules.collect(),
        otherwise: None,
    }
}

#[cfg(test)]
mod tests;
