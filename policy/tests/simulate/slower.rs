//! An application whose calls become slower is not shed for it, and one that is full then is.
//!
//! Claims: calls-69

use std::collections::VecDeque;
use std::time::Duration;

use policy::overload::{Limiter, Throttle};
use policy::traffic::guard::{Overload, Priority};

use crate::engine::{Dice, Events, secs, with_every_seed};

const SETTINGS: Overload = Overload::DEFAULT;
/// As many as it gets: an asynchronous application.
const UNLIMITED: usize = usize::MAX;
/// It changes after so long, and is looked at for so long from then on.
const CALM: Duration = secs(30);
const AFTER: Duration = secs(100);
/// From then on nothing may be refused, and goodput is counted.
const SETTLED: Duration = secs(20);

#[derive(Clone, Copy, Debug)]
enum Shape {
    Step,
    /// Over so many seconds.
    Ramp(u64),
    /// A dependency that is slow for so many seconds.
    Recovers(u64),
}

#[derive(Clone, Copy, Debug)]
struct Application {
    workers: usize,
    /// What a call takes at first, in seconds, and so many times as long after the change.
    takes: f64,
    factor: f64,
    shape: Shape,
    /// Spread of the lognormal times; 0: all take the same.
    sigma: f64,
    /// Arrivals per second.
    rate: f64,
}

impl Application {
    /// Calls that it can answer in a second after the change.
    fn capacity(&self) -> f64 {
        self.workers as f64 / (self.takes * self.factor)
    }

    fn load_before(&self) -> f64 {
        self.rate * self.takes / self.workers as f64
    }

    fn load_after(&self) -> f64 {
        self.rate / self.capacity()
    }

    fn work(&self, since: Duration, dice: &mut Dice) -> Duration {
        let changed = since.saturating_sub(CALM).as_secs_f64();
        let part = match self.shape {
            _ if changed == 0.0 => 0.0,
            Shape::Step => 1.0,
            Shape::Ramp(seconds) => (changed / seconds as f64).min(1.0),
            Shape::Recovers(seconds) => f64::from(changed < seconds as f64),
        };
        let mean = Duration::from_secs_f64(self.takes * (1.0 + (self.factor - 1.0) * part));
        if self.sigma == 0.0 {
            mean
        } else {
            dice.lognormal(mean, self.sigma)
        }
    }
}

enum Event {
    Arrival,
    Done(Call),
}

#[derive(Clone, Copy)]
struct Call {
    arrived: Duration,
    /// By the caller's throttle, when it was sent.
    counted: bool,
}

/// After the change.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    arrived: u32,
    /// By the application's proxy, or by the caller's.
    refused: u32,
    /// Those of them after [`SETTLED`].
    refused_late: u32,
    /// Answers after [`SETTLED`] within a second more than the work takes then.
    good: u32,
}

struct Scene {
    application: Application,
    events: Events<Event>,
    dice: Dice,
    limiter: Limiter,
    throttle: Option<Throttle>,
    busy: usize,
    queue: VecDeque<Call>,
    seen: Seen,
}

impl Scene {
    fn run(application: Application, seed: u64) -> Seen {
        let (mut events, mut dice) = (Events::new(), Dice::new(seed));
        events.after(dice.gap(application.rate), Event::Arrival);
        let mut scene = Self {
            application,
            limiter: Limiter::new(events.now()),
            events,
            dice,
            throttle: None,
            busy: 0,
            queue: VecDeque::new(),
            seen: Seen::default(),
        };
        while scene.events.since() < CALM + AFTER {
            match scene.events.next().unwrap() {
                Event::Arrival => scene.arrival(),
                Event::Done(call) => scene.done(call),
            }
        }
        scene.seen
    }

    fn arrival(&mut self) {
        let gap = self.dice.gap(self.application.rate);
        self.events.after(gap, Event::Arrival);
        let (now, since) = (self.events.now(), self.events.since());
        self.seen.arrived += u32::from(since >= CALM);
        self.throttle.take_if(|throttle| throttle.is_over(now));
        let counted = self.throttle.is_some();
        if let Some(throttle) = &mut self.throttle
            && throttle.refuses(now, self.dice.roll())
        {
            return self.refused(since);
        }
        let admit = self.limiter.arrive(now, Priority::Normal, false, &SETTINGS);
        if !admit.passes() {
            let throttle = self.throttle.get_or_insert_with(|| Throttle::new(now));
            throttle.record(now, counted, true);
            return self.refused(since);
        }
        let call = Call {
            arrived: since,
            counted,
        };
        if self.busy < self.application.workers {
            self.busy += 1;
            self.begin(call);
        } else {
            self.queue.push_back(call);
        }
    }

