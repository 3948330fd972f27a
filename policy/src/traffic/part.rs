//! The parts of a TrafficPolicy: the features that a proxy declares to carry out, and those that
//! the proxies of this version do.
//!
//! A section comes into force part by part. A proxy names the parts that it carries out. One that
//! names none is older than policies and is sent none; any other is sent policies as they are, and
//! the object's status names the parts that it did not name. Both, and the table in
//! docs/trafficpolicy.md, go by [`Part::IN_FORCE`].

use std::fmt;

/// Which proxy carries a part out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller's proxy.
    Caller,
    /// The one of the pod that is called.
    Server,
}

/// A row for each: its name in Hello, the field as its author knows it, and whose proxy
/// carries it out. From one table, so that Hello cannot miss one.
macro_rules! parts {
    ($($(#[$doc:meta])+ $one:ident = $name:literal, $field:literal, $side:ident;)+) => {
        /// Something of a TrafficPolicy that a proxy carries out or not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Part {
            $($(#[$doc])+ $one,)+
        }

        impl Part {
            pub const ALL: &'static [Self] = &[$(Self::$one),+];

            /// The name by which a proxy that carries it out lists it in Hello.
            #[must_use]
            pub const fn capability(self) -> &'static str {
                match self {
                    $(Self::$one => concat!("traffic-policy/", $name)),+
                }
            }

            /// The field of the object's spec.
            #[must_use]
            pub const fn field(self) -> &'static str {
                match self {
                    $(Self::$one => $field),+
                }
            }

            #[must_use]
            pub const fn side(self) -> Side {
                match self {
                    $(Self::$one => Side::$side),+
                }
            }
        }
    };
}

parts! {
    /// `timeouts.request` of calls that the workload makes.
    RequestTimeout = "request-timeout", "timeouts.request", Caller;
    /// `timeouts.backendRequest`. Stands for an empty section too, which only ends what a
    /// wider policy sets.
    AttemptTimeout = "attempt-timeout", "timeouts.backendRequest", Caller;
    /// `timeouts.idle`.
    IdleTimeout = "idle-timeout", "timeouts.idle", Caller;
    /// A `timeouts.share` below 100.
    TimeoutShare = "timeout-share", "timeouts.share", Caller;
    /// `timeouts.request` of calls whose callers' proxies hold to none: those from outside the
    /// mesh, and those by the pod's own address.
    OutsideTimeout = "outside-timeout", "timeouts.request at the called pod", Server;
    /// `retry`.
    Retry = "retry", "retry", Caller;
    /// `ejection`.
    Ejection = "ejection", "ejection", Caller;
    /// `breaker`.
    Breaker = "breaker", "breaker", Caller;
    /// `fallback`.
    Fallback = "fallback", "fallback", Caller;
    /// A limit that each pod keeps by itself.
    InstanceLimit = "instance-limit", "rateLimits with scope Instance", Server;
    /// A limit that all pods of a Service keep together.
    ServiceLimit = "service-limit", "rateLimits with scope Service", Server;
    /// `priority`. Callers' proxies carry it out as well: they hold back the lower classes
    /// first.
    Priority = "priority", "priority", Server;
    /// `overload`.
    Overload = "overload", "overload", Server;
    /// `mirror`: making the copies.
    Mirror = "mirror", "mirror", Caller;
    /// What a pod may not do that gets nothing but copies.
    ReadOnly = "read-only", "mirror with downstream ReadOnly", Server;
    /// A `balance.locality` other than None.
    Locality = "locality", "balance.locality", Caller;
    /// A `balance.subset` other than 0.
    Subset = "subset", "balance.subset", Caller;
    /// `balance.warmup`.
    Warmup = "warmup", "balance.warmup", Caller;
    /// `sticky`.
    Sticky = "sticky", "sticky", Caller;
    /// `overrides`.
    Overrides = "overrides", "overrides", Caller;
    /// Harming calls, by a grant.
    Fault = "fault", "fault of a FaultExperiment", Caller;
    /// Counting the calls of a FaultExperiment's groups apart.
    Groups = "groups", "checks of a FaultExperiment", Server;
}

impl Part {
    /// What the proxies of this version carry out: all that there is, while no part waits for its
    /// implementation.
    pub const IN_FORCE: &'static [Self] = Self::ALL;
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.field())
    }
}

/// A set of [`Part`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parts(u32);

impl Parts {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self::of(Part::ALL);
    pub const IN_FORCE: Self = Self::of(Part::IN_FORCE);

    #[must_use]
    pub const fn of(parts: &[Part]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < parts.len() {
            bits |= 1 << parts[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    #[must_use]
    pub const fn has(self, part: Part) -> bool {
        self.0 & (1 << part as u32) != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Part> {
        let all = Part::ALL.iter().copied();
        all.filter(move |part| self.has(*part))
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Self> for Parts {
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, Self::and)
    }
}

#[cfg(test)]
mod tests;
