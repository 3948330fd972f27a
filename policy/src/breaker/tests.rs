//! One proxy's breaker, and the mesh's.
//!
//! Claims: calls-67

mod mesh;

use std::time::{Duration, Instant};

use super::own::{Admit, Breaker, ShownState, WITHOUT_CONTROLLER};
use super::window::Probes;
use super::*;
use crate::traffic::endpoint::{Breaker as Settings, BreakerState};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const SETTINGS: Settings = Settings::DEFAULT;

/// So many attempts at one moment, the failures last.
fn send(breaker: &mut Breaker, now: Instant, sent: u32, failed: u32) {
    for n in 0..sent {
        breaker.record(now, n >= sent - failed, &SETTINGS);
    }
}

fn seen(now: Instant, sent: u32, failed: u32) -> Breaker {
    let mut breaker = Breaker::new(now);
    send(&mut breaker, now, sent, failed);
    breaker
}

#[test]
fn a_window_forgets_what_is_older_than_its_interval() {
    let start = Instant::now();
    let mut window = Window::new(start);
    for second in 0..30 {
        window.add(start + ms(second * 1000), ms(10_000), 10, 1);
    }
    let now = start + ms(29_000);
    let sum = window.sum(now, ms(10_000));
    assert_eq!((sum.sent, sum.failed, sum.percent()), (100, 10, 10));
    assert_eq!(window.sum(now + ms(5000), ms(10_000)).sent, 50);
    assert_eq!(window.sum(now + ms(20_000), ms(10_000)), Sum::default());
    assert!(!Sum::default().fails(1));
    assert!(Sum { sent: 2, failed: 1 }.fails(50) && !Sum { sent: 3, failed: 1 }.fails(50));
}

#[test]
fn enough_probes_of_which_few_failed_are_good() {
    let mut probes = Probes::default();
    for _ in 0..19 {
        probes.add(false);
    }
    assert!(!probes.are_good(20, 50), "one is missing");
    probes.add(true);
    assert!(probes.are_good(20, 50));
    for _ in 0..9 {
        probes.add(true);
    }
    assert!(!probes.are_good(20, 50), "half of the last twenty failed");
    probes.add(false);
    assert!(!probes.are_good(20, 50), "the one that left was good");
    for _ in 0..10 {
        probes.add(false);
    }
    assert!(probes.are_good(20, 50) && !probes.are_good(20, 45));
}

#[test]
fn a_proxy_whose_own_numbers_suffice_opens_at_once() {
    let now = Instant::now();
    let open = |sent, failed| seen(now, sent, failed).admit(now, &SETTINGS, 0) == Admit::Refuse;
    assert!(open(50, 25));
    assert!(!open(49, 49), "too few requests");
    assert!(!open(100, 49), "too few failures");
}

#[test]
fn lone_breaker_closes_slowly_after_five_one_second_probes() {
    let start = Instant::now();
    let mut breaker = seen(start, 50, 50);
    let half = 1 << 63;
    assert_eq!(breaker.admit(start + ms(4999), &SETTINGS, 0), Admit::Refuse);
    let mut now = start + ms(5000);
    for _ in 0..2 {
        assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Probe);
        assert_eq!(breaker.admit(now + ms(999), &SETTINGS, 0), Admit::Refuse);
        breaker.record_probe(now, true, &SETTINGS);
        now += ms(1000);
    }
    for _ in 0..3 {
        assert_eq!(breaker.state(&SETTINGS), ShownState::Open);
        assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Probe);
        breaker.record_probe(now, false, &SETTINGS);
        now += ms(1000);
    }
    // Of the last five two failed.
    assert_eq!(breaker.state(&SETTINGS), ShownState::Closing);
    let closing = now - ms(1000);
    for (later, passes) in [(0, false), (4000, false), (4500, true), (10_000, true)] {
        let admit = breaker.admit(closing + ms(later), &SETTINGS, half);
        assert_eq!(admit == Admit::Pass, passes, "{later}");
    }
    assert_eq!(breaker.state(&SETTINGS), ShownState::Closed);
    assert_eq!(
        breaker.seen(closing + ms(10_000), &SETTINGS).sent,
        0,
        "forgiven"
    );
}

