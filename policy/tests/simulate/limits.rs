//! A limit of a Service at pods that come and go: as many pass as it allows, whichever of the
//! pods they come to, and its pods never hold more together.
//!
//! Claims: calls-66

use std::collections::BTreeMap;
use std::time::Duration;

use policy::limit::offered::Offered;
use policy::limit::shares::{Send, Shares};
use policy::limit::{Buckets, Key, Rate, take_all};
use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, RateLimit};

use crate::engine::{Dice, Events, ms, secs, with_every_seed};

/// Reports of proxies, and looks of the controller.
const EVERY: Duration = secs(1);

fn limit(requests: u32, per: Duration, key: LimitKey) -> RateLimit {
    RateLimit {
        name: "all".into(),
        requests,
        per,
        burst: RateLimit::default_burst(requests, per),
        key,
        scope: LimitScope::Service,
        mode: LimitMode::Enforce,
    }
}

/// Calls from one caller.
#[derive(Clone, Copy, Debug)]
struct Caller {
    from: Duration,
    per_second: f64,
    /// By chance, or one after another.
    is_even: bool,
    /// Of the first pod; the others have the same part each of what is left. `None`: each pod
    /// has its turn.
    first: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// By number of the caller.
    Arrival(u64),
    /// A pod looks at what it is offered,
    Look(u8),
    /// which reaches the controller.
    Offered(u8, Offered),
    /// The controller divides.
    Divide,
    /// A share reaches its pod,
    Taken(u8, u64, u64),
    /// and its word the controller.
    Acknowledged(u8, u64),
    Scale(u8),
}

/// One request: when, of which caller, and whether it passed.
#[derive(Clone, Copy, Debug)]
struct Call {
    at: Duration,
    caller: u64,
    passed: bool,
}

#[derive(Debug, Default)]
struct Outcome {
    calls: Vec<Call>,
    /// The most that shares in use added up to.
    most: u64,
}

impl Outcome {
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Call> {
        let times = secs(from)..secs(to);
        let calls = self.calls.iter();
        calls.filter(move |call| times.contains(&call.at))
    }

    fn passed(&self, from: u64, to: u64) -> usize {
        self.between(from, to).filter(|call| call.passed).count()
    }

    /// The part of a caller's calls that were refused.
    fn refused(&self, caller: u64, from: u64, to: u64) -> f64 {
        let own = || {
            let all = self.between(from, to);
            all.filter(move |call| call.caller == caller)
        };
        own().filter(|call| !call.passed).count() as f64 / own().count() as f64
    }
}

struct Pod {
    table: Buckets,
    share: u64,
    reported: Option<Offered>,
}

struct Scene {
    limit: RateLimit,
    callers: Vec<Caller>,
    events: Events<Event>,
    dice: Dice,
    shares: Shares<u8>,
    pods: BTreeMap<u8, Pod>,
    /// Those that are called.
    ready: u8,
    turn: u8,
    outcome: Outcome,
}

fn run(
    seed: u64,
    limit: RateLimit,
    callers: &[Caller],
    scales: &[(u64, u8)],
    end: Duration,
) -> Outcome {
    let mut events = Events::new();
    for (at, pods) in scales {
        events.after(secs(*at), Event::Scale(*pods));
    }
    for (number, caller) in callers.iter().enumerate() {
        events.after(caller.from, Event::Arrival(number as u64));
    }
    events.after(ms(300), Event::Divide);
    let mut scene = Scene {
        shares: Shares::new(limit.requests),
        limit,
        callers: callers.to_vec(),
        events,
        dice: Dice::new(seed),
        pods: BTreeMap::new(),
        ready: 0,
        turn: 0,
        outcome: Outcome::default(),
    };
    while let Some(event) = scene.events.next()
        && scene.events.since() < end
    {
        scene.happens(event);
    }
    scene.outcome
}

impl Scene {
    fn happens(&mut self, event: Event) {
        let now = self.events.now();
        let sends = match event {
            Event::Scale(count) => {
                self.scale(count);
                self.shares.set_pods(now, &(0..count).collect())
            }
            Event::Look(pod) => {
                self.look(pod);
                Vec::new()
            }
            Event::Offered(pod, offered) => {
                self.shares.offer(&pod, Some(offered));
                Vec::new()
            }
            Event::Divide => {
                self.events.after(EVERY, Event::Divide);
                self.shares.tick(now)
            }
            Event::Taken(pod, share, number) => {
                self.takes(pod, share);
                let back = ms(1).mul_f64(1.0 + 200.0 * self.dice.unit());
                self.events.after(back, Event::Acknowledged(pod, number));
                Vec::new()
            }
            Event::Acknowledged(pod, number) => self.shares.acknowledged(&pod, number),
            Event::Arrival(caller) => {
                self.arrives(caller);
                Vec::new()
            }
        };
        for Send { pod, share, number } in sends {
            // To one pod in order: a stream keeps it.
            let there = ms(200 * u64::from(pod % 2) + 5);
            self.events.after(there, Event::Taken(pod, share, number));
        }
    }

    fn scale(&mut self, count: u8) {
        self.ready = count;
        let now = self.events.now();
        for pod in 0..count {
            if self.pods.contains_key(&pod) {
                continue;
            }
            let mut table = Buckets::new(now, Rate::unshared(&self.limit));
            table.meter(now, &self.limit);
            let new = Pod {
                table,
                share: 0,
                reported: None,
            };
            self.pods.insert(pod, new);
            let first = EVERY.mul_f64(self.dice.unit());
            self.events.after(first, Event::Look(pod));
        }
    }

