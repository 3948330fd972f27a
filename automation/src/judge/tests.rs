//! Tests of the judge: what one look pays by brute force, and how runs end by simulation.

mod latency;
mod simulation;

use super::{Allowed, BETS, Counts, Judge, Look, MOST_OF_A_LOOK, factor, needed};

const PASTS: [f64; 3] = [0.0025, 0.05, 0.3];
/// Calls of the other group and of the candidate in one look.
const CALLS: [(u64, u64); 7] = [(0, 3), (1, 1), (3, 1), (6, 2), (2, 6), (20, 1), (12, 12)];

const fn counts(calls: u64, bad: u64) -> Counts {
    Counts { calls, bad }
}

/// How likely so many of these calls are bad.
fn likelihood(calls: u64, bad: u64, share: f64) -> f64 {
    let ways = (0..bad).fold(1.0, |ways, at| ways * (calls - at) as f64 / (at + 1) as f64);
    ways * share.powi(bad as i32) * (1.0 - share).powi((calls - bad) as i32)
}

/// What a look pays in the mean where bad calls have these shares.
fn mean(paid: &[Vec<f64>], shares: (f64, f64)) -> f64 {
    let others = paid.len() as u64 - 1;
    let candidates = paid[0].len() as u64 - 1;
    let mut sum = 0.0;
    for (bad, row) in (0..).zip(paid) {
        let other = likelihood(others, bad, shares.0);
        for (bad, factor) in (0..).zip(row) {
            sum += other * likelihood(candidates, bad, shares.1) * factor;
        }
    }
    sum
}

/// What a look pays for each number of bad calls.
fn paid(allowed: Allowed, past: f64, points: f64, calls: (u64, u64)) -> Vec<Vec<f64>> {
    let (others, candidates) = calls;
    let row = |other: u64| -> Vec<f64> {
        let factors = (0..=candidates).map(|bad| {
            let other = counts(others, other);
            factor(allowed, past, points, other, counts(candidates, bad))
        });
        factors.collect()
    };
    (0..=others).map(row).collect()
}

#[test]
fn look_pays_one_at_most_under_every_allowed_share() {
    let cases = [0.005, 0.01, 0.1].into_iter().flat_map(|tolerance| {
        PASTS.into_iter().flat_map(move |past| {
            let bets = BETS.into_iter();
            bets.flat_map(move |points| CALLS.map(|calls| (tolerance, past, points, calls)))
        })
    });
    for (tolerance, past, points, calls) in cases {
        let paid = paid(Allowed::Above(tolerance), past, points, calls);
        for at in 0..=40 {
            let other = f64::from(at) / 40.0;
            for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
                let candidate = (other + tolerance).min(1.0) * part;
                let mean = mean(&paid, (other, candidate));
                assert!(
                    mean <= 1.0 + 1e-9,
                    "{mean}: {tolerance} {past} {points} {calls:?} {other} {candidate}"
                );
            }
        }
    }
}

#[test]
fn look_pays_one_at_most_under_a_fixed_share() {
    for share in [0.0001, 0.01, 0.05, 0.5, 0.9] {
        for points in BETS {
            for calls in CALLS {
                let paid = paid(Allowed::Share(share), 0.0025, points, calls);
                for part in [0.0, 0.5, 1.0] {
                    let mean = mean(&paid, (0.3, share * part));
                    assert!(mean <= 1.0 + 1e-9, "{mean}: {share} {points} {calls:?}");
                }
            }
        }
    }
}

#[test]
fn one_look_decides_nothing_however_bad_it_is() {
    let mut judge = Judge::default();
    let other = counts(100_000, 0);
    judge.look(
        Allowed::Above(0.01),
        other,
        counts(5000, 5000),
        Look::FirstOf(1),
    );
    assert!(judge.evidence() > 1.0);
    assert!(judge.evidence() <= MOST_OF_A_LOOK / 2.0 + 1e-9);
    assert!(!judge.is_worse(needed(1)));
}

#[test]
fn silence_of_either_group_decides_nothing() {
    let mut judge = Judge::default();
    for _ in 0..1000 {
        judge.look(
            Allowed::Above(0.01),
            counts(100, 0),
            counts(0, 0),
            Look::Later,
        );
    }
    assert!(judge.evidence() < 1e-9, "no call of the candidate");

    for _ in 0..1000 {
        judge.look(
            Allowed::Above(0.01),
            counts(0, 0),
            counts(100, 100),
            Look::Later,
        );
    }
    assert!(judge.evidence() < 1.0, "nothing to compare with");
}

#[test]
fn stakes_of_a_run_are_one_at_most() {
    let mut judge = Judge::default();
    let mut sum = 0.0;
    for at in 0..20_000 {
        let first = at % 100 == 0;
        sum += judge.stake(if first { Look::FirstOf(4) } else { Look::Later });
    }
    assert!(sum <= 1.0 + 1e-9, "{sum}");
    assert!(sum > 0.99, "{sum}");
}

#[test]
fn fixed_share_is_judged_without_another_group() {
    let mut judge = Judge::default();
    let allowed = Allowed::Share(0.05);
    for _ in 0..100 {
        judge.look(allowed, counts(0, 0), counts(20, 1), Look::Later);
    }
    assert!(!judge.is_worse(needed(1)), "5 % are allowed");
    for _ in 0..20 {
        judge.look(allowed, counts(0, 0), counts(20, 8), Look::Later);
    }
    assert!(judge.is_worse(needed(1)), "40 % are not");
}

#[test]
fn share_that_cannot_be_exceeded_is_never_bet_against() {
    let mut judge = Judge::default();
    for allowed in [Allowed::Share(0.99), Allowed::Above(0.985)] {
        for _ in 0..1000 {
            judge.look(allowed, counts(100, 50), counts(100, 100), Look::FirstOf(1));
        }
    }
    assert!(judge.evidence() <= 1.0);
}