    fn refused(&mut self, since: Duration) {
        self.seen.refused += 1;
        self.seen.refused_late += u32::from(since >= CALM + SETTLED);
    }

    fn begin(&mut self, call: Call) {
        let work = self.application.work(self.events.since(), &mut self.dice);
        self.events.after(work, Event::Done(call));
    }

    fn done(&mut self, call: Call) {
        let (now, since) = (self.events.now(), self.events.since());
        let took = since - call.arrived;
        self.limiter.done(now, took, &SETTINGS);
        if let Some(throttle) = &mut self.throttle {
            throttle.record(now, call.counted, false);
        }
        let good = secs(1).as_secs_f64() + self.application.takes * self.application.factor;
        let is_good = since >= CALM + SETTLED && took.as_secs_f64() <= good;
        self.seen.good += u32::from(is_good);
        match self.queue.pop_front() {
            Some(next) => self.begin(next),
            None => self.busy -= 1,
        }
    }
}

/// All that fit the load before the change.
fn applications(factors: &[f64], shapes: &[Shape], sigma: f64) -> Vec<Application> {
    let mut all = Vec::new();
    for workers in [1, 4, 16, UNLIMITED] {
        for takes in [0.01, 0.1] {
            for factor in factors {
                for rate in [5.0, 30.0, 80.0, 200.0] {
                    all.extend(shapes.iter().map(|shape| Application {
                        workers,
                        takes,
                        factor: *factor,
                        shape: *shape,
                        sigma,
                        rate,
                    }));
                }
            }
        }
    }
    all.retain(|one| one.load_before() <= 0.8);
    all
}

/// Those of which more is refused than one in twenty, or anything once they have settled.
fn refused_for_being_slower(applications: &[Application], seed: u64) -> Vec<(Application, Seen)> {
    let not_full = applications.iter().filter(|one| one.load_after() <= 0.8);
    not_full
        .map(|one| (*one, Scene::run(*one, seed)))
        .filter(|(_, seen)| seen.refused * 20 > seen.arrived || seen.refused_late > 0)
        .collect()
}

#[test]
fn asynchronous_application_that_becomes_slower_is_not_shed() {
    let application = Application {
        workers: UNLIMITED,
        takes: 0.1,
        factor: 20.0,
        shape: Shape::Step,
        sigma: 0.0,
        rate: 30.0,
    };
    let run = |seed| Scene::run(application, seed).refused;
    with_every_seed(run, |refused| *refused == 0);
}

#[test]
fn applications_that_become_slower_and_not_full_are_served() {
    let shapes = [
        Shape::Step,
        Shape::Ramp(5),
        Shape::Ramp(20),
        Shape::Recovers(15),
    ];
    let mut all = applications(&[2.0, 3.5, 5.0, 20.0], &shapes, 0.0);
    all.extend(applications(&[2.0, 5.0, 20.0], &shapes, 0.2));
    // Of five seconds those whose calls take the same.
    all.extend(applications(
        &[50.0],
        &[Shape::Step, Shape::Recovers(15)],
        0.0,
    ));
    let all = &all;
    for_a_few_seeds(|seed| refused_for_being_slower(all, seed));
}

/// From eighty calls a second on, which show within seconds what it can do.
#[test]
fn applications_that_become_slower_and_full_go_on() {
    let mut all = applications(&[2.0, 3.5, 5.0, 20.0], &[Shape::Step], 0.0);
    all.extend(applications(&[2.0, 3.5, 5.0, 20.0], &[Shape::Step], 0.2));
    all.retain(|one| one.load_after() >= 1.2 && one.capacity() >= 80.0);
    assert!(all.len() >= 6, "{}", all.len());
    let all = &all;
    for_a_few_seeds(|seed| {
        let seen = all.iter().map(|one| (*one, Scene::run(*one, seed)));
        seen.filter(|(one, seen)| {
            let looked_at = (AFTER - SETTLED).as_secs_f64();
            f64::from(seen.good) < 0.9 * one.capacity() * looked_at
        })
        .collect()
    });
}

/// A grid is wide, so that fewer seeds do: one thing is tried in hundreds of applications.
fn for_a_few_seeds(missed: impl Fn(u64) -> Vec<(Application, Seen)> + Sync) {
    const FEW: u64 = 3;
    let run = |seed| {
        if seed < FEW { missed(seed) } else { Vec::new() }
    };
    with_every_seed(run, Vec::is_empty);
}
