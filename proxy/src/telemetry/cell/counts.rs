//! The counters of one cell: calls by outcome, and sums of bytes and times.

use policy::latency::Histogram;
use policy::origin::Origin;
use policy::reason::Reason;

use crate::telemetry::histogram::Exemplars;

/// Rules that one cell counts, as many as an edge of a report has room for.
pub(super) const RULES: usize = 8;

/// How a call ended, as far as series distinguish it. The status of an opaque connection is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CallOutcome {
    pub status: u16,
    pub success: bool,
    /// Why the mesh answered or ended it instead of the application.
    pub reason: Option<Reason>,
}

impl CallOutcome {
    /// The application found fault with the request.
    pub(crate) fn is_client_error(&self) -> bool {
        self.reason.is_none() && (400..500).contains(&self.status)
    }

    /// Never 0, which is the mark of an empty place.
    pub(super) fn packed(self) -> u32 {
        let known = Reason::ALL.iter().position(|one| Some(*one) == self.reason);
        let reason = known.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0);
        u32::from(self.status) | u32::from(self.success) << 16 | u32::from(reason) << 17 | 1 << 31
    }

    pub(super) fn unpacked(packed: u32) -> Self {
        let reason = (packed >> 17 & 0xff) as usize;
        Self {
            status: (packed & 0xffff) as u16,
            success: packed >> 16 & 1 == 1,
            reason: reason
                .checked_sub(1)
                .and_then(|at| Reason::ALL.get(at))
                .copied(),
        }
    }
}

/// What came together in a cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub outcomes: Vec<(CallOutcome, u64)>,
    /// Requests by time to the head of the answer, and these times together.
    pub latency: Histogram,
    pub nanoseconds: u64,
    pub started: u64,
    pub cancelled: u64,
    /// Tries that ended, those whose caller left included.
    pub attempts: u64,
    pub attempt_failures: u64,
    pub attempts_left: u64,
    pub audit: u64,
    pub sent: u64,
    pub received: u64,
    /// What allowed calls.
    pub rules: Vec<Origin>,
    /// For the page; reports have no place for them.
    pub exemplars: Exemplars,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        for (outcome, calls) in other.outcomes {
            match self
                .outcomes
                .iter_mut()
                .find(|(current, _)| *current == outcome)
            {
                Some((_, current)) => *current += calls,
                None => self.outcomes.push((outcome, calls)),
            }
        }
        self.latency.add(other.latency.counts().iter().copied());
        self.nanoseconds += other.nanoseconds;
        self.started += other.started;
        self.cancelled += other.cancelled;
        self.attempts += other.attempts;
        self.attempt_failures += other.attempt_failures;
        self.attempts_left += other.attempts_left;
        self.audit += other.audit;
        self.sent += other.sent;
        self.received += other.received;
        for rule in other.rules {
            if self.rules.len() < RULES && !self.rules.contains(&rule) {
                self.rules.push(rule);
            }
        }
    }

    /// Tries that succeeded and that failed. The result of those whose caller left is unknown.
    pub(crate) fn attempts_by_success(&self) -> (u64, u64) {
        let completed = self.attempts.saturating_sub(self.attempts_left);
        let failed = self.attempt_failures;
        (completed.saturating_sub(failed), failed)
    }

    /// Calls of all outcomes that fit.
    pub(crate) fn calls(&self, fits: impl Fn(&CallOutcome) -> bool) -> u64 {
        let fitting = self.outcomes.iter().filter(|(outcome, _)| fits(outcome));
        fitting.map(|(_, calls)| calls).sum()
    }
}
