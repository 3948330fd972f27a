//! Point 11: callers of one zone, with endpoints in their own and in others.
//!
//! Claims: calls-64

use std::time::{Duration, Instant};

use policy::balance::{Candidate, Cost, Load, LoadReporter, choose};
use policy::overload::Limiter;
use policy::traffic::guard::{Overload, OverloadMode, Priority};

use crate::engine::{Dice, Events, secs, with_every_seed};
use crate::server::Server;

/// Three endpoints of four workers with 10 ms in the own zone, six elsewhere.
const NEAR: usize = 3;
const ENDPOINTS: usize = 9;
const WORKERS: usize = 4;
const OWN_CAPACITY: f64 = 1200.0;
const CALLERS: usize = 4;

const OFF: Overload = Overload {
    mode: OverloadMode::Off,
    ..Overload::DEFAULT
};

#[derive(Clone, Copy)]
struct Job {
    caller: usize,
    endpoint: usize,
    sent: Instant,
}

enum Event {
    Arrival,
    Done(Job),
}

#[derive(Clone, Copy)]
struct Known {
    cost: Cost,
    load: Load,
    in_flight: usize,
    teller: LoadReporter,
}

#[derive(Debug, Default)]
struct Result {
    near: u32,
    all: u32,
    good: u32,
}

struct Scene {
    events: Events<Event>,
    dice: Dice,
    servers: Vec<(Server<Job>, Limiter)>,
    known: Vec<Vec<Known>>,
    result: Result,
    rate: f64,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let (mut events, dice) = (Events::new(), Dice::new(seed));
        let now = events.now();
        events.after(Duration::ZERO, Event::Arrival);
        let server = |at: usize| {
            (
                Server::new(WORKERS, seed * 100 + at as u64),
                Limiter::new(now),
            )
        };
        let known = Known {
            cost: Cost::new(),
            load: Load::default(),
            in_flight: 0,
            teller: LoadReporter::default(),
        };
        Self {
            events,
            dice,
            servers: (0..ENDPOINTS).map(server).collect(),
            known: vec![vec![known; ENDPOINTS]; CALLERS],
            result: Result::default(),
            rate: 0.4 * OWN_CAPACITY,
        }
    }

    fn run(&mut self, until: Duration) -> Result {
        while self.events.since() < until {
            match self.events.next().unwrap() {
                Event::Arrival => self.arrival(),
                Event::Done(job) => self.done(job),
            }
        }
        std::mem::take(&mut self.result)
    }

    fn arrival(&mut self) {
        self.events.after(self.dice.gap(self.rate), Event::Arrival);
        let caller = (self.dice.roll() % CALLERS as u64) as usize;
        let (now, known) = (self.events.now(), &self.known[caller]);
        let look = |at: usize| {
            let known = &known[at];
            Candidate::Works {
                score: known.cost.score(now, known.in_flight),
                share: 1.0,
                load: known.load.percent(now),
            }
        };
        let picked = choose(ENDPOINTS, &[NEAR], look, || self.dice.roll()).unwrap();
        self.known[caller][picked.index].in_flight += 1;
        self.result.all += 1;
        self.result.near += u32::from(picked.index < NEAR);
        let (server, limiter) = &mut self.servers[picked.index];
        limiter.arrive(now, Priority::Normal, false, &OFF);
        let job = Job {
            caller,
            endpoint: picked.index,
            sent: now,
        };
        if let Some((wait, job)) = server.take(self.events.since(), job) {
            self.events.after(wait, Event::Done(job));
        }
    }

    fn done(&mut self, job: Job) {
        let (now, since) = (self.events.now(), self.events.since());
        let took = now - job.sent;
        let (server, limiter) = &mut self.servers[job.endpoint];
        limiter.done(now, took, &OFF);
        let known = &mut self.known[job.caller][job.endpoint];
        known.in_flight -= 1;
        known.cost.observe(now, took);
        if let Some(load) = known.teller.report(now, limiter.load(&OFF)) {
            known.load.record(now, load);
        }
        self.result.good += u32::from(took <= secs(1));
        if let Some((wait, job)) = server.done(since) {
            self.events.after(wait, Event::Done(job));
        }
    }
}

#[test]
fn calm_calls_stay_in_zone_and_double_load_succeeds() {
    let run = |seed| {
        let mut scene = Scene::new(seed);
        scene.run(secs(10));
        let calm = scene.run(secs(30));
        scene.rate = 2.0 * OWN_CAPACITY;
        let busy = scene.run(secs(60));
        let part = |some: u32, of: u32| f64::from(some) / f64::from(of);
        (part(calm.near, calm.all), part(busy.good, busy.all))
    };
    with_every_seed(run, |(near, good)| *near >= 0.95 && *good >= 0.95);
}
