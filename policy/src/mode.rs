//! The access and mTLS modes of a workload: how strict each is, and which objects may set it.

use std::fmt;
use std::str::FromStr;

/// What is refused when no rule allows a call. Ordered from loose to tight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessMode {
    /// Nothing is refused.
    Open,
    /// Deny's verdict is counted and logged, not enforced.
    Audit,
    /// Deny for workloads that a TrafficTarget protects, open for the others.
    Auto,
    /// What no rule allows is refused.
    Deny,
}

/// Whether callers without mutual TLS are served. Ordered from loose to tight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    Permissive,
    Strict,
}

/// What a proxy does with a verdict. The result of an [`AccessMode`] once it is
/// known whether the workload is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Enforcement {
    Open,
    Audit,
    Enforce,
}

/// A mode that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{raw:?} is not one of {expected}")]
pub struct BadMode {
    pub raw: String,
    pub expected: &'static str,
}

impl AccessMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Audit => "audit",
            Self::Auto => "auto",
            Self::Deny => "deny",
        }
    }

    /// `protected`: a TrafficTarget of the workload's own namespace names it as
    /// destination, be that target valid or not.
    pub fn enforcement(self, protected: bool) -> Enforcement {
        match self {
            Self::Deny => Enforcement::Enforce,
            Self::Auto if protected => Enforcement::Enforce,
            Self::Auto | Self::Open => Enforcement::Open,
            Self::Audit => Enforcement::Audit,
        }
    }
}

impl FromStr for AccessMode {
    type Err = BadMode;

    fn from_str(raw: &str) -> Result<Self, BadMode> {
        [Self::Open, Self::Audit, Self::Auto, Self::Deny]
            .into_iter()
            .find(|mode| mode.as_str() == raw)
            .ok_or_else(|| BadMode {
                raw: raw.to_owned(),
                expected: "deny, auto, open, audit",
            })
    }
}

impl fmt::Display for AccessMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl MtlsMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }
}

impl FromStr for MtlsMode {
    type Err = BadMode;

    fn from_str(raw: &str) -> Result<Self, BadMode> {
        [Self::Permissive, Self::Strict]
            .into_iter()
            .find(|mode| mode.as_str() == raw)
            .ok_or_else(|| BadMode {
                raw: raw.to_owned(),
                expected: "permissive, strict",
            })
    }
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The mode of one pod: its own word over its namespace's over the chart's, but
/// a pod may only tighten unless the installation lets pods loosen.
pub fn resolve<M: Ord>(chart: M, namespace: Option<M>, pod: Option<M>, pods_may_loosen: bool) -> M {
    let inherited = namespace.unwrap_or(chart);
    match pod {
        Some(own) if pods_may_loosen => own,
        Some(own) => own.max(inherited),
        None => inherited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AccessMode::{Audit, Auto, Deny, Open};

    #[test]
    fn tighter_modes_compare_greater() {
        assert!(Open < Audit && Audit < Auto && Auto < Deny);
        assert!(MtlsMode::Permissive < MtlsMode::Strict);
    }

    #[test]
    fn the_namespace_overrides_the_chart_both_ways() {
        assert_eq!(resolve(Auto, Some(Open), None, false), Open);
        assert_eq!(resolve(Auto, Some(Deny), None, false), Deny);
        assert_eq!(resolve(Auto, None, None, false), Auto);
    }

    #[test]
    fn pod_may_tighten_mode_but_loosens_only_if_allowed() {
        assert_eq!(resolve(Auto, None, Some(Deny), false), Deny);
        assert_eq!(resolve(Auto, Some(Deny), Some(Open), false), Deny);
        assert_eq!(resolve(Auto, Some(Deny), Some(Open), true), Open);
        assert_eq!(resolve(Deny, Some(Open), Some(Audit), false), Audit);
    }

    #[test]
    fn auto_guards_exactly_the_workloads_that_a_target_names() {
        assert_eq!(Auto.enforcement(true), Enforcement::Enforce);
        assert_eq!(Auto.enforcement(false), Enforcement::Open);
        for protected in [true, false] {
            assert_eq!(Deny.enforcement(protected), Enforcement::Enforce);
            assert_eq!(Audit.enforcement(protected), Enforcement::Audit);
            assert_eq!(Open.enforcement(protected), Enforcement::Open);
        }
    }

    #[test]
    fn modes_parse_exactly_as_written() {
        for mode in [Open, Audit, Auto, Deny] {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        for mode in [MtlsMode::Permissive, MtlsMode::Strict] {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        for raw in ["", "Deny", " deny", "allow"] {
            assert!(raw.parse::<AccessMode>().is_err(), "{raw:?}");
            assert!(raw.parse::<MtlsMode>().is_err(), "{raw:?}");
        }
    }
}
