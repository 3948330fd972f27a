//! One port, step by step; what holds over time is in `tests/simulate`.
//!
//! Claims: calls-13, calls-69

use super::*;

mod few;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const SETTINGS: Overload = Overload::DEFAULT;

/// Calls that come one after the other, `per_second` of them, and take `took`.
fn calm(
    limiter: &mut Limiter,
    from: Instant,
    seconds: u64,
    per_second: u64,
    took: Duration,
) -> Instant {
    let mut now = from;
    for _ in 0..seconds * per_second {
        assert_eq!(
            limiter.arrive(now, Priority::Normal, false, &SETTINGS),
            Admit::Pass
        );
        limiter.done(now + took, took, &SETTINGS);
        now += Duration::from_secs(1) / per_second as u32;
    }
    now + took
}

/// 100 ms of three arrivals per completion, calls taking `took`, and under a limit what that
/// allows: ten milliseconds of work and `queueTime`.
fn falls_behind(
    limiter: &mut Limiter,
    from: Instant,
    took: Duration,
    settings: &Overload,
) -> Instant {
    let mut now = from;
    for n in 0..300 {
        limiter.arrive(now, Priority::Normal, false, settings);
        if n % 3 == 0 {
            let limited = limiter.limit().is_some();
            let took = if limited { took.min(ms(110)) } else { took };
            limiter.done(now, took, settings);
        }
        now += Duration::from_micros(333);
    }
    now
}

#[test]
fn limiter_sheds_only_when_calls_wait_and_completions_lag() {
    let start = Instant::now();
    let mut limiter = Limiter::new(start);
    let mut now = calm(&mut limiter, start, 5, 200, ms(10));
    // Falling behind without waiting: a burst.
    for _ in 0..5 {
        now = falls_behind(&mut limiter, now, ms(100), &SETTINGS);
    }
    assert_eq!(limiter.limit(), None);

    let mut limiter = Limiter::new(start);
    let mut now = calm(&mut limiter, start, 5, 200, ms(10));
    // Waiting without falling behind: it has become slower.
    now = calm(&mut limiter, now, 5, 200, ms(300));
    assert_eq!(limiter.limit(), None);
    // Both.
    for _ in 0..3 {
        now = falls_behind(&mut limiter, now, ms(300), &SETTINGS);
    }
    assert!(limiter.limit().is_some());
    assert_eq!(
        limiter.arrive(now, Priority::Normal, false, &SETTINGS),
        Admit::Shed
    );
}

fn overloaded(settings: &Overload) -> (Limiter, Instant) {
    let start = Instant::now();
    let mut limiter = Limiter::new(start);
    let mut now = calm(&mut limiter, start, 5, 200, ms(10));
    for _ in 0..5 {
        now = falls_behind(&mut limiter, now, ms(300), settings);
    }
    (limiter, now)
}

#[test]
fn critical_requests_get_twice_limit_sheddable_three_fifths() {
    let (mut limiter, now) = overloaded(&SETTINGS);
    let limit = limiter.limit().unwrap();
    let room = |limiter: &mut Limiter, priority, retry| {
        while limiter.in_flight() > 0 {
            limiter.left();
        }
        while limiter.arrive(now, priority, retry, &SETTINGS) == Admit::Pass {}
        f64::from(limiter.in_flight())
    };
    for (priority, retry, part) in [
        (Priority::Critical, false, 2.0),
        (Priority::Normal, false, 1.0),
        (Priority::Sheddable, false, 0.6),
        (Priority::Critical, true, 1.0),
        (Priority::Normal, true, 0.6),
        (Priority::Sheddable, true, 0.6),
    ] {
        let admitted = room(&mut limiter, priority, retry);
        assert!(
            (admitted - limit * part).abs() <= 1.0,
            "{priority:?} {retry}: {admitted} of {limit}"
        );
    }
}

#[test]
fn audit_counts_and_lets_pass_and_off_does_neither() {
    let audit = Overload {
        mode: OverloadMode::Audit,
        ..SETTINGS
    };
    let (mut limiter, now) = overloaded(&audit);
    assert_eq!(
        limiter.arrive(now, Priority::Normal, false, &audit),
        Admit::Audit
    );
    assert!(Admit::Audit.passes() && !Admit::Shed.passes());
    let off = Overload {
        mode: OverloadMode::Off,
        ..SETTINGS
    };
    assert_eq!(
        limiter.arrive(now, Priority::Normal, false, &off),
        Admit::Pass
    );
    assert_eq!(limiter.limit(), None);
}

