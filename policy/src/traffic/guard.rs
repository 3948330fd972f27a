//! The sections that the proxy of an application enforces: limits, priority and overload.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;

/// One entry of `rateLimits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub name: Arc<str>,
    /// So many in each `per`.
    pub requests: u32,
    pub per: Duration,
    /// So many at once; [`RateLimit::default_burst`] where the user sets none.
    pub burst: u32,
    pub key: LimitKey,
    pub scope: LimitScope,
    pub mode: LimitMode,
}

impl RateLimit {
    /// What one second lets through, and at least one.
    #[must_use]
    pub fn default_burst(requests: u32, per: Duration) -> u32 {
        let per = per.as_millis().max(1);
        let second = u128::from(requests) * 1000 / per;
        u32::try_from(second).unwrap_or(u32::MAX).max(1)
    }
}

/// Which callers share a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LimitKey {
    /// All of them.
    #[default]
    None,
    /// Each proven identity has its own; all outside the mesh have one.
    Caller,
    /// Each value of this header, of each caller.
    Header(HeaderName),
    /// Each address from which clients call a Gateway, of each Gateway; as `Caller` where no
    /// Gateway calls.
    ClientAddress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitScope {
    /// All ready pods together.
    #[default]
    Service,
    /// Each pod by itself.
    Instance,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitMode {
    #[default]
    Enforce,
    /// Counted, and passed on.
    Audit,
}

/// `priority`, from the first that is shed to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    Sheddable,
    #[default]
    Normal,
    Critical,
}

impl Priority {
    pub const ALL: [Self; 3] = [Self::Sheddable, Self::Normal, Self::Critical];

    /// The value of `weft-priority`, of the field and of the metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "Sheddable",
            Self::Normal => "Normal",
            Self::Critical => "Critical",
        }
    }

    /// The class in a header; `None` where it is no class.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|one| raw.eq_ignore_ascii_case(one.as_str().as_bytes()))
    }

    /// The class of a call: the one that policies set, or Normal, and never above the one that
    /// its caller requests.
    #[must_use]
    pub fn of_call(requested: Option<Self>, policy: Option<Self>) -> Self {
        let configured = policy.unwrap_or_default();
        requested.map_or(configured, |requested| requested.min(configured))
    }

    /// The class of a request that can be read in several ways, of what policies say of each;
    /// `None`: nothing of any.
    #[must_use]
    pub fn lowest(classes: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        let lower = |one: Option<Self>, other: Option<Self>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or_default().min(other.unwrap_or_default())),
        };
        classes.into_iter().reduce(lower).flatten()
    }

    /// One class lower, as for a retry.
    #[must_use]
    pub const fn lower(self) -> Self {
        match self {
            Self::Critical => Self::Normal,
            Self::Normal | Self::Sheddable => Self::Sheddable,
        }
    }
}

/// `overload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    pub mode: OverloadMode,
    /// How much longer than in calm times a call may wait.
    pub queue_time: Duration,
    /// A bound that holds whatever is measured, and that lower classes leave a part of to
    /// higher ones; `None`: none.
    pub max_concurrency: Option<u32>,
}

/// `overload.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverloadMode {
    #[default]
    Adaptive,
    /// Counts what it would shed, and sheds nothing.
    Audit,
    Off,
}

impl Overload {
    pub const DEFAULT: Self = Self {
        mode: OverloadMode::Adaptive,
        queue_time: Duration::from_millis(100),
        max_concurrency: None,
    };
}

impl Default for Overload {
    fn default() -> Self {
        Self::DEFAULT
    }
}