/// A connection may be open for hours before it is known what it is to carry.
#[test]
fn call_before_breaker_opening_is_rejected_not_probed() {
    let before = Instant::now();
    let opens = before + ms(1000);
    for by_controller in [false, true] {
        let mut breaker = Breaker::new(before);
        let admit =
            |breaker: &mut Breaker, now, started| breaker.admit_started(now, started, &SETTINGS, 0);
        let calm = admit(&mut breaker, opens, before);
        assert_eq!(calm, Admit::Pass, "control: nothing is amiss");
        if by_controller {
            breaker.set_fleet_state(opens, FleetBreakerState::Open);
            let every = ms(1000);
            breaker.set_fleet_state(opens + ms(5000), FleetBreakerState::Probing { every });
        } else {
            send(&mut breaker, opens, 50, 50);
        }
        let due = opens + ms(6000);
        for _ in 0..3 {
            assert_eq!(admit(&mut breaker, due, before), Admit::Refuse);
        }
        assert_eq!(breaker.take_counts().map_or(0, |said| said.refused), 3);
        assert_eq!(admit(&mut breaker, due, opens), Admit::Probe, "since then");
    }
}

#[test]
fn fleet_state_is_obeyed_unless_own_calls_succeed() {
    let now = Instant::now();
    let with_fleet_state = |mut breaker: Breaker| {
        breaker.set_fleet_state(now, FleetBreakerState::Open);
        breaker.admit(now, &SETTINGS, 0)
    };
    assert_eq!(
        with_fleet_state(seen(now, 0, 0)),
        Admit::Refuse,
        "nothing of its own"
    );
    assert_eq!(
        with_fleet_state(seen(now, 4, 2)),
        Admit::Refuse,
        "it sees the failures"
    );
    assert_eq!(
        with_fleet_state(seen(now, 5, 2)),
        Admit::Pass,
        "its calls succeed"
    );

    // A proxy that obeys goes on to, although it sees nothing any more.
    let mut breaker = seen(now, 4, 4);
    breaker.set_fleet_state(now, FleetBreakerState::Open);
    assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Refuse);
    let later = now + ms(60_000);
    breaker.set_fleet_state(later, FleetBreakerState::Probing { every: ms(1200) });
    assert_eq!(breaker.admit(later, &SETTINGS, 0), Admit::Probe);
    assert_eq!(breaker.admit(later + ms(1199), &SETTINGS, 0), Admit::Refuse);
    assert_eq!(breaker.admit(later + ms(1200), &SETTINGS, 0), Admit::Probe);
    breaker.set_fleet_state(later, FleetBreakerState::Closing { since: ms(0) });
    assert_eq!(breaker.state(&SETTINGS), ShownState::Closing);
    let half = 1 << 63;
    assert_eq!(
        breaker.admit(later + ms(4000), &SETTINGS, half),
        Admit::Refuse
    );
    assert_eq!(
        breaker.admit(later + ms(5000), &SETTINGS, half),
        Admit::Pass
    );
    breaker.set_fleet_state(later, FleetBreakerState::Closed);
    assert_eq!(breaker.admit(later, &SETTINGS, half), Admit::Pass);
}

#[test]
fn without_a_controller_its_word_ends_after_fifteen_seconds() {
    let start = Instant::now();
    let mut breaker = seen(start, 0, 0);
    breaker.set_fleet_state(start, FleetBreakerState::Open);
    let lost = start + ms(1000);
    breaker.controller_lost(lost);
    breaker.controller_lost(lost + ms(5000));
    assert_eq!(
        breaker.admit(lost + WITHOUT_CONTROLLER - ms(1), &SETTINGS, 0),
        Admit::Refuse
    );
    assert_eq!(
        breaker.admit(lost + WITHOUT_CONTROLLER, &SETTINGS, 0),
        Admit::Pass
    );
    // Another one came in time.
    let mut breaker = seen(start, 0, 0);
    breaker.set_fleet_state(start, FleetBreakerState::Open);
    breaker.controller_lost(start);
    breaker.set_fleet_state(start + ms(14_000), FleetBreakerState::Open);
    assert_eq!(
        breaker.admit(start + ms(60_000), &SETTINGS, 0),
        Admit::Refuse
    );
}