#[test]
fn configured_cap_holds_regardless_of_measurements() {
    let now = Instant::now();
    let capped = Overload {
        max_concurrency: Some(3),
        ..SETTINGS
    };
    let mut limiter = Limiter::new(now);
    for _ in 0..3 {
        assert_eq!(
            limiter.arrive(now, Priority::Critical, false, &capped),
            Admit::Pass
        );
    }
    assert_eq!(
        limiter.arrive(now, Priority::Critical, false, &capped),
        Admit::Shed
    );
    limiter.left();
    assert_eq!(
        limiter.arrive(now, Priority::Critical, false, &capped),
        Admit::Pass
    );
}

#[test]
fn full_cap_prefers_critical_requests_and_audit_reports_sheds() {
    let now = Instant::now();
    for (mode, beyond) in [
        (OverloadMode::Adaptive, Admit::Shed),
        (OverloadMode::Audit, Admit::Audit),
    ] {
        let capped = Overload {
            mode,
            max_concurrency: Some(10),
            ..SETTINGS
        };
        let mut limiter = Limiter::new(now);
        let mut arrive = |priority, retry| limiter.arrive(now, priority, retry, &capped);
        assert_eq!(arrive(Priority::Critical, false), Admit::Pass);
        for _ in 0..8 {
            assert_eq!(arrive(Priority::Normal, false), Admit::Pass, "{mode:?}");
        }
        assert_eq!(arrive(Priority::Normal, false), beyond);
        if mode == OverloadMode::Adaptive {
            assert_eq!(arrive(Priority::Critical, true), beyond, "as a Normal one");
            assert_eq!(arrive(Priority::Critical, false), Admit::Pass);
        }
        assert_eq!(arrive(Priority::Critical, false), beyond, "it is full");
    }
}

#[test]
fn limit_increase_without_calls_leaves_calm_time_unchanged() {
    let (mut limiter, mut now) = overloaded(&SETTINGS);
    // Its rate and with it its limit grow for so long.
    for _ in 0..30 {
        now = falls_behind(&mut limiter, now, ms(300), &SETTINGS);
    }
    let limit = limiter.limit().unwrap();
    for _ in 0..30 {
        if limiter.limit().unwrap() > 1.4 * limit {
            break;
        }
        now = falls_behind(&mut limiter, now, ms(300), &SETTINGS);
    }
    assert!(limiter.limit().unwrap() > 1.4 * limit, "more is tried");
    // No call comes until long after the trial, and then one does.
    now += ms(1500);
    limiter.arrive(now, Priority::Normal, false, &SETTINGS);
    assert!(limiter.limit().is_some(), "it is not over yet");
    let load = limiter.load(&SETTINGS);
    assert!(
        load >= 45,
        "calls took 100 ms longer than when calm: {load}"
    );
}

#[test]
fn long_polls_count_in_limit_only_while_arriving() {
    let start = Instant::now();
    let mut limiter = Limiter::new(start);
    let mut now = calm(&mut limiter, start, 5, 200, ms(10));
    // One call in a hundred takes four seconds, which makes 50 ms in the mean.
    for _ in 0..120 {
        for n in 0..200 {
            let took = if n % 100 == 0 { 4000 } else { 10 };
            limiter.arrive(now, Priority::Normal, false, &SETTINGS);
            limiter.done(now, ms(took), &SETTINGS);
            now += ms(5);
        }
    }
    let per_second = |limiter: &Limiter| limiter.limit().map(|limit| limit / 1000.0);
    for _ in 0..30 {
        now = falls_behind(&mut limiter, now, ms(300), &SETTINGS);
    }
    let with = per_second(&limiter).unwrap();
    assert!((0.135..0.155).contains(&with), "{with} s of 0.15");
    // Most of a minute without any: then the calm time is measured anew.
    for _ in 0..550 {
        now = falls_behind(&mut limiter, now, ms(300), &SETTINGS);
    }
    let without = per_second(&limiter).unwrap();
    assert!((0.105..0.125).contains(&without), "{without} s of 0.11");
}

#[test]
fn what_is_put_off_has_not_arrived() {
    // Control: the same arrivals, which wait for the application.
    for is_put_off in [true, false] {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let mut now = calm(&mut limiter, start, 5, 200, ms(10));
        for n in 0..6000 {
            let admit = limiter.arrive(now, Priority::Normal, false, &SETTINGS);
            if n % 3 == 0 {
                let took = limiter.limit().map_or(ms(300), |_| ms(110));
                limiter.done(now, took, &SETTINGS);
            } else if is_put_off && admit.passes() {
                limiter.put_off();
            }
            now += Duration::from_micros(333);
        }
        assert_eq!(limiter.limit().is_none(), is_put_off);
        assert_eq!(limiter.in_flight() == 0, is_put_off);
    }
}

