//! Point 4: three times what a server can do, and 85 % of it.
//!
//! Claims: calls-69

use std::time::{Duration, Instant};

use policy::overload::Limiter;
use policy::traffic::guard::{Overload, Priority};

use crate::engine::{Dice, Events, ms, percentile, secs, with_every_seed};
use crate::server::Server;

const SETTINGS: Overload = Overload::DEFAULT;
/// Eight workers of 10 ms.
const CAPACITY: f64 = 800.0;
/// Four workers of 200 ms.
const FEW: f64 = 20.0;
/// 150 workers of one second.
const SLOW: f64 = 150.0;
/// What comes back later helps no caller.
const GOOD: Duration = secs(1);

#[derive(Clone, Copy, Debug)]
struct Job {
    arrived: Duration,
    let_in: Instant,
    critical: bool,
}

#[derive(Debug)]
enum Event {
    Arrival,
    Done(Job),
    Poll,
    PollDone(Instant),
}

#[derive(Debug, Default)]
struct Totals {
    arrived: u32,
    critical: u32,
    critical_good: u32,
    shed: u32,
    good: u32,
    times: Vec<Duration>,
}

struct Scene {
    events: Events<Event>,
    dice: Dice,
    server: Server<Job>,
    limiter: Limiter,
    totals: Totals,
    /// Arrivals per second.
    rate: f64,
    /// Long polls per second, which take no worker, and how long they stay, or half as long
    /// again.
    polls: f64,
    stay: Duration,
}

impl Scene {
    fn new(seed: u64, rate: f64, polls: f64) -> Self {
        let mut events = Events::new();
        let mut dice = Dice::new(seed);
        events.after(dice.gap(rate), Event::Arrival);
        if polls > 0.0 {
            events.after(dice.gap(polls), Event::Poll);
        }
        Self {
            limiter: Limiter::new(events.now()),
            server: Server::new(8, seed + 1000),
            events,
            dice,
            totals: Totals::default(),
            rate,
            polls,
            stay: secs(20),
        }
    }

    fn run(&mut self, until: Duration) -> Totals {
        while self.events.since() < until {
            match self.events.next().unwrap() {
                Event::Arrival => self.arrival(),
                Event::Done(job) => self.done(job),
                Event::Poll => self.poll(),
                Event::PollDone(let_in) => {
                    let now = self.events.now();
                    self.limiter.done(now, now - let_in, &SETTINGS);
                }
            }
        }
        std::mem::take(&mut self.totals)
    }

    fn arrival(&mut self) {
        self.events.after(self.dice.gap(self.rate), Event::Arrival);
        let critical = self.dice.chance(0.25);
        let priority = if critical {
            Priority::Critical
        } else {
            Priority::Normal
        };
        let now = self.events.now();
        self.totals.arrived += 1;
        self.totals.critical += u32::from(critical);
        if !self
            .limiter
            .arrive(now, priority, false, &SETTINGS)
            .passes()
        {
            self.totals.shed += 1;
            return;
        }
        let job = Job {
            arrived: self.events.since(),
            let_in: now,
            critical,
        };
        if let Some((wait, job)) = self.server.take(self.events.since(), job) {
            self.events.after(wait, Event::Done(job));
        }
    }

    fn done(&mut self, job: Job) {
        let (now, since) = (self.events.now(), self.events.since());
        let took = since - job.arrived;
        self.limiter.done(now, now - job.let_in, &SETTINGS);
        self.totals.times.push(took);
        if took <= GOOD {
            self.totals.good += 1;
            self.totals.critical_good += u32::from(job.critical);
        }
        if let Some((wait, job)) = self.server.done(since) {
            self.events.after(wait, Event::Done(job));
        }
    }

    fn poll(&mut self) {
        if self.polls <= 0.0 {
            return;
        }
        self.events.after(self.dice.gap(self.polls), Event::Poll);
        let now = self.events.now();
        if self
            .limiter
            .arrive(now, Priority::Normal, false, &SETTINGS)
            .passes()
        {
            let stay = self.stay.mul_f64(1.0 + self.dice.unit() / 2.0);
            self.events.after(stay, Event::PollDone(now));
        } else {
            self.totals.shed += 1;
        }
    }
}

#[derive(Debug)]
struct Overloaded {
    goodput: f64,
    p99_above_calm: Duration,
    critical_good: f64,
}

