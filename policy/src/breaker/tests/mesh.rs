//! The mesh's breaker, by what callers tell.
//!
//! Claims: calls-68

use super::*;
use crate::breaker::fleet::Fleet;

/// What accounts sent and saw fail, in one second.
fn fleet_of(rows: &[(u32, u32)]) -> (Fleet<usize, usize>, Instant) {
    let now = Instant::now();
    let mut fleet = Fleet::new(now);
    for (at, (sent, failed)) in rows.iter().enumerate() {
        let counts = BreakerCounts {
            sent: *sent,
            failed: *failed,
            ..BreakerCounts::default()
        };
        fleet.add_counts(now, &at, &at, counts, &SETTINGS);
    }
    fleet.tick(now, &SETTINGS);
    (fleet, now)
}

#[test]
fn mesh_breaker_opens_for_median_account_not_for_one() {
    let opens = |rows: &[(u32, u32)]| {
        let (fleet, now) = fleet_of(rows);
        fleet.fleet_state(now) == FleetBreakerState::Open
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
fn sole_account_failures_open_only_its_proxies_until_confirmed() {
    let (mut fleet, start) = fleet_of(&[(60, 60)]);
    assert_eq!(
        (fleet.fleet_state(start), fleet.sole_account()),
        (FleetBreakerState::Open, Some(&0))
    );
    // Another account is served well. It gets no command, and changes nothing.
    let says = |fleet: &mut Fleet<usize, usize>, second: u64, failed| {
        let now = start + ms(second * 1000);
        let counts = BreakerCounts {
            sent: 60,
            failed,
            ..BreakerCounts::default()
        };
        fleet.add_counts(now, &1, &1, counts, &SETTINGS);
        fleet.tick(now, &SETTINGS);
        fleet.fleet_state(now)
    };
    assert_eq!(says(&mut fleet, 1, 0), FleetBreakerState::Open);
    assert_eq!(fleet.sole_account(), Some(&0));
    // By now the first is silent, as commanded.
    assert_ne!(says(&mut fleet, 20, 60), FleetBreakerState::Closed);
    assert_eq!(fleet.sole_account(), None, "two have seen it");
    let (fleet, _) = fleet_of(&[(60, 60), (60, 60)]);
    assert_eq!(fleet.sole_account(), None);
}

#[test]
fn callers_share_ten_probes_per_second_before_ramp_closes() {
    let (mut fleet, start) = fleet_of(&[(10, 10); 12]);
    assert_eq!(fleet.fleet_state(start), FleetBreakerState::Open);
    let wanting = BreakerCounts {
        refused: 5,
        ..BreakerCounts::default()
    };
    for second in 1..=5 {
        let now = start + ms(second * 1000);
        for at in 0..12 {
            fleet.add_counts(now, &at, &at, wanting, &SETTINGS);
        }
        fleet.tick(now, &SETTINGS);
    }
    let now = start + ms(5000);
    assert_eq!(
        fleet.fleet_state(now),
        FleetBreakerState::Probing { every: ms(1200) }
    );
    let good = BreakerCounts {
        probes: 2,
        ..BreakerCounts::default()
    };
    for at in 0..9 {
        fleet.add_counts(now, &at, &at, good, &SETTINGS);
    }
    fleet.tick(now, &SETTINGS);
    assert_eq!(
        fleet.fleet_state(now),
        FleetBreakerState::Probing { every: ms(1200) }
    );
    fleet.add_counts(now, &9, &9, good, &SETTINGS);
    fleet.tick(now, &SETTINGS);
    assert_eq!(
        fleet.fleet_state(now + ms(3000)),
        FleetBreakerState::Closing { since: ms(3000) }
    );
    fleet.tick(now + RAMP, &SETTINGS);
    assert_eq!(fleet.fleet_state(now + RAMP), FleetBreakerState::Closed);
}

#[test]
fn it_opens_again_when_it_fails_while_it_closes() {
    let (mut fleet, start) = fleet_of(&[(60, 60)]);
    fleet.tick(start + ms(5000), &SETTINGS);
    let good = BreakerCounts {
        probes: 10,
        ..BreakerCounts::default()
    };
    for _ in 0..2 {
        fleet.add_counts(start + ms(5000), &0, &0, good, &SETTINGS);
    }
    fleet.tick(start + ms(5000), &SETTINGS);
    let bad = BreakerCounts {
        sent: 50,
        failed: 40,
        ..BreakerCounts::default()
    };
    fleet.add_counts(start + ms(6000), &0, &0, bad, &SETTINGS);
    fleet.tick(start + ms(6000), &SETTINGS);
    assert_eq!(fleet.fleet_state(start + ms(6000)), FleetBreakerState::Open);
    let report = fleet.report(start + ms(6000), &SETTINGS);
    assert!(report.open && report.callers == 1);
    assert_eq!((report.failure_percent, report.requests), (80, 50));
}

#[test]
fn who_makes_up_probes_decides_no_more_than_others() {
    let (mut fleet, start) = fleet_of(&[(10, 10); 12]);
    let wanting = BreakerCounts {
        refused: 5,
        ..BreakerCounts::default()
    };
    for second in 1..=5 {
        let now = start + ms(second * 1000);
        for at in 0..12 {
            fleet.add_counts(now, &at, &at, wanting, &SETTINGS);
        }
        fleet.tick(now, &SETTINGS);
    }
    let now = start + ms(5000);
    let made_up = BreakerCounts {
        probes: 1000,
        failed_probes: 1000,
        ..BreakerCounts::default()
    };
    let honest = BreakerCounts {
        probes: 1,
        ..BreakerCounts::default()
    };
    for second in 0..2 {
        let now = now + ms(second * 1000);
        for at in 1..12 {
            fleet.add_counts(now, &at, &at, honest, &SETTINGS);
        }
        // The last, since the latest probes decide.
        fleet.add_counts(now, &0, &0, made_up, &SETTINGS);
        fleet.tick(now, &SETTINGS);
    }
    assert!(matches!(
        fleet.fleet_state(now),
        FleetBreakerState::Closing { .. }
    ));
}

#[test]
fn breaker_closes_without_obedience_or_calls() {
    let (mut fleet, start) = fleet_of(&[(60, 60)]);
    fleet.tick(start + ms(5000), &SETTINGS);
    fleet.tick(start + ms(14_999), &SETTINGS);
    assert!(matches!(
        fleet.fleet_state(start),
        FleetBreakerState::Probing { .. }
    ));
    let idle = start + ms(15_000);
    fleet.tick(idle, &SETTINGS);
    let since = Duration::ZERO;
    assert_eq!(
        fleet.fleet_state(idle),
        FleetBreakerState::Closing { since },
        "over the ramp"
    );
    fleet.tick(idle + RAMP, &SETTINGS);
    assert_eq!(fleet.fleet_state(idle + RAMP), FleetBreakerState::Closed);
}

#[test]
fn hanging_probes_keep_mesh_breaker_open_under_demand() {
    let wanting = BreakerCounts {
        refused: 1,
        ..BreakerCounts::default()
    };
    let hanging = BreakerCounts {
        sent_probes: 1,
        ..BreakerCounts::default()
    };
    for counts in [wanting, hanging] {
        let (mut fleet, start) = fleet_of(&[(60, 60)]);
        for second in 1..=120 {
            let now = start + ms(second * 1000);
            fleet.add_counts(now, &0, &0, counts, &SETTINGS);
            fleet.tick(now, &SETTINGS);
        }
        let now = start + ms(120_000);
        let every = ms(100);
        assert_eq!(
            fleet.fleet_state(now),
            FleetBreakerState::Probing { every },
            "{counts:?}"
        );
    }
}

#[test]
fn sent_probe_is_reported_before_it_finishes() {
    let now = Instant::now();
    let mut breaker = seen(now, 0, 0);
    breaker.set_fleet_state(now, FleetBreakerState::Probing { every: ms(1200) });
    assert_eq!(breaker.admit(now, &SETTINGS, 0), Admit::Probe);
    let expected = BreakerCounts {
        sent_probes: 1,
        ..BreakerCounts::default()
    };
    assert_eq!(breaker.take_counts(), Some(expected));
}

#[test]
fn simultaneous_probe_start_is_spread_over_interval() {
    let start = Instant::now();
    for callers in [12u32, 10_000] {
        let every = ms(100) * callers;
        let mut first = Vec::new();
        for caller in 0..callers {
            let mut breaker = seen(start, 0, 0);
            breaker.set_fleet_state(start, FleetBreakerState::Probing { every });
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
    let bad = BreakerCounts {
        sent: 1,
        failed: 1,
        ..BreakerCounts::default()
    };
    let wanting = BreakerCounts {
        refused: 1,
        ..BreakerCounts::default()
    };
    for at in 0..10_000 {
        fleet.add_counts(start, &0, &at, bad, &SETTINGS);
    }
    fleet.tick(start, &SETTINGS);
    let now = start + ms(5000);
    for at in 0..10_000 {
        fleet.add_counts(now, &0, &at, wanting, &SETTINGS);
    }
    fleet.tick(now, &SETTINGS);
    let every = Duration::from_secs(1000);
    assert_eq!(fleet.fleet_state(now), FleetBreakerState::Probing { every });
}

#[test]
fn accounts_and_proxies_are_bounded() {
    let now = Instant::now();
    let mut fleet = Fleet::new(now);
    let one = BreakerCounts {
        sent: 1,
        failed: 2,
        ..BreakerCounts::default()
    };
    for at in 0..20_000 {
        fleet.add_counts(now, &at, &at, one, &SETTINGS);
    }
    let report = fleet.report(now, &SETTINGS);
    assert_eq!(report.callers, fleet::PROXIES);
    assert_eq!(report.requests as usize, fleet::ACCOUNTS);
    assert_eq!(
        report.failure_percent, 100,
        "no proxy fails more than it sends"
    );
}