#[test]
fn deferred_call_is_not_counted_among_first_calls() {
    // Control: callers that went are, and what is fast among the others passes for calm.
    for is_put_off in [true, false] {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        for _ in 0..24 {
            limiter.arrive(start, Priority::Normal, false, &SETTINGS);
            if is_put_off {
                limiter.put_off();
            } else {
                limiter.left();
            }
        }
        for _ in 0..25 {
            limiter.arrive(start, Priority::Normal, false, &SETTINGS);
        }
        let end = calm(&mut limiter, start + ms(20), 2, 50, ms(10));
        for _ in 0..25 {
            limiter.done(end, end - start, &SETTINGS);
        }
        assert_eq!(limiter.load(&SETTINGS) == 0, is_put_off);
    }
}

#[test]
fn load_is_half_when_calls_wait_allowed_time() {
    let start = Instant::now();
    let mut limiter = Limiter::new(start);
    limiter.done(start, ms(500), &SETTINGS);
    assert_eq!(limiter.load(&SETTINGS), 0, "that may be calm");
    let mut limiter = Limiter::new(start);
    let now = calm(&mut limiter, start, 10, 200, ms(10));
    assert_eq!(limiter.load(&SETTINGS), 0);
    for (took, load) in [(110, 50), (210, 66), (1010, 90)] {
        for _ in 0..100 {
            limiter.done(now, ms(took), &SETTINGS);
        }
        let measured = limiter.load(&SETTINGS);
        assert!(measured.abs_diff(load) <= 2, "{took}: {measured}");
    }
}

#[test]
fn caller_refused_over_half_throttles_but_keeps_calling() {
    let start = Instant::now();
    let (then, sure) = (start + ms(5000), u64::MAX - 1);
    let at = |part: f64| (part * u64::MAX as f64) as u64;
    let after = |accepted: u32, refused: u32| {
        let mut throttle = Throttle::new(start);
        for _ in 0..accepted {
            throttle.record(start, false, false);
        }
        for _ in 0..refused {
            throttle.record(start, false, true);
        }
        throttle
    };
    assert!(!after(50, 50).refuses(then, 0), "half are accepted");
    // 50 of 400 were accepted: 300 / 401.
    assert!(!after(50, 350).refuses(start + ms(4999), 0), "not at once");
    assert!(after(50, 350).refuses(then, at(0.74)));
    assert!(!after(50, 350).refuses(then, at(0.76)));
    assert!(!after(0, 350).refuses(then, sure), "never all");
    let mut throttle = after(50, 350);
    assert!(!throttle.is_over(then) && throttle.is_over(start + ms(20_000)));
    assert!(!throttle.refuses(start + ms(20_000), 0), "it is forgotten");
}

#[test]
fn slow_answer_counts_as_accepted_when_sent() {
    let start = Instant::now();
    let mut throttle = Throttle::new(start);
    for n in 0..100 {
        assert!(!throttle.refuses(start, 0));
        if n % 2 == 0 {
            throttle.record(start, true, true);
        }
    }
    let then = start + ms(5000);
    assert!(!throttle.refuses(then, 0), "half are on their way");
    assert_eq!(throttle.percent(then), 0);
    for _ in 0..100 {
        throttle.record(then, false, true);
    }
    assert!(throttle.refuses(then, 0));
    assert_eq!(throttle.percent(then), 0, "one of 102");
    for _ in 0..100 {
        throttle.refuses(then, 0);
    }
    assert!((45..=50).contains(&throttle.percent(then)));
}

#[test]
fn caller_asks_for_all_after_ten_accepted_calls() {
    let start = Instant::now();
    let mut throttle = Throttle::new(start);
    for _ in 0..1000 {
        throttle.record(start, false, true);
    }
    let then = start + ms(5000);
    for _ in 0..9 {
        assert!(!throttle.refuses(then, u64::MAX));
    }
    assert!(!throttle.is_over(then), "nine");
    assert!(!throttle.refuses(then, u64::MAX));
    assert!(throttle.is_over(then), "ten");
    throttle.record(then, true, true);
    assert!(!throttle.is_over(then + ms(2000)), "it refuses again");
}

#[test]
fn limit_is_shown_while_callers_may_hold_back() {
    let (mut limiter, mut now) = overloaded(&SETTINGS);
    assert_eq!(limiter.shown_limit(now), limiter.limit());
    while limiter.in_flight() > 0 {
        limiter.left();
    }
    now += ms(2100);
    limiter.arrive(now, Priority::Normal, false, &SETTINGS);
    assert_eq!(limiter.limit(), None, "it is over");
    assert!(limiter.shown_limit(now + ms(9000)) > Some(0.0));
    assert_eq!(limiter.shown_limit(now + ms(10_000)), None);
}
