//! The breaker of a Service for the whole fleet of proxies, which the controller computes.
//!
//! Every replica adds up the same breaker reports and gets the same result. Accounts are compared,
//! not pods: an account with a hundred pods counts once, as it is one client with one bug.
//!
//! In use: [`Fleet::add_counts`] for each breaker report, with the pod of its stream;
//! [`Fleet::tick`] after breaker reports and every second, and then [`Fleet::fleet_state`] is sent
//! where it changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::breaker::window::{Probes, Sum, Window};
use crate::breaker::{BreakerCounts, FleetBreakerState, RAMP};
use crate::traffic::endpoint::Breaker as Settings;

/// Between two probes of the whole mesh: ten in a second.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBES_IN_A_SECOND: u32 = 10;
/// So many decide.
const ENOUGH_PROBES: u32 = 20;

/// Calling accounts and proxies of one Service that are kept apart; what comes beyond is
/// not counted. The median of so many is not moved by some more.
pub const ACCOUNTS: usize = 1000;
pub const PROXIES: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { since: Instant },
    Probing { since: Instant },
    Closing { since: Instant },
}

/// Accounts `A` and proxies `P` that call one Service.
#[derive(Debug)]
pub struct Fleet<A, P> {
    accounts: BTreeMap<A, Window>,
    /// When each last wanted something there.
    callers: BTreeMap<P, Instant>,
    phase: Phase,
    /// The only account that saw the failures it is open for; `None`: others saw them too.
    alone: Option<A>,
    probes: Probes,
    /// When a proxy last obeyed while it probes: rejected a request, or sent or ended a
    /// probe.
    obeyed: Instant,
}

/// For `status.breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetReport {
    pub open: bool,
    /// As the median account sees it.
    pub failure_percent: u8,
    pub requests: u32,
    pub callers: usize,
}

