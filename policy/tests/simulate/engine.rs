//! Chance, time and events of a simulation, the same for the same seed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use policy::sticky::{STEP, mix};

pub(crate) const SEEDS: u64 = 20;

/// Runs a claim with every seed, on all cores. What `run` returns is shown if it fails.
pub(crate) fn with_every_seed<T: Send + std::fmt::Debug>(
    run: impl Fn(u64) -> T + Sync,
    holds: impl Fn(&T) -> bool,
) {
    let next = std::sync::atomic::AtomicU64::new(0);
    let worker = || {
        let mut results = Vec::new();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= SEEDS {
                return results;
            }
            results.push((seed, run(seed)));
        }
    };
    let mut results: Vec<(u64, T)> = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap());
        joined.flatten().collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    let failed: Vec<_> = results
        .iter()
        .filter(|(_, result)| !holds(result))
        .collect();
    assert!(failed.is_empty(), "seeds that miss it: {failed:#?}");
}

/// splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(99));
        dice.roll();
        dice
    }

    pub(crate) fn roll(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        number
    }

    /// From 0 to 1, without 0.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.roll() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, of: f64) -> bool {
        self.unit() <= of
    }

    /// Seconds between arrivals at this rate.
    pub(crate) fn gap(&mut self, per_second: f64) -> Duration {
        Duration::from_secs_f64(-self.unit().ln() / per_second)
    }

    /// With this mean.
    pub(crate) fn lognormal(&mut self, mean: Duration, sigma: f64) -> Duration {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        mean.mul_f64((sigma * normal - sigma * sigma / 2.0).exp())
    }
}

/// What happens when, in order of time and then of planning.
#[derive(Debug)]
pub(crate) struct Events<E> {
    start: Instant,
    now: Duration,
    planned: u64,
    heap: BinaryHeap<Reverse<Event<E>>>,
}

#[derive(Debug)]
struct Event<E> {
    at: Duration,
    number: u64,
    what: E,
}

impl<E> PartialEq for Event<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Event<E> {}

impl<E> PartialOrd for Event<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Event<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Events<E> {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            now: Duration::ZERO,
            planned: 0,
            heap: BinaryHeap::new(),
        }
    }

    pub(crate) fn after(&mut self, wait: Duration, what: E) {
        self.planned += 1;
        self.heap.push(Reverse(Event {
            at: self.now + wait,
            number: self.planned,
            what,
        }));
    }

    pub(crate) fn next(&mut self) -> Option<E> {
        let Reverse(event) = self.heap.pop()?;
        self.now = event.at;
        Some(event.what)
    }

    /// Since the beginning.
    pub(crate) fn since(&self) -> Duration {
        self.now
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.now
    }
}

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The value below which this part of them lies.
pub(crate) fn percentile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    values[((values.len() - 1) as f64 * part) as usize]
}
