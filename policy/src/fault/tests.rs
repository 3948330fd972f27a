//! Shares, groups and grants of fault experiments.

use std::time::{Duration, Instant};

use super::*;

const CALLS: u32 = 40_000;
/// In millionths.
const WHOLE: u32 = 1_000_000;

fn selection(seed: u64, millionths: u32) -> Selection {
    let share = Share::of_millionths(millionths).unwrap();
    Selection { seed, share }
}

/// Traces that differ little, as those of a bad generator do.
fn traces() -> impl Iterator<Item = u128> {
    (1..=u128::from(CALLS)).map(|at| (at << 64) | at)
}

/// Whether that many of [`CALLS`] are within five standard deviations of a share.
fn is_near(count: usize, millionths: u32) -> bool {
    let (calls, share) = (f64::from(CALLS), f64::from(millionths) / f64::from(WHOLE));
    let sigma = (calls * share * (1.0 - share)).sqrt();
    (count as f64 - calls * share).abs() <= 5.0 * sigma
}

#[test]
fn each_attempt_is_harmed_with_its_share() {
    for share in [100, 10_000, 100_000, 500_000, 900_000] {
        for seed in [0, 1, u64::MAX] {
            let run = selection(seed, share);
            for attempt in 1..=6 {
                let harmed = traces().filter(|trace| run.harms(Draw::Trace(*trace), attempt));
                let harmed = harmed.count();
                assert!(is_near(harmed, share), "{share} {seed} {attempt}: {harmed}");
            }
            let step = u64::MAX / u64::from(CALLS);
            let untraced = (0..u64::from(CALLS)).map(|at| Draw::Random(at * step));
            let untraced = untraced.filter(|draw| run.harms(*draw, 1)).count();
            assert!(is_near(untraced, share), "{share}: {untraced}");
        }
    }
}

#[test]
fn whole_share_harms_every_attempt_and_none_none() {
    for trace in traces().take(1000) {
        assert!(selection(7, WHOLE).harms(Draw::Trace(trace), 1));
        assert!(!selection(7, 0).harms(Draw::Trace(trace), 1));
    }
    assert!(selection(7, WHOLE).harms(Draw::Random(u64::MAX), 1));
    assert!(!selection(7, 0).harms(Draw::Random(0), 1));
    assert_eq!(Share::of_millionths(WHOLE + 1), None);
}

/// By the low half of the trace alone, which every tracer has.
#[test]
fn groups_are_disjoint_and_equal_at_each_hop() {
    for share in [10_000, 100_000, 500_000] {
        let (here, there) = (selection(42, share), selection(42, share));
        let count = |group| traces().filter(|trace| here.group(*trace) == group).count();
        let (harmed, control) = (count(Some(Group::Harmed)), count(Some(Group::Control)));
        assert!(is_near(harmed, share) && is_near(control, share));
        for trace in traces() {
            let low = u128::from(trace as u64);
            assert_eq!(here.group(trace), there.group(low));
            let first = here.harms(Draw::Trace(trace), 1);
            assert_eq!(first, here.group(trace) == Some(Group::Harmed));
        }
    }
    // Nothing is left to compare with.
    let most = selection(42, 500_001);
    assert!(traces().all(|trace| most.group(trace) != Some(Group::Control)));
}

#[test]
fn retry_and_next_run_are_drawn_anew() {
    let (run, next) = (selection(1, 100_000), selection(1_000_000_007, 100_000));
    let harmed: Vec<u128> = traces()
        .filter(|trace| run.harms(Draw::Trace(*trace), 1))
        .collect();
    let again = |run: Selection, attempt| {
        let of = harmed.iter();
        of.filter(|trace| run.harms(Draw::Trace(**trace), attempt))
            .count()
    };
    // A tenth of some four thousand.
    for count in [again(run, 2), again(next, 1)] {
        assert!((300..500).contains(&count), "{count} of {}", harmed.len());
    }
}

#[test]
fn filter_spares_other_pods_and_addresses_without_pod() {
    let mut fault = Fault {
        selection: selection(1, WHOLE),
        delay: None,
        failure: Some(InjectedFailure::Refuse),
        pods: None,
    };
    assert!(fault.reaches("a") && fault.reaches(""));
    fault.pods = Some(HarmedPods::new(["b".into(), "a".into(), "b".into()]));
    assert!(fault.reaches("a") && fault.reaches("b"));
    assert!(!fault.reaches("c") && !fault.reaches(""));
    fault.pods = Some(HarmedPods::new([]));
    assert!(!fault.reaches("a"));
}