#[test]
fn configured_breaker_state_overrides_measurements() {
    let now = Instant::now();
    let with = |state| Settings { state, ..SETTINGS };
    let mut healthy = seen(now, 100, 0);
    assert_eq!(
        healthy.admit(now, &with(BreakerState::Open), 0),
        Admit::Refuse
    );
    let mut failing = seen(now, 100, 100);
    assert_eq!(
        failing.admit(now, &with(BreakerState::Closed), 0),
        Admit::Pass
    );
    assert_eq!(
        failing.state(&with(BreakerState::Closed)),
        ShownState::Closed
    );
    assert_eq!(healthy.state(&with(BreakerState::Open)), ShownState::Open);
}

/// Its numbers say otherwise, or there were none.
#[test]
fn a_state_that_was_written_down_leaves_nothing_behind() {
    let start = Instant::now();
    let closed = Settings {
        state: BreakerState::Closed,
        ..SETTINGS
    };
    let mut breaker = seen(start, 100, 100);
    assert_eq!(breaker.admit(start, &closed, 0), Admit::Pass);
    for second in 1..=20 {
        let now = start + ms(second * 1000);
        breaker.record(now, second < 3, &closed);
        assert_eq!(breaker.admit(now, &closed, 0), Admit::Pass);
    }
    let later = start + ms(20_000);
    assert_eq!(breaker.admit(later, &SETTINGS, 0), Admit::Pass);
    // Nor what was seen a moment before.
    for state in [BreakerState::Open, BreakerState::Closed] {
        let mut recent = seen(start, 60, 60);
        let written = Settings { state, ..SETTINGS };
        recent.admit(start + ms(500), &written, 0);
        recent.record(start + ms(600), true, &written);
        let auto = start + ms(700);
        assert_eq!(recent.admit(auto, &SETTINGS, 0), Admit::Pass, "{state:?}");
        recent.record(auto, false, &SETTINGS);
        assert_eq!(recent.admit(auto, &SETTINGS, 0), Admit::Pass, "{state:?}");
    }
    let open = Settings {
        state: BreakerState::Open,
        ..SETTINGS
    };
    assert_eq!(breaker.admit(later, &open, 0), Admit::Refuse);
    assert_eq!(breaker.admit(later, &SETTINGS, 0), Admit::Pass);
    // Control: what it sees afterwards counts.
    send(&mut breaker, later, 100, 100);
    assert_eq!(breaker.admit(later, &SETTINGS, 0), Admit::Refuse);
}

/// Such as a stream that is open for hours.
#[test]
fn late_call_end_of_configured_state_is_ignored() {
    let start = Instant::now();
    let closed = Settings {
        state: BreakerState::Closed,
        ..SETTINGS
    };
    let mut breaker = seen(start, 1, 0);
    assert_eq!(breaker.admit(start, &closed, 0), Admit::Pass);
    assert_eq!(breaker.admit(start, &SETTINGS, 0), Admit::Pass);
    send(&mut breaker, start, 100, 100);
    assert_eq!(breaker.admit(start, &SETTINGS, 0), Admit::Refuse);
    breaker.record(start, true, &closed);
    breaker.record(start, false, &closed);
    assert_eq!(breaker.admit(start, &SETTINGS, 0), Admit::Refuse);
    let mut calm = seen(start, 1, 0);
    for _ in 0..200 {
        calm.record(start, true, &closed);
    }
    assert_eq!(calm.admit(start, &SETTINGS, 0), Admit::Pass);
}

#[test]
fn counts_cover_the_time_since_the_last_report() {
    let now = Instant::now();
    let mut breaker = seen(now, 60, 60);
    assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Refuse);
    breaker.record_probe(now, true, &SETTINGS);
    let expected = BreakerCounts {
        sent: 60,
        failed: 60,
        refused: 1,
        probes: 1,
        failed_probes: 1,
        sent_probes: 0,
    };
    assert_eq!(breaker.take_counts(), Some(expected));
    assert_eq!(breaker.take_counts(), None);
}