impl<A: Ord + Clone, P: Ord + Clone> Fleet<A, P> {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            accounts: BTreeMap::new(),
            callers: BTreeMap::new(),
            phase: Phase::Closed,
            alone: None,
            probes: Probes::default(),
            obeyed: now,
        }
    }

    pub fn add_counts(
        &mut self,
        now: Instant,
        account: &A,
        proxy: &P,
        counts: BreakerCounts,
        settings: &Settings,
    ) {
        if self.callers.contains_key(proxy) || self.callers.len() < PROXIES {
            self.callers.insert(proxy.clone(), now);
        }
        if self.accounts.contains_key(account) || self.accounts.len() < ACCOUNTS {
            let window = self.accounts.entry(account.clone());
            let window = window.or_insert_with(|| Window::new(now));
            window.add(
                now,
                settings.interval,
                counts.sent,
                counts.failed.min(counts.sent),
            );
        }
        if matches!(self.phase, Phase::Probing { .. }) {
            if counts.refused > 0 || counts.sent_probes > 0 || counts.probes > 0 {
                self.obeyed = now;
            }
            for at in 0..counts.probes.min(self.probes_of_one()) {
                self.probes.add(at < counts.failed_probes);
            }
        }
    }

    /// Whether this proxy is among those that are counted.
    #[must_use]
    pub fn knows(&self, proxy: &P) -> bool {
        self.callers.contains_key(proxy)
    }

    /// How many there are.
    #[must_use]
    pub fn callers(&self) -> usize {
        self.callers.len()
    }

    /// Probes that one proxy has in a second at most, and one that was late. So no proxy
    /// decides alone by making up more of them.
    fn probes_of_one(&self) -> u32 {
        let callers = u32::try_from(self.callers.len()).unwrap_or(u32::MAX);
        PROBES_IN_A_SECOND.div_ceil(callers.max(1)) + 1
    }

    /// Moves on to what follows from the time and from the reports.
    pub fn tick(&mut self, now: Instant, settings: &Settings) {
        self.forget(now, settings.interval);
        let percent = settings.failure_percent.get();
        let fails = self.fails(now, settings);
        // One that sees it later is the second voice, also where the first is silent by now.
        if fails
            && self
                .accounts
                .keys()
                .any(|one| self.alone.as_ref() != Some(one))
        {
            self.alone = None;
        }
        match self.phase {
            Phase::Closed | Phase::Closing { .. } if fails => {
                self.phase = Phase::Open { since: now };
                let mut accounts = self.accounts.keys();
                let first = accounts.next().cloned();
                self.alone = first.filter(|_| accounts.next().is_none());
            }
            Phase::Closing { since } if now >= since + RAMP => self.phase = Phase::Closed,
            Phase::Open { since } if now >= since + settings.open_time => {
                self.phase = Phase::Probing { since: now };
                self.probes = Probes::default();
                self.obeyed = now;
            }
            Phase::Probing { .. }
                if self.probes.are_good(ENOUGH_PROBES, percent) || self.is_idle(now, settings) =>
            {
                self.phase = Phase::Closing { since: now };
                // What was before counts no longer.
                self.accounts.clear();
            }
            Phase::Closed | Phase::Open { .. } | Phase::Probing { .. } | Phase::Closing { .. } => {}
        }
    }

    /// No proxy obeys, or none calls: there is nothing to protect. The breaker closes over
    /// the ramp all the same, as no proxy has seen a good response.
    fn is_idle(&self, now: Instant, settings: &Settings) -> bool {
        now >= self.obeyed + settings.interval
    }

    fn fails(&self, now: Instant, settings: &Settings) -> bool {
        let median = self.median(now, settings.interval);
        self.total(now, settings.interval).sent >= settings.min_requests
            && median.is_some_and(|median| median.fails(settings.failure_percent.get()))
    }

    /// Of an even number of accounts the one that fails less: more than half must see it.
    fn median(&self, now: Instant, interval: Duration) -> Option<Sum> {
        let sums = self
            .accounts
            .values()
            .map(|window| window.sum(now, interval));
        let mut sums: Vec<Sum> = sums.filter(|sum| sum.sent > 0).collect();
        let product = |a: u32, b: u32| u64::from(a) * u64::from(b);
        sums.sort_by(|a, b| product(a.failed, b.sent).cmp(&product(b.failed, a.sent)));
        let middle = sums.len().checked_sub(1)? / 2;
        sums.get(middle).copied()
    }

    fn total(&self, now: Instant, interval: Duration) -> Sum {
        let sums = self
            .accounts
            .values()
            .map(|window| window.sum(now, interval));
        sums.fold(Sum::default(), |sum, one| Sum {
            sent: sum.sent.saturating_add(one.sent),
            failed: sum.failed.saturating_add(one.failed),
        })
    }

    fn forget(&mut self, now: Instant, interval: Duration) {
        self.callers
            .retain(|_, last| now.saturating_duration_since(*last) <= interval);
        self.accounts
            .retain(|_, window| window.sum(now, interval).sent > 0);
    }

    /// The only account whose proxies get commands; `None`: all. An account that alone sees
    /// failures, by its own fault or made up, holds back no account that calls too seldom
    /// to have a voice.
    #[must_use]
    pub const fn sole_account(&self) -> Option<&A> {
        self.alone.as_ref()
    }

    /// The command for proxies. Probes are divided among those that call.
    #[must_use]
    pub fn fleet_state(&self, now: Instant) -> FleetBreakerState {
        match self.phase {
            Phase::Closed => FleetBreakerState::Closed,
            Phase::Open { .. } => FleetBreakerState::Open,
            Phase::Probing { .. } => {
                let callers = u32::try_from(self.callers.len()).unwrap_or(u32::MAX);
                FleetBreakerState::Probing {
                    every: PROBE_EVERY.saturating_mul(callers.max(1)),
                }
            }
            Phase::Closing { since } => FleetBreakerState::Closing {
                since: now.saturating_duration_since(since),
            },
        }
    }

    #[must_use]
    pub fn report(&self, now: Instant, settings: &Settings) -> FleetReport {
        let total = self.total(now, settings.interval);
        let median = self.median(now, settings.interval);
        FleetReport {
            open: matches!(self.phase, Phase::Open { .. } | Phase::Probing { .. }),
            failure_percent: median.map_or(0, Sum::percent),
            requests: total.sent,
            callers: self.callers.len(),
        }
    }
}
