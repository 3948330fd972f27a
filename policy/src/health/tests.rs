//! Which endpoints are ejected, for how long, and how they come back.
//!
//! Claims: calls-20

use super::HealthSignal::{Failed, Good, Reached, Unreachable};
use super::*;

mod probes;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// No jitter: ejections are as long as they are set.
const EVEN: u64 = 1 << 63;

fn others(endpoints: usize, answers: u32, failures: u32) -> Others {
    Others {
        endpoints,
        ejected: 0,
        recent: Recent { answers, failures },
    }
}

fn after(failures: usize, signal: HealthSignal, now: Instant) -> Health {
    let mut health = Health::new(now, None);
    for n in 1..=failures {
        let change = health.record(now, signal, None, &Ejection::DEFAULT, EVEN);
        let expected = if n >= 5 {
            HealthChange::RowIsFull
        } else {
            HealthChange::Nothing
        };
        assert_eq!(change, expected, "after {n}");
    }
    health
}

fn rested(now: Instant) -> Health {
    let mut health = after(5, Failed, now);
    let cause = health.evaluate(now, &others(3, 20, 0), &Ejection::DEFAULT, EVEN);
    assert_eq!(cause, Some(EjectedFor::Failures));
    health
}

#[test]
fn five_consecutive_failures_eject_after_twenty_responses_elsewhere() {
    let now = Instant::now();
    let evaluated = |failures, answers| {
        after(failures, Failed, now).evaluate(now, &others(3, answers, 0), &Ejection::DEFAULT, 0)
    };
    assert_eq!(evaluated(5, 20), Some(EjectedFor::Failures));
    assert_eq!(evaluated(4, 20), None);
    assert_eq!(evaluated(5, 19), None);
    assert_eq!(evaluated(50, 19), None);
}

#[test]
fn a_good_answer_ends_the_row() {
    let now = Instant::now();
    let mut health = after(4, Failed, now);
    let mut record = |signal| health.record(now, signal, None, &Ejection::DEFAULT, 0);
    assert_eq!(record(Good), HealthChange::Nothing);
    for _ in 0..4 {
        assert_eq!(record(Failed), HealthChange::Nothing);
    }
    assert_eq!(record(Failed), HealthChange::RowIsFull);
}

#[test]
fn below_three_endpoints_only_unreachable_ones_are_ejected() {
    let now = Instant::now();
    for (endpoints, signal, expected) in [
        (3, Failed, Some(EjectedFor::Failures)),
        (2, Failed, None),
        (2, Unreachable, Some(EjectedFor::Unreachable)),
        (1, Unreachable, None),
    ] {
        let cause =
            after(5, signal, now).evaluate(now, &others(endpoints, 100, 0), &Ejection::DEFAULT, 0);
        assert_eq!(cause, expected, "{endpoints} {signal:?}");
    }
    // Without any answer of the others: they may be dead as well, but they are others.
    let cause = after(5, Unreachable, now).evaluate(now, &others(3, 0, 0), &Ejection::DEFAULT, 0);
    assert_eq!(cause, Some(EjectedFor::Unreachable));
}

#[test]
fn endpoint_failing_like_others_is_not_ejected() {
    let now = Instant::now();
    let evaluated = |row, answers, failures| {
        after(row, Failed, now)
            .evaluate(now, &others(4, answers, failures), &Ejection::DEFAULT, 0)
            .is_some()
    };
    assert!(evaluated(5, 200, 2), "others fail now and then");
    assert!(!evaluated(5, 200, 60), "a row of five at 30 % is chance");
    assert!(evaluated(12, 200, 60), "a row of twelve is none");
    assert!(
        !evaluated(100, 200, 101),
        "no endpoint fails twice as often as half"
    );
}

