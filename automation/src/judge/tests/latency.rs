//! Tests of what counts as slow.

use std::time::Duration;

use policy::latency::Histogram;

use crate::judge::Counts;
use crate::judge::latency::{Recent, Sample, SlowCalls, Threshold, tolerance};

fn histogram(times: &[(f64, u64)]) -> Histogram {
    let mut histogram = Histogram::default();
    for (seconds, calls) in times {
        for _ in 0..*calls {
            histogram.observe(*seconds);
        }
    }
    histogram
}

/// What a pod has counted since it started.
fn look(calls: &mut SlowCalls, ended: &[(f64, u64)], waiting: &[(f64, u64)]) -> (u64, u64) {
    let sample = Sample {
        latency: &histogram(ended),
        cancelled: 0,
        waiting: &histogram(waiting),
    };
    let threshold = Threshold::at(0.096).expect("a bound");
    let Counts { calls, bad } = calls.look(sample, threshold);
    (calls, bad)
}

#[test]
fn threshold_is_the_first_bound_above_the_percentile() {
    let stable = histogram(&[(0.01, 980), (0.05, 20)]);
    // p99 lies in the bucket from 37 to 60 ms, in its middle.
    let threshold = Threshold::above(&stable, 99, 0.2).expect("a bound");
    assert!((threshold.seconds() - 0.06).abs() < 1e-9);
    let further = Threshold::above(&stable, 99, 1.0).expect("a bound");
    assert!((further.seconds() - 0.155).abs() < 1e-9);
    assert_eq!(Threshold::above(&Histogram::default(), 99, 0.2), None);
    let endless = histogram(&[(60.0, 100)]);
    assert_eq!(
        Threshold::above(&endless, 99, 0.2),
        None,
        "nothing is beyond"
    );
}

#[test]
fn tolerance_is_half_of_what_the_percentile_leaves() {
    assert!((tolerance(99) - 0.005).abs() < 1e-12);
    assert!((tolerance(50) - 0.25).abs() < 1e-12);
}

#[test]
fn calls_are_counted_from_look_to_look() {
    let mut calls = SlowCalls::default();
    let first = [(0.01, 500), (0.2, 7)];
    assert_eq!(look(&mut calls, &first, &[]), (0, 0), "the first look");
    let second = [(0.01, 510), (0.2, 9)];
    assert_eq!(look(&mut calls, &second, &[]), (12, 2));
    assert_eq!(look(&mut calls, &second, &[]), (0, 0));
    let anew = [(0.01, 5), (0.2, 5)];
    assert_eq!(look(&mut calls, &anew, &[]), (0, 0), "the proxy restarted");
    let next = [(0.01, 6), (0.2, 5)];
    assert_eq!(look(&mut calls, &next, &[]), (1, 0));
}

#[test]
fn call_that_waits_too_long_is_slow_once() {
    let mut calls = SlowCalls::default();
    look(&mut calls, &[], &[]);
    assert_eq!(look(&mut calls, &[], &[(0.05, 3)]), (0, 0), "not yet");
    assert_eq!(look(&mut calls, &[], &[(0.5, 3)]), (3, 3), "overdue");
    // The head of its response is there, and its body is not.
    assert_eq!(look(&mut calls, &[], &[]), (0, 0));
    assert_eq!(look(&mut calls, &[(1.5, 3)], &[]), (0, 0), "counted before");
    assert_eq!(look(&mut calls, &[(1.5, 4)], &[]), (1, 1));
}

#[test]
fn another_threshold_counts_nothing_twice() {
    let mut calls = SlowCalls::default();
    let ended = histogram(&[(0.2, 50)]);
    let waiting = Histogram::default();
    let sample = Sample {
        latency: &ended,
        cancelled: 5,
        waiting: &waiting,
    };
    let thresholds = [0.096, 0.25, 0.096].map(|at| Threshold::at(at).expect("a bound"));
    for threshold in thresholds {
        assert_eq!(calls.look(sample, threshold), Counts::default());
    }
}

#[test]
fn recent_calls_are_those_of_a_minute() {
    let seconds = Duration::from_secs;
    let mut recent = Recent::default();
    let three = histogram(&[(0.01, 3)]);
    for second in 0..33 {
        recent.add(seconds(second), &three);
    }
    assert_eq!(recent.histogram(seconds(32)), None, "99 calls");
    recent.add(seconds(33), &three);
    let all = recent.histogram(seconds(33)).expect("102 calls");
    assert_eq!(all.total(), 102);
    assert_eq!(
        recent.histogram(seconds(62)),
        None,
        "the first are forgotten"
    );
}