#[test]
fn share_above_callers_limit_is_excluded() {
    let fault = |share| Fault {
        selection: selection(1, share),
        delay: Some(Duration::from_millis(1)),
        failure: None,
        pods: None,
    };
    let limit = Share::of_millionths(50_000).unwrap();
    assert!(fault(50_000).is_within(limit) && !fault(50_001).is_within(limit));
    assert!(!fault(100).is_within(Share::NONE));
    assert!(fault(WHOLE).is_within(Share::ALL));
}

const RUN: &str = "shop/slow";

fn grant(seed: u64, holds: u64, left: u64) -> Grant {
    Grant {
        experiment: RUN.into(),
        seed,
        holds: Duration::from_millis(holds),
        left: Duration::from_millis(left),
    }
}

#[test]
fn grant_lapses_after_three_seconds_unless_repeated() {
    let (start, secs) = (Instant::now(), Duration::from_secs);
    let mut runs = GrantedRuns::default();
    assert_eq!(runs.until(RUN, 1, start), None);
    // Longer than one may be.
    runs.take(start, &[grant(1, 60_000, 300_000)]);
    assert_eq!(runs.until(RUN, 1, start), Some(start + GRANT));
    assert!(
        runs.until(RUN, 1, start + Duration::from_millis(2999))
            .is_some()
    );
    assert_eq!(runs.until(RUN, 1, start + GRANT), None);
    runs.take(start + secs(10), &[grant(1, 3000, 290_000)]);
    assert!(runs.until(RUN, 1, start + secs(12)).is_some());
    // Of another run, or another experiment.
    assert_eq!(runs.until(RUN, 2, start + secs(12)), None);
    assert_eq!(runs.until("shop/other", 1, start + secs(12)), None);
}

#[test]
fn grant_that_is_not_named_ends_at_once() {
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let mut runs = GrantedRuns::default();
    runs.take(start, &[grant(1, 3000, 300_000), grant(2, 3000, 300_000)]);
    runs.take(start + second, &[grant(2, 3000, 299_000)]);
    assert_eq!(runs.until(RUN, 1, start + second), None);
    assert!(runs.until(RUN, 2, start + second).is_some());
    runs.take(start + second, &[]);
    assert_eq!(runs.until(RUN, 2, start + second), None);
}

/// Whatever the controllers' clocks say later, and after a gap too.
#[test]
fn run_ends_by_its_first_grant() {
    let (start, secs) = (Instant::now(), Duration::from_secs);
    let mut runs = GrantedRuns::default();
    runs.take(start, &[grant(1, 3000, 10_000)]);
    for second in 1..=20 {
        runs.take(start + secs(second), &[grant(1, 3000, 3_600_000)]);
        let granted = runs.until(RUN, 1, start + secs(second)).is_some();
        assert_eq!(granted, second < 10, "{second}");
    }
    runs.take(start + secs(60), &[]);
    runs.take(start + secs(70), &[grant(1, 3000, 10_000)]);
    assert_eq!(runs.until(RUN, 1, start + secs(70)), None);
    // It may end earlier, and never lasts longer than any may.
    runs.take(start, &[grant(2, 3000, 10_000)]);
    runs.take(start + secs(1), &[grant(2, 3000, 1000)]);
    assert_eq!(runs.until(RUN, 2, start + secs(2)), None);
    runs.take(start, &[grant(3, 3000, u64::MAX / 2)]);
    runs.take(start + LONGEST_RUN, &[grant(3, 3000, 1000)]);
    assert_eq!(runs.until(RUN, 3, start + LONGEST_RUN), None);
}

#[test]
fn runs_beyond_bound_are_not_granted() {
    let start = Instant::now();
    let mut runs = GrantedRuns::default();
    let all: Vec<Grant> = (0..100).map(|seed| grant(seed, 3000, 60_000)).collect();
    runs.take(start, &all);
    let granted = |runs: &GrantedRuns, now| {
        let seeds = (0..100).filter(|seed| runs.until(RUN, *seed, now).is_some());
        seeds.count()
    };
    assert_eq!(granted(&runs, start), MOST_RUNS);
    // The places of those that are over are free again.
    for seed in 64..100 {
        let now = start + Duration::from_secs(10 * seed);
        runs.take(now, &[grant(seed, 3000, 10_000)]);
        assert_eq!(granted(&runs, now), 1, "{seed}");
    }
}
