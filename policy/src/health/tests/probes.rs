//! What the probe of an ejected endpoint shows, and which request may be one.
//!
//! Claims: calls-2

use super::*;

#[test]
fn ejected_endpoint_gets_exactly_one_probe_when_due() {
    let start = Instant::now();
    let mut health = rested(start);
    let status =
        |health: &Health, at, may_retry| health.status(start + ms(at), may_retry, ms(10_000));
    assert_eq!(status(&health, 4999, true), Status::Ejected);
    assert_eq!(status(&health, 5000, true), Status::ProbeDue);
    // A request that cannot be tried elsewhere waits for one that can.
    assert_eq!(status(&health, 5999, false), Status::Ejected);
    assert_eq!(status(&health, 6000, false), Status::ProbeDue);

    let probe = health.begin_probe(start + ms(5000), true).unwrap();
    assert_eq!(
        health.begin_probe(start + ms(5000), true),
        None,
        "one at a time"
    );
    assert_eq!(status(&health, 14_999, true), Status::Ejected);
    assert_eq!(
        status(&health, 15_000, true),
        Status::ProbeDue,
        "it was lost"
    );
    health.abandon_probe(start + ms(5100), probe);
    assert_eq!(status(&health, 5100, true), Status::ProbeDue);
    let next = health.begin_probe(start + ms(5100), true).unwrap();
    health.abandon_probe(start + ms(5200), probe);
    assert_eq!(status(&health, 5200, true), Status::Ejected, "not its own");
    health.abandon_probe(start + ms(5200), next);
    assert_eq!(status(&health, 5200, true), Status::ProbeDue);
}

#[test]
fn successful_probe_returns_endpoint_over_warm_up() {
    let start = Instant::now();
    let mut health = rested(start);
    let back = start + ms(5000);
    let own = health.begin_probe(back, true);
    assert!(own.is_some());
    // Late answers to what was sent before the rest show nothing.
    let record =
        |health: &mut Health, probe| health.record(back, Good, probe, &Ejection::DEFAULT, 0);
    assert_eq!(record(&mut health, None), HealthChange::Nothing);
    assert!(health.is_ejected());
    assert_eq!(record(&mut health, own), HealthChange::Returned);
    assert!(!health.is_ejected());
    for (later, share) in [(0, 0.1), (5000, 0.55), (10_000, 1.0), (60_000, 1.0)] {
        let Status::Works(taken) = health.status(back + ms(later), false, ms(10_000)) else {
            panic!("it must work");
        };
        assert!((taken - share).abs() < 1e-9, "{later}: {taken}");
    }
    assert_eq!(
        health.status(back, false, Duration::ZERO),
        Status::Works(1.0)
    );
    assert_eq!(
        health.recent(back),
        Recent::default(),
        "old failures are forgotten"
    );
}

#[test]
fn started_response_clears_only_unreachable_ejection() {
    let start = Instant::now();
    let settings = &Ejection::DEFAULT;
    let unreached = after(5, Unreachable, start);
    for (mut health, cause, change) in [
        (unreached, EjectedFor::Unreachable, HealthChange::Returned),
        (
            after(5, Failed, start),
            EjectedFor::Failures,
            HealthChange::Nothing,
        ),
    ] {
        let evaluated = health.evaluate(start, &others(3, 20, 0), settings, EVEN);
        assert_eq!(evaluated, Some(cause));
        let due = start + ms(5000);
        let probe = health.begin_probe(due, true);
        assert!(probe.is_some());
        assert_eq!(health.record(due, Reached, probe, settings, 0), change);
        assert_eq!(health.is_ejected(), change == HealthChange::Nothing);
        // How it ends shows the rest.
        let ended = health.record(due, Good, probe, settings, 0);
        let expected = match cause {
            EjectedFor::Unreachable => HealthChange::Nothing,
            EjectedFor::Failures => HealthChange::Returned,
        };
        assert_eq!(ended, expected);
    }
    let mut health = unreached;
    assert_eq!(
        health.record(start, Reached, None, settings, 0),
        HealthChange::Nothing
    );
    assert_eq!(health.recent(start).answers, 5, "it is no answer yet");
    health.record(start, Unreachable, None, settings, 0);
    // No other endpoint to compare with: that takes a row of its own.
    assert_eq!(
        health.evaluate(start, &others(2, 0, 0), settings, EVEN),
        None
    );
}

