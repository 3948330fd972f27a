//! Ports with so few calls that most intervals are empty.
//!
//! Claims: calls-69

use super::*;

#[test]
fn port_with_few_calls_learns_calm_time_and_load() {
    for per_second in [1, 4] {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let now = calm(&mut limiter, start, 60, per_second, ms(10));
        assert_eq!(limiter.load(&SETTINGS), 0, "{per_second}: calm");
        // So many lead the running median to what they take.
        let now = calm(&mut limiter, now, 40 / per_second, per_second, ms(210));
        let load = limiter.load(&SETTINGS);
        assert!(load.abs_diff(66) <= 3, "{per_second}: {load}");
        // After a minute that is what they take.
        calm(&mut limiter, now, 70, per_second, ms(210));
        assert_eq!(limiter.load(&SETTINGS), 0, "{per_second}: for good");
    }
}

#[test]
fn very_first_call_is_no_baseline_for_others() {
    let start = Instant::now();
    let mut limiter = Limiter::new(start);
    let mut now = calm(&mut limiter, start, 1, 1, ms(50));
    for _ in 0..60 {
        now = calm(&mut limiter, now, 1, 1, ms(300));
        assert_eq!(limiter.load(&SETTINGS), 0);
    }
}

/// One worker that takes 100 ms for each of sixty calls, which come together every 20 s. That
/// nothing completes before a batch is no measure of what it can do.
#[test]
fn a_batch_now_and_then_is_not_shed() {
    let start = Instant::now();
    let mut limiter = Limiter::new(start);
    for batch in 0..6 {
        let begins = start + ms(20_000 * batch);
        for n in 0..60 {
            let admit = limiter.arrive(begins + ms(n), Priority::Normal, false, &SETTINGS);
            assert_eq!(admit, Admit::Pass, "{n} of {batch}");
        }
        for n in 0..60 {
            let took = ms(100 * (n + 1) - n);
            limiter.done(begins + ms(n) + took, took, &SETTINGS);
        }
    }
}