#[test]
fn server_at_triple_capacity_keeps_goodput_and_critical_calls() {
    let run = |seed| {
        let mut scene = Scene::new(seed, 0.5 * CAPACITY, 0.0);
        let mut calm = scene.run(secs(20));
        scene.rate = 3.0 * CAPACITY;
        let mut totals = scene.run(secs(80));
        Overloaded {
            goodput: f64::from(totals.good) / 60.0 / CAPACITY,
            p99_above_calm: percentile(&mut totals.times, 0.99)
                .saturating_sub(percentile(&mut calm.times, 0.99)),
            critical_good: f64::from(totals.critical_good) / f64::from(totals.critical),
        }
    };
    with_every_seed(run, |totals| {
        totals.goodput >= 0.9 && totals.p99_above_calm <= ms(250) && totals.critical_good >= 0.99
    });
}

/// Where nothing is shed next to nothing of it is good.
#[test]
fn server_of_20_per_second_survives_overload_unshed_before() {
    let run = |seed| {
        let mut scene = Scene::new(seed, 0.85 * FEW, 0.0);
        scene.server = Server::new(4, seed + 1000).slower(20.0);
        let busy = scene.run(secs(120));
        scene.rate = 0.5 * FEW;
        scene.run(secs(180));
        scene.rate = 3.0 * FEW;
        let totals = scene.run(secs(260));
        (busy.shed, f64::from(totals.good) / 80.0 / FEW)
    };
    with_every_seed(run, |(shed, goodput)| *shed == 0 && *goodput >= 0.4);
}

/// Completions fall behind each rise for a second or more, and the fast calls end first.
#[test]
fn one_second_calls_survive_cold_start_and_rise_unshed() {
    let run = |seed| {
        let slow = |rate| {
            let mut scene = Scene::new(seed, rate, 0.0);
            scene.server = Server::new(SLOW as usize, seed + 1000).slower(100.0);
            scene
        };
        let half = slow(0.5 * SLOW).run(secs(60)).shed;
        let cold = slow(0.85 * SLOW).run(secs(60)).shed;
        let mut scene = slow(0.1 * SLOW);
        let few = scene.run(secs(30)).shed;
        scene.rate = 0.85 * SLOW;
        let risen = scene.run(secs(90)).shed;
        [half, cold, few, risen]
    };
    with_every_seed(run, |shed| *shed == [0; 4]);
}

#[test]
fn server_at_85_percent_with_long_polls_sheds_nothing() {
    let run = |seed| {
        let mut scene = Scene::new(seed, 0.85 * CAPACITY, 2.0);
        let totals = scene.run(secs(300));
        (totals.arrived, totals.shed)
    };
    with_every_seed(run, |(arrived, shed)| *arrived > 200_000 && *shed == 0);
}

/// What long polls added to the mean call lets in nothing once there are none. The second in
/// which the calm time is measured anew has no queue then, and its time is multiplied by
/// nothing.
#[test]
fn past_long_polls_add_no_waiting_at_triple_capacity() {
    let run = |seed| {
        let mut scene = Scene::new(seed, 0.5 * CAPACITY, 3.0);
        scene.stay = secs(5);
        let mut calm = scene.run(secs(20));
        scene.rate = 0.85 * CAPACITY;
        scene.run(secs(120));
        scene.polls = 0.0;
        scene.rate = 3.0 * CAPACITY;
        // The calm time is measured after a minute of it.
        let mut seen = scene.run(secs(220));
        Overloaded {
            goodput: f64::from(seen.good) / 100.0 / CAPACITY,
            p99_above_calm: percentile(&mut seen.times, 0.99)
                .saturating_sub(percentile(&mut calm.times, 0.99)),
            critical_good: f64::from(seen.critical_good) / f64::from(seen.critical),
        }
    };
    with_every_seed(run, |seen| {
        seen.goodput >= 0.9 && seen.p99_above_calm <= ms(250) && seen.critical_good >= 0.99
    });
}

#[test]
fn faster_server_gets_more_work_within_seconds() {
    let run = |seed| {
        let mut scene = Scene::new(seed, 0.5 * CAPACITY, 0.0);
        scene.run(secs(20));
        scene.rate = 3.0 * CAPACITY;
        scene.run(secs(40));
        // It is scaled up in place, and can do all that is asked.
        scene.server.add_workers(24);
        scene.run(secs(60));
        let totals = scene.run(secs(90));
        f64::from(totals.good) / f64::from(totals.arrived)
    };
    with_every_seed(run, |good| *good >= 0.95);
}
