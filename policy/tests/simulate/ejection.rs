//! Points 1 and 5: one instance that fails is ejected, and all that fail alike are not.
//!
//! Claims: calls-23

use std::time::{Duration, Instant};

use policy::balance::{Candidate, Cost, choose};
use policy::health::{Health, HealthChange, HealthSignal, Others, Probe, Recent, Status};
use policy::retry::RetryBudget;
use policy::traffic::without_object::{BALANCE, EJECTION, RETRY};

use crate::engine::{Dice, Events, ms, secs, with_every_seed};

/// Calls are counted from then on.
const SICK: Duration = secs(10);

struct Endpoint {
    cost: Cost,
    health: Health,
    in_flight: usize,
}

/// What one proxy knows.
struct Caller {
    endpoints: Vec<Endpoint>,
    budget: RetryBudget,
}

#[derive(Clone, Copy)]
struct Attempt {
    caller: usize,
    endpoint: usize,
    probe: Option<Probe>,
    retry: bool,
    sent: Instant,
    good: bool,
    /// What the call tried before.
    tried: Option<usize>,
}

enum Event {
    Arrival(usize),
    Ended(Attempt),
}

#[derive(Debug, Default)]
struct Result {
    good: u32,
    bad: u32,
    ejections: u32,
    /// Attempts at the first endpoint two seconds after it fails, probes aside.
    at_first: u32,
    probes: u32,
}

struct Scene<F> {
    events: Events<Event>,
    dice: Dice,
    callers: Vec<Caller>,
    /// Whether this endpoint fails an attempt.
    fails: F,
    /// Of an answer that is good.
    takes: Duration,
    result: Result,
}

impl<F: Fn(usize, Duration, &mut Dice) -> bool> Scene<F> {
    fn new(seed: u64, callers: usize, endpoints: usize, fails: F) -> Self {
        let (mut events, mut dice) = (Events::new(), Dice::new(seed));
        let now = events.now();
        let endpoint = |_| Endpoint {
            cost: Cost::new(),
            health: Health::new(now, None),
            in_flight: 0,
        };
        for caller in 0..callers {
            events.after(dice.gap(1.0), Event::Arrival(caller));
        }
        let caller = |_| Caller {
            endpoints: (0..endpoints).map(endpoint).collect(),
            budget: RetryBudget::new(now),
        };
        Self {
            callers: (0..callers).map(caller).collect(),
            events,
            dice,
            fails,
            takes: ms(2),
            result: Result::default(),
        }
    }

    fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    /// 200 GET/s from uneven callers.
    fn run(mut self, until: Duration) -> Result {
        let weight = |caller: usize| (caller + 2) as f64;
        let all: f64 = (0..self.callers.len()).map(weight).sum();
        while self.events.since() < until {
            match self.events.next().unwrap() {
                Event::Arrival(caller) => {
                    let gap = self.dice.gap(200.0 * weight(caller) / all);
                    self.events.after(gap, Event::Arrival(caller));
                    self.send(caller, None);
                }
                Event::Ended(attempt) => self.ended(attempt),
            }
        }
        self.result
    }

    fn send(&mut self, caller: usize, tried: Option<usize>) {
        let now = self.events.now();
        let endpoints = &self.callers[caller].endpoints;
        let may_retry = tried.is_none();
        let look = |at: usize| {
            let endpoint = &endpoints[at];
            if tried == Some(at) {
                return Candidate::Out;
            }
            match endpoint.health.status(now, may_retry, BALANCE.warmup) {
                Status::Works(share) => Candidate::Works {
                    score: endpoint.cost.score(now, endpoint.in_flight),
                    share,
                    load: 0,
                },
                Status::ProbeDue => Candidate::Probe,
                Status::Ejected => Candidate::Ejected,
            }
        };
        let picked = choose(endpoints.len(), &[], look, || self.dice.roll()).unwrap();
        let endpoint = &mut self.callers[caller].endpoints[picked.index];
        let begin = || endpoint.health.begin_probe(now, may_retry);
        let probe = picked.probe.then(begin).flatten();
        assert_eq!(probe.is_some(), picked.probe);
        endpoint.in_flight += 1;
        if picked.index == 0 && self.events.since() > SICK + secs(2) {
            self.result.probes += u32::from(picked.probe);
            self.result.at_first += u32::from(!picked.probe);
        }
        let good = !(self.fails)(picked.index, self.events.since(), &mut self.dice);
        // Failures are fast. What is good within 2 ms counts as equally fast, so that each
        // endpoint has its share of the calls.
        let mean = if good { self.takes } else { ms(1) };
        let took = self.dice.lognormal(mean, 0.4);
        let attempt = Attempt {
            caller,
            endpoint: picked.index,
            probe,
            retry: tried.is_some(),
            sent: now,
            good,
            tried: Some(picked.index),
        };
        self.events.after(took, Event::Ended(attempt));
    }

