//! The sections that belong to the Service that serves a call: which endpoints are ejected, when a
//! breaker stops all calls, and how calls are balanced.

use std::time::Duration;

use crate::traffic::set::{Percent, Statuses};

/// `ejection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// 0: off.
    pub consecutive_failures: u8,
    pub codes: Statuses,
    /// The first rest; each further one is twice as long.
    pub base_time: Duration,
    pub max_time: Duration,
    /// At most so many of the endpoints rest.
    pub max_percent: Percent,
}

impl Ejection {
    pub const DEFAULT: Self = Self {
        consecutive_failures: 5,
        codes: Statuses::of(&[502, 503, 504]),
        base_time: Duration::from_secs(5),
        max_time: Duration::from_secs(60),
        max_percent: Percent::at_most(34),
    };
}

impl Default for Ejection {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// `breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub state: BreakerState,
    pub failure_percent: Percent,
    /// The time over which calls and failures are compared.
    pub interval: Duration,
    pub min_requests: u32,
    /// From opening to the first probe.
    pub open_time: Duration,
}

/// `breaker.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    #[default]
    Auto,
    Open,
    Closed,
}

impl Breaker {
    pub const DEFAULT: Self = Self {
        state: BreakerState::Auto,
        failure_percent: Percent::at_most(50),
        interval: Duration::from_secs(10),
        min_requests: 50,
        open_time: Duration::from_secs(5),
    };
}

impl Default for Breaker {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// `balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// `None`: the Service's `trafficDistribution` decides.
    pub locality: Option<Locality>,
    pub subset: Subset,
    /// How long a new or returning endpoint takes to its full share; zero: no time.
    pub warmup: Duration,
}

/// `balance.locality`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locality {
    #[default]
    None,
    PreferSameZone,
    PreferSameNode,
}

/// `balance.subset`: how many endpoints one caller uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subset {
    /// 0.
    #[default]
    All,
    /// -1: all, until there are many.
    Automatic,
    /// At least one.
    Count(u32),
}

impl Balance {
    pub const DEFAULT: Self = Self {
        locality: None,
        subset: Subset::All,
        warmup: Duration::from_secs(10),
    };
}

impl Default for Balance {
    fn default() -> Self {
        Self::DEFAULT
    }
}