#[test]
fn shorter_failure_run_ejects_if_configured_and_others_healthy() {
    let now = Instant::now();
    let evaluated = |row, answers, failures| {
        let settings = Ejection {
            consecutive_failures: row,
            ..Ejection::DEFAULT
        };
        let mut health = Health::new(now, None);
        for _ in 0..row {
            health.record(now, Failed, None, &settings, EVEN);
        }
        let others = others(3, answers, failures);
        health.evaluate(now, &others, &settings, EVEN).is_some()
    };
    for row in 1..=5 {
        assert!(evaluated(row, 20, 0), "{row} in a row");
        assert!(!evaluated(row, 19, 0), "{row} in a row");
    }
    assert!(evaluated(3, 200, 1), "hardly any other endpoint fails");
    assert!(!evaluated(3, 200, 20), "three in a row at 10 % are chance");
}

#[test]
fn judgements_about_one_set_come_one_after_the_other() {
    let now = Instant::now();
    let settings = &Ejection::DEFAULT;
    let row = || after(5, Failed, now);
    let mut set = [row(), row(), Health::new(now, None)];
    let mut evaluate = |at: usize| {
        let others = Others {
            ejected: set.iter().filter(|one| one.is_ejected()).count(),
            ..others(3, 100, 0)
        };
        set[at].evaluate(now, &others, settings, EVEN)
    };
    assert_eq!(evaluate(0), Some(EjectedFor::Failures));
    assert_eq!(evaluate(1), None, "one of three at most");
    assert_eq!(set.iter().filter(|one| one.is_ejected()).count(), 1);
}

#[test]
fn no_more_rest_than_the_percentage_says() {
    let percent = |max| Percent::try_from(max).unwrap();
    for (endpoints, max, most) in [
        (0, 34, 0),
        (1, 100, 0),
        (2, 34, 1),
        (3, 34, 1),
        (5, 34, 1),
        (6, 34, 2),
        (200, 34, 68),
        (3, 100, 3),
        (2, 1, 1),
        (10, 0, 0),
    ] {
        assert_eq!(
            max_ejected(endpoints, percent(max)),
            most,
            "{endpoints} {max}"
        );
    }
    let now = Instant::now();
    let full = Others {
        ejected: 1,
        ..others(3, 100, 0)
    };
    assert_eq!(
        after(5, Unreachable, now).evaluate(now, &full, &Ejection::DEFAULT, 0),
        None
    );
}

#[test]
fn endpoint_age_follows_remote_clock_without_negatives() {
    const NOW: u64 = 1_800_000_000;
    let now = Instant::now() + ms(1_000_000);
    for (since, age) in [
        (NOW - 7, Some(7)),
        (NOW, Some(0)),
        // The other clock is ahead.
        (NOW + 40, Some(0)),
        (NOW - 299, Some(299)),
        (NOW - 300, None),
        (0, None),
    ] {
        let ready = ready_at(now, NOW, since);
        let age = age.map(|age| now - ms(1000 * age));
        assert_eq!(ready, age, "{since}");
    }
}

#[test]
fn new_endpoint_warms_up_but_old_does_not() {
    let now = Instant::now() + ms(10_000);
    let share = |ready| Health::new(now, ready).status(now, true, ms(10_000));
    assert_eq!(share(None), Status::Works(1.0));
    assert_eq!(share(Some(now - ms(10_000))), Status::Works(1.0));
    assert_eq!(share(Some(now)), Status::Works(0.1));
}

#[test]
fn ejection_time_doubles_up_to_max_with_fifth_jitter() {
    let start = Instant::now();
    let mut health = rested(start);
    let mut now = start + ms(5000);
    for rest in [10, 20, 40, 60, 60] {
        let probe = health.begin_probe(now, true);
        assert!(probe.is_some());
        let change = health.record(now, Failed, probe, &Ejection::DEFAULT, EVEN);
        assert_eq!(change, HealthChange::EjectedAgain);
        now += ms(rest * 1000);
        assert_eq!(
            health.status(now - ms(1), true, ms(0)),
            Status::Ejected,
            "{rest}"
        );
        assert_eq!(health.status(now, true, ms(0)), Status::ProbeDue, "{rest}");
    }
    for (random, rest) in [(0, 4000), (u64::MAX, 6000)] {
        let mut health = after(5, Failed, start);
        health.evaluate(start, &others(3, 20, 0), &Ejection::DEFAULT, random);
        assert_eq!(
            health.status(start + ms(rest - 1), true, ms(0)),
            Status::Ejected
        );
        assert_eq!(
            health.status(start + ms(rest + 1), true, ms(0)),
            Status::ProbeDue
        );
    }
}

