//! Edges added up into the figures of one row.
//!
//! A row stands for a named object, a Deployment or a namespace, and so for many edges. Counts are
//! added; latencies are not numbers that add up, and are mixed instead.

use crds::observe::{Edge, Latency, RouteSums};
use policy::reason::Reason;

use super::latency::Mixture;
use crate::output::number;
use crate::output::table::{Cell, Tone};

/// What was counted on some edges.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficTotals {
    /// As their callers saw them.
    pub(crate) requests: u64,
    /// Served.
    pub(crate) success: u64,
    /// Not served.
    pub(crate) failure: u64,
    /// Of the failures those that the mesh refused by policy.
    pub(crate) refused: u64,
    /// Open at the end.
    pub(crate) open: u64,
    /// What was sent, retries too.
    pub(crate) attempts: u64,
    latency: Mixture,
}

impl TrafficTotals {
    /// Adds an edge.
    pub(crate) fn add(&mut self, edge: &Edge) {
        self.requests += edge.requests;
        self.success += edge.success;
        self.failure += edge.failure;
        self.refused += edge
            .refused
            .iter()
            .filter(|(reason, _)| is_policy(reason))
            .map(|(_, calls)| calls)
            .sum::<u64>();
        self.open += edge.open;
        self.attempts += edge.attempts;
        self.latency.add(edge.requests, edge.ms);
    }

    /// Adds what one route of an edge counted.
    pub(crate) fn add_route(&mut self, route: &RouteSums) {
        self.requests += route.requests;
        self.failure += route.failure;
        let other = route.failure.saturating_add(route.cancelled);
        self.success += route.requests.saturating_sub(other);
        self.latency.add(route.requests, route.ms);
    }

    /// The share of served calls among those that ended.
    #[must_use]
    pub(crate) fn success_cell(&self) -> Cell {
        number::share(self.success, self.success + self.failure)
    }

    /// Requests per second.
    #[must_use]
    pub(crate) fn rate_cell(&self, seconds: f64) -> Cell {
        number::rate(self.requests, seconds).into()
    }

    /// Refusals by policy; red if there are any.
    #[must_use]
    pub(crate) fn refused_cell(&self) -> Cell {
        match self.refused {
            0 => "0".into(),
            some => Cell::toned(some.to_string(), Tone::Bad),
        }
    }

    /// Failures that no policy caused.
    #[must_use]
    pub(crate) fn failed_cell(&self) -> Cell {
        match self.failure.saturating_sub(self.refused) {
            0 => "0".into(),
            some => Cell::toned(some.to_string(), Tone::Bad),
        }
    }

    /// Latency of all of them.
    #[must_use]
    pub(crate) fn latency(&self) -> Option<Latency> {
        self.latency.whole()
    }

    /// p50, p95 and p99.
    #[must_use]
    pub(crate) fn latency_cells(&self) -> [Cell; 3] {
        let whole = self.latency();
        let cell = |of: fn(&Latency) -> f64| number::millis(whole.as_ref().map(of)).into();
        [cell(|ms| ms.p50), cell(|ms| ms.p95), cell(|ms| ms.p99)]
    }
}

fn is_policy(reason: &str) -> bool {
    let mut reasons = Reason::BY_POLICY.iter();
    reasons.any(|one| one.as_str() == reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_refusals_are_counted_apart_from_failures() {
        let mut sums = TrafficTotals::default();
        let refused = [("not-allowed", 3), ("limit", 2), ("no-endpoint", 7)];
        sums.add(&Edge {
            requests: 20,
            success: 4,
            failure: 16,
            refused: refused.map(|(why, calls)| (why.to_owned(), calls)).into(),
            ..Edge::default()
        });
        assert_eq!(sums.refused_cell(), Cell::toned("5", Tone::Bad));
        assert_eq!(sums.failed_cell(), Cell::toned("11", Tone::Bad));
    }

    #[test]
    fn cancelled_route_requests_are_not_successes() {
        let mut sums = TrafficTotals::default();
        let of = |requests, failure, cancelled| RouteSums {
            requests,
            failure,
            cancelled,
            ..RouteSums::default()
        };
        sums.add_route(&of(100, 0, 100));
        assert_eq!((sums.success, sums.failure), (0, 0));
        assert_eq!(sums.success_cell(), Cell::default());
        sums.add_route(&of(10, 3, 2));
        assert_eq!((sums.requests, sums.success, sums.failure), (110, 5, 3));
    }
}