/// By its end alone a stream would show that its endpoint works when it is asked no more.
#[test]
fn probe_response_lasting_one_second_returns_endpoint_once() {
    let (start, settings) = (Instant::now(), &Ejection::DEFAULT);
    let (due, started, lasted) = (start + ms(5000), start + ms(5200), start + ms(6200));
    let streams = || {
        let mut health = rested(start);
        let probe = health.begin_probe(due, true);
        assert!(!health.settle(started), "nothing came");
        let change = health.record(started, Reached, probe, settings, EVEN);
        assert_eq!(change, HealthChange::Nothing);
        (health, probe)
    };
    let (mut health, probe) = streams();
    assert!(!health.settle(lasted - ms(1)));
    assert!(health.is_ejected() && health.counts_as_ejected(lasted));
    let other = health.status(lasted - ms(1), true, ms(0));
    assert_eq!(other, Status::Ejected, "one probe at a time");
    assert!(health.settle(lasted) && !health.settle(lasted), "once");
    assert!(!health.is_ejected() && !health.counts_as_ejected(lasted));
    assert_eq!(
        health.status(lasted, false, ms(10_000)),
        Status::Works(0.1),
        "over the warm-up"
    );
    let change = health.record(lasted, Failed, probe, settings, EVEN);
    assert_eq!(change, HealthChange::Nothing, "a failure as any other");
    assert_eq!(health.recent(lasted).failures, 1);
    health.abandon_probe(lasted, probe.unwrap());
    assert!(!health.is_ejected());
    // Control: one that ends before is judged by its end, and one that is left by nothing.
    for (signal, expected) in [
        (Good, HealthChange::Returned),
        (Failed, HealthChange::EjectedAgain),
    ] {
        let (mut health, probe) = streams();
        let change = health.record(lasted - ms(1), signal, probe, settings, EVEN);
        assert_eq!(change, expected, "{signal:?}");
        assert!(!health.settle(lasted), "{signal:?}");
    }
    let (mut health, probe) = streams();
    health.abandon_probe(lasted - ms(1), probe.unwrap());
    assert!(!health.settle(lasted));
    assert_eq!(health.status(lasted, true, ms(0)), Status::ProbeDue);
}

#[test]
fn late_probe_result_is_not_taken_for_current() {
    let (start, settings) = (Instant::now(), &Ejection::DEFAULT);
    for signal in [Good, Failed] {
        let mut health = rested(start);
        let (due, lost) = (start + ms(5000), start + ms(15_000));
        let late = health.begin_probe(due, true);
        let own = health.begin_probe(lost, true);
        assert!(late.is_some() && own.is_some() && late != own);
        let mut record = |probe| health.record(lost, signal, probe, settings, EVEN);
        assert_eq!(record(late), HealthChange::Nothing, "{signal:?}");
        let change = match signal {
            Good => HealthChange::Returned,
            _ => HealthChange::EjectedAgain,
        };
        assert_eq!(record(own), change, "{signal:?}");
    }
}

/// Calls that hung end by their time limit, for as long as that is, after the probe.
#[test]
fn calls_before_endpoint_return_do_not_count_afterwards() {
    let (start, settings) = (Instant::now(), &Ejection::DEFAULT);
    let due = start + ms(5000);
    let mut health = rested(start);
    let hung = health.returns();
    let probe = health.begin_probe(due, true);
    assert!(health.counts(hung, None), "it rests all the while");
    let change = health.record(due, Failed, probe, settings, EVEN);
    assert_eq!(change, HealthChange::EjectedAgain);
    assert!(
        health.counts(hung, None),
        "a probe that failed shows no more"
    );
    // By an end, and by an answer that lasts.
    for (started, signal) in [(ms(20_000), Good), (ms(40_000), Reached)] {
        let mut health = health;
        let started = start + started;
        let probe = health.begin_probe(started, true);
        assert!(probe.is_some());
        health.record(started, signal, probe, settings, EVEN);
        health.settle(started + LASTED);
        assert!(!health.is_ejected(), "{signal:?}");
        assert!(!health.counts(hung, None), "{signal:?}");
        assert!(health.counts(health.returns(), None), "{signal:?}");
        assert!(health.counts(hung, probe), "it may go on");
    }
    // No place for another rest is no sign that it works.
    let full = Others {
        ejected: 3,
        ..others(3, 20, 0)
    };
    assert!(health.returns_at_ejection_limit(&full, settings));
    assert!(!health.is_ejected() && health.counts(hung, None));
}