/// Those of a watch, of which all break when their server restarts.
#[test]
fn lasting_stream_counts_once_and_its_end_never() {
    let start = Instant::now();
    let mut breaker = Breaker::new(start);
    let begin = |breaker: &mut Breaker, now| {
        let streams = (0..60).map(|_| breaker.begin_stream(now, false, &SETTINGS));
        streams.collect::<Vec<_>>()
    };
    let end = |breaker: &mut Breaker, now, streams: Vec<Stream>| {
        for stream in streams {
            breaker.end_stream(now, stream, Some(true), &SETTINGS);
        }
    };
    let sent = |breaker: &mut Breaker, now| {
        breaker.settle(now, &SETTINGS);
        let sum = breaker.seen(now, &SETTINGS);
        (sum.sent, sum.failed)
    };
    let streams = begin(&mut breaker, start);
    assert_eq!(sent(&mut breaker, start + ms(1000)), (0, 0), "not yet");
    assert_eq!(sent(&mut breaker, start + ms(1100)), (60, 0));
    assert_eq!(sent(&mut breaker, start + ms(2200)), (60, 0), "once");
    end(&mut breaker, start + ms(2200), streams);
    assert_eq!(sent(&mut breaker, start + ms(2200)), (60, 0));
    // Long after, though nothing queried it in between, and at a breaker that is new.
    let streams = begin(&mut breaker, start + ms(60_000));
    let later = start + ms(3_600_000);
    end(&mut breaker, later, streams.clone());
    assert_eq!(breaker.admit(later, &SETTINGS, 0), Admit::Pass);
    let mut new = Breaker::new(later);
    end(&mut new, later, streams);
    assert_eq!(sent(&mut new, later), (0, 0));
    // Control: those that end at once are judged by their ends.
    let streams = begin(&mut new, later);
    end(&mut new, later + ms(900), streams);
    assert_eq!(sent(&mut new, later + ms(900)), (60, 60));
    assert_eq!(new.admit(later + ms(900), &SETTINGS, 0), Admit::Refuse);
    assert_eq!(sent(&mut new, later + ms(2200)), (60, 60));
}

/// Without them the failures would be all that there is.
#[test]
fn lasting_streams_dilute_failures_locally_and_in_reports() {
    let start = Instant::now();
    for (streams, admit) in [(60, Admit::Pass), (40, Admit::Refuse), (0, Admit::Refuse)] {
        let mut breaker = Breaker::new(start);
        for _ in 0..streams {
            let _goes_on = breaker.begin_stream(start, false, &SETTINGS);
        }
        let now = start + ms(1200);
        breaker.settle(now, &SETTINGS);
        send(&mut breaker, now, 50, 50);
        assert_eq!(breaker.admit(now, &SETTINGS, 0), admit, "{streams}");
        let counts = breaker.take_counts().unwrap();
        assert_eq!((counts.sent, counts.failed), (streams + 50, 50));
    }
}

#[test]
fn lasting_probe_stream_succeeds_but_abandoned_shows_nothing() {
    let start = Instant::now();
    let mut breaker = seen(start, 50, 50);
    let mut now = start + ms(5000);
    for left in [true, true, false, false, false, false, false] {
        assert_eq!(breaker.state(&SETTINGS), ShownState::Open);
        assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Probe);
        let stream = breaker.begin_stream(now, true, &SETTINGS);
        if left {
            breaker.end_stream(now + ms(500), stream, None, &SETTINGS);
        }
        now += ms(1200);
    }
    breaker.settle(now, &SETTINGS);
    assert_eq!(breaker.state(&SETTINGS), ShownState::Closing);
    let counts = breaker.take_counts().unwrap();
    assert_eq!(
        (counts.sent_probes, counts.probes, counts.failed_probes),
        (7, 5, 0)
    );
}

#[test]
fn refusal_preview_matches_call_and_consumes_no_probe() {
    let start = Instant::now();
    let mut breaker = seen(start, 50, 50);
    assert!(breaker.would_refuse(start + ms(4999), &SETTINGS));
    let due = start + ms(5000);
    assert!(!breaker.would_refuse(due, &SETTINGS));
    assert_eq!(breaker.admit(due, &SETTINGS, 0), Admit::Probe, "left");
    assert!(breaker.would_refuse(due + ms(999), &SETTINGS));
    assert!(!breaker.would_refuse(due + ms(1000), &SETTINGS));
    let mut with_fleet_state = Breaker::new(start);
    assert!(!with_fleet_state.would_refuse(start, &SETTINGS));
    with_fleet_state.set_fleet_state(start, FleetBreakerState::Open);
    assert!(with_fleet_state.would_refuse(start + ms(60_000), &SETTINGS));
    assert_eq!(with_fleet_state.take_counts(), None);
    for (state, refuses) in [(BreakerState::Open, true), (BreakerState::Closed, false)] {
        let written = Settings { state, ..SETTINGS };
        assert_eq!(with_fleet_state.would_refuse(start, &written), refuses);
    }
}