    fn look(&mut self, pod: u8) {
        let now = self.events.now();
        let one = self.pods.get_mut(&pod).unwrap();
        if let Some(offered) = one.table.offered(now)
            && offered.differs_from(one.reported)
        {
            one.reported = Some(offered);
            self.events.after(ms(50), Event::Offered(pod, offered));
        }
        self.events.after(EVERY, Event::Look(pod));
    }

    fn takes(&mut self, pod: u8, share: u64) {
        let one = self.pods.get_mut(&pod).unwrap();
        let rate = Rate::share(&self.limit, share);
        one.table.set_rate(self.events.now(), rate);
        one.share = share;
        let in_use = self.pods.values().map(|pod| pod.share).sum();
        self.outcome.most = self.outcome.most.max(in_use);
    }

    fn arrives(&mut self, number: u64) {
        let caller = self.callers[number as usize];
        let gap = if caller.is_even {
            Duration::from_secs_f64(1.0 / caller.per_second)
        } else {
            self.dice.gap(caller.per_second)
        };
        self.events.after(gap, Event::Arrival(number));
        let pod = match caller.first {
            None => {
                self.turn = (self.turn + 1) % self.ready;
                self.turn
            }
            Some(first) if self.dice.chance(first) => 0,
            Some(_) => 1 + (self.dice.roll() % u64::from(self.ready - 1)) as u8,
        };
        let key = match self.limit.key {
            LimitKey::Caller => Key::Caller(1 + number),
            _ => Key::All,
        };
        let table = &mut self.pods.get_mut(&pod).unwrap().table;
        let one = [(0, key)].into_iter();
        let taken = take_all(std::slice::from_mut(table), self.events.now(), one);
        self.outcome.calls.push(Call {
            at: self.events.since(),
            caller: number,
            passed: taken.is_ok(),
        });
    }
}

#[test]
fn pods_together_pass_service_limit_and_never_hold_more() {
    // Three times the limit.
    let calls = Caller {
        from: Duration::ZERO,
        per_second: 300.0,
        is_even: false,
        first: None,
    };
    with_every_seed(
        |seed| {
            let limit = limit(100, EVERY, LimitKey::None);
            let outcome = run(seed, limit, &[calls], &[(0, 3), (30, 5)], secs(60));
            // Ten seconds each: from the third second on, and from the third after scaling.
            let passed = [3, 13, 33, 43].map(|from| outcome.passed(from, from + 10));
            (passed, outcome.most)
        },
        |(passed, most)| {
            let is_kept = |passed: &usize| (900..=1100).contains(passed);
            passed.iter().all(is_kept) && *most <= 100_000
        },
    );
}

#[test]
fn skewed_calls_below_a_limit_pass() {
    // The second caller comes later, and then two more pods.
    let caller = |from| Caller {
        from: ms(from),
        per_second: 15.0,
        is_even: true,
        first: Some(0.9),
    };
    let callers = [caller(10_000), caller(40_020)];
    with_every_seed(
        |seed| {
            let limit = limit(20, EVERY, LimitKey::Caller);
            let outcome = run(seed, limit, &callers, &[(0, 4), (80, 6)], secs(120));
            let settled = [(0, 15, 80), (0, 85, 120), (1, 45, 80), (1, 85, 120)];
            let refused = settled.map(|(caller, from, to)| outcome.refused(caller, from, to));
            (refused, outcome.most)
        },
        |(refused, most)| refused.iter().all(|part| *part < 0.05) && *most <= 20_000,
    );
}

#[test]
fn caller_that_floods_one_pod_takes_nothing_from_others() {
    let quiet = Caller {
        from: secs(5),
        per_second: 12.0,
        is_even: true,
        first: None,
    };
    let flood = Caller {
        from: secs(10),
        per_second: 500.0,
        is_even: true,
        first: Some(1.0),
    };
    with_every_seed(
        |seed| {
            let limit = limit(20, EVERY, LimitKey::Caller);
            let outcome = run(seed, limit, &[quiet, flood], &[(0, 4)], secs(60));
            let of_flood = outcome.between(10, 60).filter(|call| call.caller == 1);
            let passed = of_flood.filter(|call| call.passed).count();
            (outcome.refused(0, 10, 60), passed, outcome.most)
        },
        // In each second no more than the limit, and the burst once.
        |(refused, passed, most)| *refused < 0.05 && *passed <= 51 * 20 && *most <= 20_000,
    );
}

#[test]
fn slow_limit_passes_in_every_minute_what_it_says() {
    // Half as much again as the limit.
    let calls = Caller {
        from: ms(500),
        per_second: 1.5,
        is_even: true,
        first: None,
    };
    for pods in [1, 4] {
        with_every_seed(
            |seed| {
                let limit = limit(60, secs(60), LimitKey::None);
                let outcome = run(seed, limit, &[calls], &[(0, pods)], secs(600));
                let minutes = (1..10).map(|at| outcome.passed(60 * at, 60 * at + 60));
                minutes.collect::<Vec<usize>>()
            },
            |minutes| minutes.iter().all(|passed| (57..=63).contains(passed)),
        );
    }
}
