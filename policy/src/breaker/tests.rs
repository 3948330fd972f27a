//! One proxy's breaker, and the mesh's.

use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::own::{Admit, Breaker, State, WITHOUT_CONTROLLER};
use super::probes::Probes;
use super::*;
use crate::traffic::endpoint::{Breaker as Settings, BreakerState};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const SETTINGS: Settings = Settings::DEFAULT;

/// So many attempts at one moment, the failures last.
fn send(breaker: &mut Breaker, now: Instant, sent: u32, failed: u32) {
    for n in 0..sent {
        breaker.record(now, n >= sent - failed, false, &SETTINGS);
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
fn alone_it_probes_once_a_second_and_closes_slowly_after_five_good_ones() {
    let start = Instant::now();
    let mut breaker = seen(start, 50, 50);
    let half = 1 << 63;
    assert_eq!(breaker.admit(start + ms(4999), &SETTINGS, 0), Admit::Refuse);
    let mut now = start + ms(5000);
    for _ in 0..2 {
        assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Probe);
        assert_eq!(breaker.admit(now + ms(999), &SETTINGS, 0), Admit::Refuse);
        breaker.record(now, true, true, &SETTINGS);
        now += ms(1000);
    }
    for _ in 0..3 {
        assert_eq!(breaker.state(&SETTINGS), State::Open);
        assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Probe);
        breaker.record(now, false, true, &SETTINGS);
        now += ms(1000);
    }
    // Of the last five two failed.
    assert_eq!(breaker.state(&SETTINGS), State::Closing);
    let closing = now - ms(1000);
    for (later, passes) in [(0, false), (4000, false), (4500, true), (10_000, true)] {
        let admit = breaker.admit(closing + ms(later), &SETTINGS, half);
        assert_eq!(admit == Admit::Pass, passes, "{later}");
    }
    assert_eq!(breaker.state(&SETTINGS), State::Closed);
    assert_eq!(
        breaker.seen(closing + ms(10_000), &SETTINGS).sent,
        0,
        "forgiven"
    );
}

#[test]
fn the_controllers_word_is_obeyed_by_those_that_see_it_too_or_see_nothing() {
    let now = Instant::now();
    let told = |mut breaker: Breaker| {
        breaker.steer(now, Steer::Open);
        breaker.admit(now, &SETTINGS, 0)
    };
    assert_eq!(told(seen(now, 0, 0)), Admit::Refuse, "nothing of its own");
    assert_eq!(told(seen(now, 4, 2)), Admit::Refuse, "it sees the failures");
    assert_eq!(told(seen(now, 5, 2)), Admit::Pass, "its calls succeed");

    // Who obeys goes on to, although it sees nothing any more.
    let mut breaker = seen(now, 4, 4);
    breaker.steer(now, Steer::Open);
    assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Refuse);
    let later = now + ms(60_000);
    breaker.steer(later, Steer::Probing { every: ms(1200) });
    assert_eq!(breaker.admit(later, &SETTINGS, 0), Admit::Probe);
    assert_eq!(breaker.admit(later + ms(1199), &SETTINGS, 0), Admit::Refuse);
    assert_eq!(breaker.admit(later + ms(1200), &SETTINGS, 0), Admit::Probe);
    breaker.steer(later, Steer::Closing { since: ms(0) });
    assert_eq!(breaker.state(&SETTINGS), State::Closing);
    let half = 1 << 63;
    assert_eq!(
        breaker.admit(later + ms(4000), &SETTINGS, half),
        Admit::Refuse
    );
    assert_eq!(
        breaker.admit(later + ms(5000), &SETTINGS, half),
        Admit::Pass
    );
    breaker.steer(later, Steer::Closed);
    assert_eq!(breaker.admit(later, &SETTINGS, half), Admit::Pass);
}

#[test]
fn without_a_controller_its_word_ends_after_fifteen_seconds() {
    let start = Instant::now();
    let mut breaker = seen(start, 0, 0);
    breaker.steer(start, Steer::Open);
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
    breaker.steer(start, Steer::Open);
    breaker.controller_lost(start);
    breaker.steer(start + ms(14_000), Steer::Open);
    assert_eq!(
        breaker.admit(start + ms(60_000), &SETTINGS, 0),
        Admit::Refuse
    );
}

#[test]
fn a_state_that_is_written_down_is_obeyed_by_all() {
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
    assert_eq!(failing.state(&with(BreakerState::Closed)), State::Closed);
    assert_eq!(healthy.state(&with(BreakerState::Open)), State::Open);
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
        breaker.record(now, second < 3, false, &closed);
        assert_eq!(breaker.admit(now, &closed, 0), Admit::Pass);
    }
    let later = start + ms(20_000);
    assert_eq!(breaker.admit(later, &SETTINGS, 0), Admit::Pass);
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