#[test]
fn rests_start_over_after_a_longer_time_of_work() {
    let start = Instant::now();
    for (worked, rest) in [(59_000, 10_000), (60_000, 5000)] {
        let mut health = rested(start);
        let back = start + ms(5000);
        let probe = health.begin_probe(back, true);
        assert!(probe.is_some());
        health.record(back, Good, probe, &Ejection::DEFAULT, 0);
        let now = back + ms(worked);
        for _ in 0..5 {
            health.record(now, Failed, None, &Ejection::DEFAULT, 0);
        }
        assert!(
            health
                .evaluate(now, &others(3, 20, 0), &Ejection::DEFAULT, EVEN)
                .is_some()
        );
        assert_eq!(
            health.status(now + ms(rest - 1), true, ms(0)),
            Status::Ejected
        );
        assert_eq!(health.status(now + ms(rest), true, ms(0)), Status::ProbeDue);
    }
}

#[test]
fn disabled_ejection_ejects_no_endpoint() {
    let off = Ejection {
        consecutive_failures: 0,
        ..Ejection::DEFAULT
    };
    let now = Instant::now();
    let mut health = Health::new(now, None);
    for _ in 0..300 {
        assert_eq!(
            health.record(now, Unreachable, None, &off, 0),
            HealthChange::Nothing
        );
    }
    assert_eq!(health.evaluate(now, &others(3, 100, 0), &off, 0), None);
}

#[test]
fn service_without_ejection_ends_no_ejection_early() {
    let off = Ejection {
        consecutive_failures: 0,
        ..Ejection::DEFAULT
    };
    let start = Instant::now();
    let (early, over) = (start + ms(4999), start + ms(5000));
    let mut health = rested(start);
    assert!(
        health.share(early, ms(10_000)) >= 1.0,
        "it is asked as ever"
    );
    let mut record = |now, signal, settings| health.record(now, signal, None, settings, EVEN);
    assert_eq!(record(early, Good, &off), HealthChange::Nothing);
    for signal in [Failed, Unreachable, Reached] {
        let change = record(over, signal, &off);
        assert_eq!(change, HealthChange::Nothing, "{signal:?}");
    }
    let late = record(over, Good, &Ejection::DEFAULT);
    assert_eq!(
        late,
        HealthChange::Nothing,
        "who lets endpoints rest probes them"
    );
    assert_eq!(record(over, Good, &off), HealthChange::Returned);
    assert!(!health.is_ejected());
    assert_eq!(health.status(over, true, ms(10_000)), Status::Works(0.1));
}

#[test]
fn answers_are_forgotten_after_ten_seconds() {
    let start = Instant::now();
    let mut health = Health::new(start, None);
    for second in 0..20 {
        let now = start + ms(second * 1000);
        health.record(now, Failed, None, &Ejection::DEFAULT, 0);
    }
    let now = start + ms(19_000);
    assert_eq!(health.recent(now).failures, 10);
    assert_eq!(health.recent(now + ms(5000)).failures, 4);
    assert_eq!(health.recent(now + ms(11_000)), Recent::default());
    // Clocks of two threads may cross.
    assert_eq!(health.recent(start).failures, 10);
}

#[test]
fn endpoint_health_fits_in_100_bytes() {
    assert!(size_of::<Health>() <= 100, "{}", size_of::<Health>());
}
