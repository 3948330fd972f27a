//! An application: workers, a queue before them, mixed routes, and pauses now and then.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::{Dice, ms, secs};

/// Routes by share and mean time of work, in microseconds: 10 ms in the mean.
const ROUTES: [(f64, u64); 3] = [(0.7, 7000), (0.25, 14_000), (0.05, 32_000)];

/// An application that works on `J`obs.
#[derive(Debug)]
pub(crate) struct Server<J> {
    workers: usize,
    busy: usize,
    queue: VecDeque<J>,
    paused_until: Duration,
    next_pause: Duration,
    /// Times that the work takes.
    slower: f64,
    dice: Dice,
}

impl<J> Server<J> {
    pub(crate) fn new(workers: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let next_pause = secs(5).mul_f64(1.0 + 2.0 * dice.unit());
        Self {
            workers,
            busy: 0,
            queue: VecDeque::new(),
            paused_until: Duration::ZERO,
            next_pause,
            slower: 1.0,
            dice,
        }
    }

    /// The same with work that takes so many times as long.
    pub(crate) fn slower(self, slower: f64) -> Self {
        Self { slower, ..self }
    }

    /// When the job is done, if a worker is free; it waits otherwise.
    pub(crate) fn take(&mut self, now: Duration, job: J) -> Option<(Duration, J)> {
        if self.busy < self.workers {
            self.busy += 1;
            Some((self.work(now), job))
        } else {
            self.queue.push_back(job);
            None
        }
    }

    /// A worker is done, and takes the next job.
    pub(crate) fn done(&mut self, now: Duration) -> Option<(Duration, J)> {
        match self.queue.pop_front() {
            Some(job) => Some((self.work(now), job)),
            None => {
                self.busy -= 1;
                None
            }
        }
    }

    /// How long from now: a pause, about every ten seconds and of up to 80 ms, stops all. A
    /// longer one than `queueTime` would be an overload by definition.
    fn work(&mut self, now: Duration) -> Duration {
        let mut point = self.dice.unit();
        let route = ROUTES.iter().find(|(share, _)| {
            point -= share;
            point <= 0.0
        });
        let mean = Duration::from_micros(route.map_or(ROUTES[0].1, |(_, mean)| *mean));
        let work = self.dice.lognormal(mean.mul_f64(self.slower), 0.5);
        if now >= self.next_pause {
            self.paused_until = now + ms(20).mul_f64(1.0 + 3.0 * self.dice.unit());
            self.next_pause = now + secs(5).mul_f64(1.0 + 2.0 * self.dice.unit());
        }
        self.paused_until.saturating_sub(now) + work
    }
}

impl<J> Server<J> {
    /// They begin with the jobs that are taken next.
    pub(crate) fn add_workers(&mut self, more: usize) {
        self.workers += more;
    }
}