#[test]
fn a_pulse_says_what_happened_since_the_last() {
    let now = Instant::now();
    let mut breaker = seen(now, 60, 60);
    assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Refuse);
    breaker.record(now, true, true, &SETTINGS);
    let expected = Pulse {
        sent: 60,
        failed: 60,
        refused: 1,
        probes: 1,
        failed_probes: 1,
        begun: 0,
    };
    assert_eq!(breaker.pulse(), Some(expected));
    assert_eq!(breaker.pulse(), None);
}

/// What accounts sent and saw fail, in one second.
fn told(rows: &[(u32, u32)]) -> (Fleet<usize, usize>, Instant) {
    let now = Instant::now();
    let mut fleet = Fleet::new(now);
    for (at, (sent, failed)) in rows.iter().enumerate() {
        let pulse = Pulse {
            sent: *sent,
            failed: *failed,
            ..Pulse::default()
        };
        fleet.pulse(now, &at, &at, pulse, &SETTINGS);
    }
    fleet.tick(now, &SETTINGS);
    (fleet, now)
}

#[test]
fn the_mesh_opens_when_the_median_account_sees_it_and_not_for_one() {
    let opens = |rows: &[(u32, u32)]| {
        let (fleet, now) = told(rows);
        fleet.steer(now) == Steer::Open
    };
    assert!(opens(&[(50, 50)]), "there is but one");
    assert!(!opens(&[(49, 49)]), "too few requests");
    assert!(!opens(&[(1000, 1000), (50, 0)]), "one of two");
    assert!(
        !opens(&[(1000, 1000), (20, 0), (20, 0), (20, 1)]),
        "one of four"
    );
    assert!(
        !opens(&[(1000, 1000), (500, 500), (20, 0), (20, 0)]),
        "half of them"
    );
    assert!(opens(&[(1000, 1000), (20, 20), (20, 20), (20, 0)]));
    assert!(
        opens(&[(50, 30), (0, 0), (0, 0)]),
        "who does not call has no voice"
    );
}

#[test]
fn it_probes_ten_times_a_second_shared_among_the_callers_and_closes_over_a_ramp() {
    let (mut fleet, start) = told(&[(10, 10); 12]);
    assert_eq!(fleet.steer(start), Steer::Open);
    let wanting = Pulse {
        refused: 5,
        ..Pulse::default()
    };
    for second in 1..=5 {
        let now = start + ms(second * 1000);
        for at in 0..12 {
            fleet.pulse(now, &at, &at, wanting, &SETTINGS);
        }
        fleet.tick(now, &SETTINGS);
    }
    let now = start + ms(5000);
    assert_eq!(fleet.steer(now), Steer::Probing { every: ms(1200) });
    let good = Pulse {
        probes: 2,
        ..Pulse::default()
    };
    for at in 0..9 {
        fleet.pulse(now, &at, &at, good, &SETTINGS);
    }
    fleet.tick(now, &SETTINGS);
    assert_eq!(fleet.steer(now), Steer::Probing { every: ms(1200) });
    fleet.pulse(now, &9, &9, good, &SETTINGS);
    fleet.tick(now, &SETTINGS);
    assert_eq!(
        fleet.steer(now + ms(3000)),
        Steer::Closing { since: ms(3000) }
    );
    fleet.tick(now + RAMP, &SETTINGS);
    assert_eq!(fleet.steer(now + RAMP), Steer::Closed);
}

#[test]
fn it_opens_again_when_it_fails_while_it_closes() {
    let (mut fleet, start) = told(&[(60, 60)]);
    fleet.tick(start + ms(5000), &SETTINGS);
    let good = Pulse {
        probes: 10,
        ..Pulse::default()
    };
    for _ in 0..2 {
        fleet.pulse(start + ms(5000), &0, &0, good, &SETTINGS);
    }
    fleet.tick(start + ms(5000), &SETTINGS);
    let bad = Pulse {
        sent: 50,
        failed: 40,
        ..Pulse::default()
    };
    fleet.pulse(start + ms(6000), &0, &0, bad, &SETTINGS);
    fleet.tick(start + ms(6000), &SETTINGS);
    assert_eq!(fleet.steer(start + ms(6000)), Steer::Open);
    let report = fleet.report(start + ms(6000), &SETTINGS);
    assert!(report.open && report.callers == 1);
    assert_eq!((report.failure_percent, report.requests), (80, 50));
}

#[test]
fn who_makes_up_probes_decides_no_more_than_others() {
    let (mut fleet, start) = told(&[(10, 10); 12]);
    let wanting = Pulse {
        refused: 5,
        ..Pulse::default()
    };
    for second in 1..=5 {
        let now = start + ms(second * 1000);
        for at in 0..12 {
            fleet.pulse(now, &at, &at, wanting, &SETTINGS);
        }
        fleet.tick(now, &SETTINGS);
    }
    let now = start + ms(5000);
    let made_up = Pulse {
        probes: u32::MAX,
        failed_probes: u32::MAX,
        ..Pulse::default()
    };
    let honest = Pulse {
        probes: 1,
        ..Pulse::default()
    };
    for second in 0..2 {
        let now = now + ms(second * 1000);
        fleet.pulse(now, &0, &0, made_up, &SETTINGS);
        for at in 1..12 {
            fleet.pulse(now, &at, &at, honest, &SETTINGS);
        }
        fleet.tick(now, &SETTINGS);
    }
    assert!(matches!(fleet.steer(now), Steer::Closing { .. }));
}

