//! Runs of the default steps, simulated: good candidates are hardly ever rolled back, whatever
//! happens around them, and bad ones are found.

use crate::judge::{Allowed, Counts, Judge, Look, needed};
use crate::testing::{Random, runs};

/// What the candidate gets in each of four steps, of which a quarter of the pods is the most.
const STEPS: [f64; 4] = [0.05, 0.20, 0.25, 0.25];
const LOOKS_OF_A_STEP: usize = 60;

/// How many calls come in a second, and which shares of the other group's and of the candidate's
/// are bad in this second.
#[derive(Clone, Copy)]
struct Weather {
    name: &'static str,
    calls: fn(usize) -> f64,
    shares: fn(usize, &mut Random) -> (f64, f64),
}

const fn weather(
    name: &'static str,
    calls: fn(usize) -> f64,
    shares: fn(usize, &mut Random) -> (f64, f64),
) -> Weather {
    Weather {
        name,
        calls,
        shares,
    }
}

/// The look in which a candidate is found to be worse, by two checks.
fn found(weather: Weather, random: &mut Random) -> Option<usize> {
    let mut judges = [Judge::default(), Judge::default()];
    let allowed = [Allowed::Above(0.01), Allowed::Above(0.005)];
    let mut looked = [false; 2];
    for look in 0..STEPS.len() * LOOKS_OF_A_STEP {
        if look.is_multiple_of(LOOKS_OF_A_STEP) {
            looked = [false; 2];
        }
        let part = STEPS[look / LOOKS_OF_A_STEP];
        let calls = (weather.calls)(look);
        let others = random.count(calls * (1.0 - part));
        let candidates = random.count(calls * part);
        let shares = (weather.shares)(look, random);
        for ((judge, allowed), looked) in judges.iter_mut().zip(allowed).zip(&mut looked) {
            let mut of = |calls: u64, share: f64| Counts {
                calls,
                bad: random.bad(calls, share),
            };
            let (other, candidate) = (of(others, shares.0), of(candidates, shares.1));
            let which = if *looked {
                Look::Later
            } else {
                Look::FirstOf(STEPS.len())
            };
            *looked |= candidates > 0;
            judge.look(allowed, other, candidate, which);
        }
        let needed = needed(judges.len());
        if judges.iter().any(|judge| judge.is_worse(needed)) {
            return Some(look);
        }
    }
    None
}

/// In how many runs a candidate is found within so many looks.
fn count(weather: Weather, looks: usize) -> u64 {
    let mut random = Random::new(20_261_130);
    let found = (0..runs()).filter(|_| found(weather, &mut random).is_some_and(|at| at < looks));
    found.count() as u64
}

/// Of 500 runs 1 %, and of the 10 000 of `make automation` 0.5 %.
fn allowed() -> u64 {
    let runs = runs();
    if runs < 10_000 {
        runs / 100
    } else {
        runs / 200
    }
}

fn rarely_found(good: &[Weather]) {
    for weather in good {
        let wrong = count(*weather, usize::MAX);
        println!("{}: {wrong} of {}", weather.name, runs());
        assert!(
            wrong <= allowed(),
            "{}: {wrong} of {} good candidates are rolled back",
            weather.name,
            runs()
        );
    }
}

#[test]
fn good_candidate_stays_with_few_and_many_calls() {
    rarely_found(&[
        weather("1 in a second, 1 % bad", |_| 1.0, |_, _| (0.01, 0.01)),
        weather("10 in a second, 5 % bad", |_| 10.0, |_, _| (0.05, 0.05)),
        weather("100 in a second, none bad", |_| 100.0, |_, _| (0.0, 0.0)),
        weather("100 in a second, 1 % bad", |_| 100.0, |_, _| (0.01, 0.01)),
        weather("500 in a second, 5 % bad", |_| 500.0, |_, _| (0.05, 0.05)),
    ]);
}

#[test]
fn good_candidate_stays_in_drift_outage_and_bursts() {
    let drift = |look: usize, _: &mut Random| {
        let share = 0.05 * look as f64 / 240.0;
        (share, share)
    };
    let outage = |look: usize, _: &mut Random| {
        let share = if (100..130).contains(&look) {
            0.6
        } else {
            0.001
        };
        (share, share)
    };
    let bursts = |_: usize, random: &mut Random| {
        let share = if random.chance(0.05) { 0.3 } else { 0.001 };
        (share, share)
    };
    let crowds = |look: usize| if look % 30 < 3 { 500.0 } else { 20.0 };
    rarely_found(&[
        weather("drift", |_| 100.0, drift),
        weather("common outage", |_| 100.0, outage),
        weather("bursts of errors", |_| 100.0, bursts),
        weather("bursts of calls", crowds, |_, _| (0.02, 0.02)),
        weather("better than stable", |_| 100.0, |_, _| (0.05, 0.0)),
        // The most that both checks allow.
        weather("as bad as is allowed", |_| 30.0, |_, _| (0.01, 0.015)),
    ]);
}

#[test]
fn candidate_with_a_tenth_bad_is_found() {
    let bad = weather("10 % bad", |_| 100.0, |_, _| (0.001, 0.1));
    let found = count(bad, usize::MAX);
    assert!(found * 100 >= runs() * 99, "{found} of {}", runs());
}

#[test]
fn candidate_with_half_bad_is_found_in_seconds() {
    let bad = weather("half bad", |_| 100.0, |_, _| (0.001, 0.5));
    let found = count(bad, 15);
    assert!(found * 100 >= runs() * 99, "{found} of {}", runs());
}

#[test]
fn fault_that_starts_late_is_found() {
    let late = |look: usize, _: &mut Random| (0.001, if look < 150 { 0.001 } else { 0.1 });
    let found = count(weather("late", |_| 100.0, late), usize::MAX);
    assert!(found * 100 >= runs() * 99, "{found} of {}", runs());
}