    fn ended(&mut self, attempt: Attempt) {
        let now = self.events.now();
        self.record(now, attempt);
        let caller = &self.callers[attempt.caller];
        let counts = u32::from(self.events.since() >= SICK);
        if attempt.good {
            self.result.good += counts;
            if !attempt.retry {
                caller.budget.save(now, &RETRY.budget);
            }
        } else if !attempt.retry && caller.budget.spend(now, &RETRY.budget, 1) {
            self.send(attempt.caller, attempt.tried);
        } else {
            self.result.bad += counts;
        }
    }

    fn record(&mut self, now: Instant, attempt: Attempt) {
        let endpoints = &mut self.callers[attempt.caller].endpoints;
        let others = endpoints.iter().enumerate();
        let elsewhere = others
            .filter(|(at, _)| *at != attempt.endpoint)
            .map(|(_, other)| other.cost.good_answer(now, other.in_flight))
            .min();
        let endpoint = &mut endpoints[attempt.endpoint];
        endpoint.in_flight -= 1;
        let took = now - attempt.sent;
        if attempt.good {
            endpoint.cost.observe(now, took);
        } else {
            endpoint.cost.observe_failure(now, took, elsewhere);
        }
        let signal = if attempt.good {
            HealthSignal::Good
        } else {
            HealthSignal::Failed
        };
        let random = self.dice.roll();
        let change = endpoint
            .health
            .record(now, signal, attempt.probe, &EJECTION, random);
        if change != HealthChange::RowIsFull {
            return;
        }
        let mut others = Others {
            endpoints: endpoints.len(),
            ..Others::default()
        };
        for (at, other) in endpoints.iter().enumerate() {
            others.ejected += usize::from(other.health.is_ejected());
            let recent = other.health.recent(now);
            others.recent = others.recent
                + if at == attempt.endpoint {
                    Recent::default()
                } else {
                    recent
                };
        }
        let evaluated = &mut endpoints[attempt.endpoint].health;
        let cause = evaluated.evaluate(now, &others, &EJECTION, self.dice.roll());
        self.result.ejections += u32::from(cause.is_some());
    }
}

#[test]
fn failing_instance_of_three_is_ejected_and_calls_succeed() {
    let fails = |at, since, _: &mut Dice| at == 0 && since >= SICK;
    let run = |seed| Scene::new(seed, 4, 3, fails).run(secs(70));
    with_every_seed(run, |result| {
        let all = f64::from(result.good + result.bad);
        f64::from(result.good) / all >= 0.999
            && result.at_first == 0
            && result.probes >= 4
            && result.ejections == 4
    });
}

#[test]
fn four_instances_failing_30_percent_are_not_ejected() {
    let fails = |_, _, dice: &mut Dice| dice.chance(0.3);
    let run = |seed| Scene::new(seed, 4, 4, fails).run(secs(70));
    with_every_seed(run, |result| result.ejections == 0 && result.bad > 0);
}

#[test]
fn an_instance_that_fails_for_a_while_comes_back() {
    let fails = |at, since, _: &mut Dice| at == 0 && (SICK..SICK + secs(20)).contains(&since);
    let run = |seed| Scene::new(seed, 4, 3, fails).run(secs(120));
    // A third of 200/s, in half a minute at least.
    with_every_seed(run, |result| {
        result.at_first > 2000 && result.ejections == 4
    });
}

#[test]
fn fast_failing_instance_of_slow_service_is_not_preferred() {
    let fails = |at, since, _: &mut Dice| at == 0 && since >= SICK;
    // Of two no failures make one rest, so nothing else keeps calls away.
    let run = |seed| Scene::new(seed, 4, 2, fails).taking(ms(100)).run(secs(70));
    with_every_seed(run, |result| {
        let all = f64::from(result.good + result.bad);
        f64::from(result.good) / all >= 0.9 && f64::from(result.at_first) / all <= 0.4
    });
    let run = |seed| Scene::new(seed, 4, 3, fails).taking(ms(100)).run(secs(70));
    with_every_seed(run, |result| {
        let all = f64::from(result.good + result.bad);
        f64::from(result.good) / all >= 0.99 && result.at_first == 0 && result.ejections == 4
    });
}