#[test]
fn it_closes_where_nobody_obeys_or_nobody_calls() {
    let (mut fleet, start) = told(&[(60, 60)]);
    fleet.tick(start + ms(5000), &SETTINGS);
    fleet.tick(start + ms(14_999), &SETTINGS);
    assert!(matches!(fleet.steer(start), Steer::Probing { .. }));
    let idle = start + ms(15_000);
    fleet.tick(idle, &SETTINGS);
    let since = Duration::ZERO;
    assert_eq!(fleet.steer(idle), Steer::Closing { since }, "over the ramp");
    fleet.tick(idle + RAMP, &SETTINGS);
    assert_eq!(fleet.steer(idle + RAMP), Steer::Closed);
}

#[test]
fn probes_that_hang_keep_it_open_while_anybody_wants_to_call() {
    let wanting = Pulse {
        refused: 1,
        ..Pulse::default()
    };
    let hanging = Pulse {
        begun: 1,
        ..Pulse::default()
    };
    for pulse in [wanting, hanging] {
        let (mut fleet, start) = told(&[(60, 60)]);
        for second in 1..=120 {
            let now = start + ms(second * 1000);
            fleet.pulse(now, &0, &0, pulse, &SETTINGS);
            fleet.tick(now, &SETTINGS);
        }
        let now = start + ms(120_000);
        let every = ms(100);
        assert_eq!(fleet.steer(now), Steer::Probing { every }, "{pulse:?}");
    }
}

#[test]
fn a_probe_that_was_sent_is_told_before_it_ends() {
    let now = Instant::now();
    let mut breaker = seen(now, 0, 0);
    breaker.steer(now, Steer::Probing { every: ms(1200) });
    assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Probe);
    let expected = Pulse {
        begun: 1,
        ..Pulse::default()
    };
    assert_eq!(breaker.pulse(), Some(expected));
}

#[test]
fn proxies_that_are_told_together_to_probe_spread_over_the_gap() {
    let start = Instant::now();
    for callers in [12u32, 10_000] {
        let every = ms(100) * callers;
        let mut first = Vec::new();
        for caller in 0..callers {
            let mut breaker = seen(start, 0, 0);
            breaker.steer(start, Steer::Probing { every });
            let random = u64::MAX / u64::from(callers) * u64::from(caller);
            let admit = breaker.admit(start, &SETTINGS, random);
            first.extend((admit == Admit::Probe).then_some(caller));
            let due = start + every.mul_f64(f64::from(caller) / f64::from(callers));
            let admit = breaker.admit(due + ms(1), &SETTINGS, 0);
            assert!(
                admit == Admit::Probe || caller == 0,
                "{caller} of {callers}"
            );
            let early = due + every - ms(1);
            assert_eq!(breaker.admit(early, &SETTINGS, 0), Admit::Refuse);
        }
        assert_eq!(first, [0], "of {callers}");
    }
}

#[test]
fn ten_thousand_callers_probe_ten_times_a_second_together() {
    let start = Instant::now();
    let mut fleet = Fleet::new(start);
    let bad = Pulse {
        sent: 1,
        failed: 1,
        ..Pulse::default()
    };
    let wanting = Pulse {
        refused: 1,
        ..Pulse::default()
    };
    for at in 0..10_000 {
        fleet.pulse(start, &0, &at, bad, &SETTINGS);
    }
    fleet.tick(start, &SETTINGS);
    let now = start + ms(5000);
    for at in 0..10_000 {
        fleet.pulse(now, &0, &at, wanting, &SETTINGS);
    }
    fleet.tick(now, &SETTINGS);
    let every = Duration::from_secs(1000);
    assert_eq!(fleet.steer(now), Steer::Probing { every });
}

#[test]
fn accounts_and_proxies_are_bounded() {
    let now = Instant::now();
    let mut fleet = Fleet::new(now);
    let one = Pulse {
        sent: 1,
        failed: 2,
        ..Pulse::default()
    };
    for at in 0..20_000 {
        fleet.pulse(now, &at, &at, one, &SETTINGS);
    }
    let report = fleet.report(now, &SETTINGS);
    assert_eq!(report.callers, fleet::PROXIES);
    assert_eq!(report.requests as usize, fleet::ACCOUNTS);
    assert_eq!(
        report.failure_percent, 100,
        "nobody fails more than he sends"
    );
}
