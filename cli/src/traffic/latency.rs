//! Latencies of several edges as one. Each edge reports three quantiles, which cannot be averaged:
//! the mixture of the distributions that they outline is evaluated instead.

use crds::observe::Latency;

/// Halvings until a quantile is known to a thousandth.
const STEPS: usize = 40;

/// Latencies with how many requests each stands for.
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

    /// What all of them together have; exact where there is one.
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

/// The share of an edge's requests that took at most `ms`, by lines between what is known.
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
