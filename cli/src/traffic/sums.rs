//! Sums edges into the figures of one row.
//!
//! A row is for a named object, a Deployment or a namespace, and so for many edges. Counts are
//! added; latencies cannot be added, and their distributions are merged instead.

use crds::observe::{Edge, Latency, RouteSums};
use policy::reason::Reason;

use crate::output::number;
use crate::output::table::{Cell, Tone};

/// Sums over several edges.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficTotals {
    /// Requests, as counted by their callers.
    pub(crate) requests: u64,
    /// Served.
    pub(crate) success: u64,
    /// Not served.
    pub(crate) failure: u64,
    /// Those failures that the mesh refused by policy.
    pub(crate) refused: u64,
    /// Calls still open at the end of the window.
    pub(crate) open: u64,
    /// Attempts, with retries.
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

    /// Latency over all edges.
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

/// Bisection steps for a quantile.
const STEPS: usize = 40;

/// Latencies of several edges as one, with how many requests each stands for. Each edge reports
/// three quantiles, which cannot be averaged: the mixture of the distributions that they outline is
/// evaluated instead.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mixture {
    parts: Vec<(f64, Latency)>,
}

impl Mixture {
    /// Adds the latencies of so many requests.
    pub(crate) fn add(&mut self, requests: u64, latency: Option<Latency>) {
        if let Some(latency) = latency.filter(|_| requests > 0) {
            self.parts.push((requests as f64, latency));
        }
    }

    /// Latency of all requests together; exact for one edge.
    #[must_use]
    pub(crate) fn whole(&self) -> Option<Latency> {
        match self.parts.as_slice() {
            [] => None,
            [(_, only)] => Some(*only),
            _ => Some(Latency {
                p50: self.quantile(0.5),
                p95: self.quantile(0.95),
                p99: self.quantile(0.99),
            }),
        }
    }

    fn quantile(&self, share: f64) -> f64 {
        let all: f64 = self.parts.iter().map(|(requests, _)| requests).sum();
        let largest = self.parts.iter().map(|(_, latency)| latency.p99);
        let (mut low, mut high) = (0.0, largest.fold(0.0, f64::max));
        for _ in 0..STEPS {
            let middle = f64::midpoint(low, high);
            let within: f64 = self
                .parts
                .iter()
                .map(|(requests, latency)| requests * within(latency, middle))
                .sum();
            if within < share * all {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

/// The share of an edge's requests that took at most `ms`, interpolated linearly between the known
/// quantiles.
fn within(latency: &Latency, ms: f64) -> f64 {
    let known = [
        (0.0, 0.0),
        (latency.p50, 0.5),
        (latency.p95, 0.95),
        (latency.p99, 0.99),
    ];
    if ms >= latency.p99 {
        return 1.0;
    }
    for pair in known.windows(2) {
        let [(from, low), (to, high)] = [pair[0], pair[1]];
        if ms < to {
            return low + (high - low) * (ms - from) / (to - from);
        }
    }
    1.0
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

    fn latency(p50: f64, p95: f64, p99: f64) -> Option<Latency> {
        Some(Latency { p50, p95, p99 })
    }

    #[test]
    fn single_edge_keeps_its_exact_latencies() {
        let mut mixture = Mixture::default();
        assert_eq!(mixture.whole(), None);
        mixture.add(10, latency(1.0, 2.0, 3.0));
        mixture.add(0, latency(90.0, 91.0, 92.0));
        mixture.add(5, None);
        assert_eq!(mixture.whole(), latency(1.0, 2.0, 3.0));
    }

    #[test]
    fn many_fast_and_few_slow_calls_are_not_averaged() {
        let mut mixture = Mixture::default();
        mixture.add(970, latency(1.0, 2.0, 3.0));
        mixture.add(30, latency(500.0, 900.0, 1000.0));
        let whole = mixture.whole().unwrap();
        assert!(whole.p50 < 1.2, "{whole:?}");
        assert!(whole.p95 < 4.0, "97 % of the calls are fast: {whole:?}");
        assert!(
            whole.p99 > 400.0,
            "the slow ones show in the last hundredth: {whole:?}"
        );
    }
}
