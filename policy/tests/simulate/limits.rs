//! Point 8: a limit of 100/s for a Service of three pods, and then of five.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use policy::limit::shares::{Send, Shares};
use policy::limit::{Buckets, Key, Rate, take_all};
use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, RateLimit};

use crate::engine::{Dice, Events, ms, secs, with_every_seed};

fn limit() -> RateLimit {
    RateLimit {
        name: "all".into(),
        requests: 100,
        per: secs(1),
        burst: 100,
        key: LimitKey::None,
        scope: LimitScope::Service,
        mode: LimitMode::Enforce,
    }
}

enum Event {
    Arrival,
    /// A share reaches its pod,
    Taken(Send<u8>),
    /// and its word the controller.
    Acknowledged(u8, u64),
    Scale(u8),
}

#[derive(Debug, Default)]
struct Result {
    /// Passed in each second.
    passed: Vec<u32>,
    /// The most that shares in use added up to.
    most: u64,
}

fn run(seed: u64) -> Result {
    let (mut events, mut dice) = (Events::new(), Dice::new(seed));
    let mut shares = Shares::new(100);
    let mut pods: BTreeMap<u8, Buckets> = BTreeMap::new();
    let mut using: BTreeMap<u8, u64> = BTreeMap::new();
    let mut result = Result {
        passed: vec![0; 60],
        most: 0,
    };
    events.after(Duration::ZERO, Event::Scale(3));
    events.after(secs(30), Event::Scale(5));
    events.after(Duration::ZERO, Event::Arrival);
    while let Some(event) = events.next()
        && events.since() < secs(60)
    {
        let sends = match event {
            Event::Scale(count) => {
                for pod in 0..count {
                    let unshared = Rate::unshared(&limit());
                    let new = || Buckets::new(events.now(), unshared);
                    pods.entry(pod).or_insert_with(new);
                }
                shares.set_pods(events.now(), &(0..count).collect::<BTreeSet<u8>>())
            }
            Event::Taken(send) => {
                let rate = Rate::share(&limit(), send.share);
                pods.get_mut(&send.pod)
                    .unwrap()
                    .set_rate(events.now(), rate);
                using.insert(send.pod, send.share);
                result.most = result.most.max(using.values().sum());
                let back = ms(1).mul_f64(1.0 + 200.0 * dice.unit());
                events.after(back, Event::Acknowledged(send.pod, send.number));
                Vec::new()
            }
            Event::Acknowledged(pod, number) => shares.acknowledged(&pod, number),
            Event::Arrival => {
                // Three times the limit, spread evenly.
                events.after(dice.gap(300.0), Event::Arrival);
                let pod = (dice.unit() * pods.len() as f64) as usize % pods.len();
                let table = pods.values_mut().nth(pod).unwrap();
                let one = [(0, Key::All)].into_iter();
                if take_all(std::slice::from_mut(table), events.now(), one).is_ok() {
                    result.passed[events.since().as_secs() as usize] += 1;
                }
                Vec::new()
            }
        };
        for send in sends {
            // To one pod in order: a stream keeps it.
            let there = ms(200 * u64::from(send.pod % 2) + 5);
            events.after(there, Event::Taken(send));
        }
    }
    result
}

#[test]
fn the_pods_of_a_service_let_its_limit_pass_together_and_never_hold_more() {
    with_every_seed(run, |result| {
        // Ten seconds each: from the third second on, and from the third after scaling.
        let rates = [3, 13, 33, 43].map(|from| {
            let passed: u32 = result.passed[from..from + 10].iter().sum();
            f64::from(passed) / 10.0
        });
        rates.iter().all(|rate| (90.0..=110.0).contains(rate)) && result.most <= 100_000
    });
}
