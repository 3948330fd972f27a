//! Endpoints that are ejected, warm up, lie near or far, and the load that they report.
//!
//! Claims: calls-25, calls-64

use super::*;

fn works(share: f64) -> Candidate {
    Candidate::Works {
        score: 1.0,
        share,
        load: 0,
    }
}

/// How often each was picked.
fn counts(draws: usize, near: &[usize], all: &[Candidate]) -> Vec<usize> {
    let (mut dice, mut taken) = (Dice(11), vec![0; all.len()]);
    for _ in 0..draws {
        let picked = choose(all.len(), near, |at| all[at], || dice.roll()).unwrap();
        taken[picked.index] += 1;
    }
    taken
}

#[test]
fn those_that_rest_get_nothing_and_the_others_share() {
    let all = [works(1.0), Candidate::Ejected, works(1.0), Candidate::Out];
    let taken = counts(10_000, &[], &all);
    assert_eq!((taken[1], taken[3]), (0, 0));
    assert!(taken[0].abs_diff(5000) < 250, "{taken:?}");
}

#[test]
fn pick_examines_few_endpoints_while_under_half_ejected() {
    let mut dice = Dice(3);
    let resting = |at: usize| at % 2 == 1 && at < 998;
    let mut most = 0;
    for _ in 0..20_000 {
        let mut looked = 0;
        let look = |at| {
            looked += 1;
            if resting(at) {
                Candidate::Ejected
            } else {
                works(1.0)
            }
        };
        assert!(choose(1000, &[], look, || dice.roll()).is_some());
        most = most.max(looked);
    }
    assert!(most <= 17, "{most}");
}

#[test]
fn last_usable_endpoint_is_found_else_ejected_one() {
    let mut dice = Dice(4);
    for at in 0..200 {
        let mut all = vec![Candidate::Ejected; 200];
        all[at] = works(1.0);
        let picked = choose(200, &[], |at| all[at], || dice.roll());
        assert_eq!(picked.unwrap().index, at);
    }
    let tired = [Candidate::Out, Candidate::Ejected];
    assert_eq!(choose(2, &[], |at| tired[at], || 0).unwrap().index, 1);
    assert_eq!(choose(2, &[1], |at| tired[at], || 0).unwrap().index, 1);
    assert_eq!(choose(2, &[], |_| Candidate::Out, || 0), None);
    assert_eq!(choose(0, &[], |_| works(1.0), || 0), None);
    assert_eq!(choose(1, &[], |_| works(1.0), || 0).unwrap().index, 0);
    assert_eq!(
        choose(1, &[1], |_| works(0.1), || u64::MAX).unwrap().index,
        0
    );
}

#[test]
fn a_probe_takes_the_request_that_draws_it() {
    let all = [works(1.0), Candidate::Probe, works(1.0)];
    let mut dice = Dice(8);
    let probes = (0..9000).filter(|_| {
        let picked = choose(3, &[], |at| all[at], || dice.roll()).unwrap();
        assert_eq!(picked.probe, picked.index == 1);
        picked.probe
    });
    // It is one of the first two draws in two of three cases.
    assert!(probes.count().abs_diff(6000) < 300);
}

#[test]
fn one_that_warms_up_gets_about_its_share() {
    for (share, from, to) in [(0.1, 850, 1150), (0.5, 4700, 5300), (1.0, 9500, 10_500)] {
        let all = [works(1.0), works(1.0), works(share)];
        let taken = counts(30_000, &[], &all);
        assert!((from..=to).contains(&taken[2]), "{share}: {taken:?}");
    }
    // All new, as after a rollout: none is skipped.
    let taken = counts(9000, &[], &[works(0.1); 3]);
    assert!(taken.iter().all(|n| n.abs_diff(3000) < 300), "{taken:?}");
}

#[test]
fn new_endpoint_of_two_gets_only_its_share() {
    for share in [0.1, 0.5] {
        let expected = 20_000.0 * share;
        let taken = counts(20_000, &[], &[works(1.0), works(share)])[1] as f64;
        let half = expected / 2.0;
        assert!((taken - half).abs() < half * 0.1, "{share}: {taken}");
        // A candidate without measurements counts as the cheapest.
        let cheap = Candidate::Works {
            score: 0.0,
            share,
            load: 0,
        };
        let taken = counts(20_000, &[], &[works(1.0), cheap])[1] as f64;
        assert!(
            (taken - expected).abs() < expected * 0.1,
            "{share}: {taken}"
        );
    }
}

#[test]
fn where_all_rest_each_is_asked_as_often() {
    let taken = counts(9000, &[], &[Candidate::Ejected; 3]);
    assert!(taken.iter().all(|n| n.abs_diff(3000) < 300), "{taken:?}");
    let taken = counts(9000, &[1], &[Candidate::Ejected; 3]);
    assert!(taken.iter().all(|n| n.abs_diff(3000) < 300), "{taken:?}");
}

#[test]
fn own_zone_is_used_unless_busier_than_another() {
    let busy = |load| Candidate::Works {
        score: 1.0,
        share: 1.0,
        load,
    };
    let elsewhere = |own: [u8; 2], other: u8| {
        let all = [busy(own[0]), busy(own[1]), busy(other), busy(other)];
        let taken = counts(1000, &[2], &all);
        taken[2] + taken[3]
    };
    assert_eq!(elsewhere([0, 0], 0), 0);
    assert_eq!(elsewhere([49, 49], 0), 0);
    assert_eq!(elsewhere([50, 50], 30), 1000);
    assert_eq!(elsewhere([50, 50], 31), 0);
    assert_eq!(elsewhere([100, 100], 80), 1000);
    assert_eq!(elsewhere([100, 100], 81), 0);
    let gone = [Candidate::Ejected, Candidate::Out, works(1.0)];
    assert_eq!(counts(100, &[2], &gone), [0, 0, 100]);
}

/// One on the own node, one in the own zone, one elsewhere.
#[test]
fn own_zone_serves_what_own_node_cannot() {
    let busy = |load| Candidate::Works {
        score: 1.0,
        share: 1.0,
        load,
    };
    let taken = |node, zone, elsewhere| counts(100, &[1, 2], &[node, zone, elsewhere]);
    let calm = works(1.0);
    assert_eq!(taken(calm, calm, calm), [100, 0, 0]);
    for gone in [Candidate::Ejected, Candidate::Out] {
        assert_eq!(taken(gone, calm, calm), [0, 100, 0]);
        assert_eq!(taken(gone, gone, calm), [0, 0, 100]);
    }
    assert_eq!(taken(busy(70), busy(49), calm), [0, 100, 0]);
    assert_eq!(taken(busy(80), busy(60), busy(41)), [0, 100, 0]);
    assert_eq!(taken(busy(80), busy(60), busy(40)), [0, 0, 100]);
    // The zone is as busy as the node.
    assert_eq!(taken(busy(60), busy(50), busy(40)), [0, 0, 100]);
    assert_eq!(taken(busy(60), busy(50), busy(41)), [100, 0, 0]);
    // A node without any, and a caller that prefers its zone alone.
    for near in [[0, 2], [2, 2]] {
        let taken = counts(1000, &near, &[calm, calm, calm]);
        assert!(taken[0] > 400 && taken[1] > 400, "{taken:?}");
    }
}

#[test]
fn load_shifts_calls_proportionally_and_starves_no_endpoint() {
    let works = |score, load| Candidate::Works {
        score,
        share: 1.0,
        load,
    };
    // Half of what it would win without, 1.3, 1.6 and 4 times as dear.
    for (load, part) in [(10, 0.5 / 1.3), (20, 0.5 / 1.6), (100, 0.5 / 4.0)] {
        let taken = counts(20_000, &[], &[works(1.0, 0), works(1.0, load)])[1] as f64;
        let expected = 20_000.0 * part;
        assert!((taken - expected).abs() < 400.0, "{load}: {taken}");
    }
    // Alike where all are as busy, however busy that is.
    let taken = counts(9000, &[], &[works(1.0, 90); 3]);
    assert!(taken.iter().all(|n| n.abs_diff(3000) < 300), "{taken:?}");
    // A slower one is not preferred for being idle, unless by less than that.
    assert_eq!(
        counts(1000, &[], &[works(5.0, 0), works(1.0, 100)]),
        [0, 1000]
    );
    let taken = counts(20_000, &[], &[works(3.0, 0), works(1.0, 100)])[1];
    assert!(taken.abs_diff(5000) < 400, "{taken}");
}

#[test]
fn load_makes_an_endpoint_dearer_and_fades() {
    let start = Instant::now();
    let mut load = crate::balance::Load::default();
    let factor = |load: crate::balance::Load| crate::balance::load::factor(load.percent(start));
    assert!((factor(load) - 1.0).abs() < 1e-9);
    load.record(start, 100);
    assert!((factor(load) - 4.0).abs() < 1e-9);
    assert_eq!(load.percent(start + ms(5000)), 50);
    assert_eq!(load.percent(start + ms(10_000)), 0);
    load.record(start, 255);
    assert_eq!(load.percent(start), 100);
}

#[test]
fn limited_endpoint_is_busy_for_its_time() {
    let start = Instant::now();
    let mut load = crate::balance::Load::default();
    load.limited(start, Some(ms(5000)));
    load.record(start + ms(10), 20);
    assert_eq!(load.percent(start + ms(4999)), 100);
    assert_eq!(load.percent(start + ms(5000)), 0);
    load.record(start + ms(5000), 20);
    assert_eq!(load.percent(start + ms(5000)), 20);
    // As long as no clock goes: it said nothing.
    load.limited(start + ms(5000), Some(Duration::MAX));
    assert_eq!(load.percent(start + ms(5999)), 100);
    assert_eq!(load.percent(start + ms(6000)), 0);
}

#[test]
fn untimed_limit_grows_until_request_is_served() {
    let mut now = Instant::now();
    let mut load = crate::balance::Load::default();
    for seconds in [1, 2, 4, 8, 10, 10] {
        load.limited(now, None);
        // Of the part that it gets all the same.
        load.limited(now + ms(500), None);
        load.served(now + ms(500));
        now += Duration::from_secs(seconds);
        assert_eq!(load.percent(now - ms(1)), 100, "{seconds} s");
        assert_eq!(load.percent(now), 0, "{seconds} s");
    }
    load.served(now);
    load.limited(now, None);
    assert_eq!(load.percent(now + ms(999)), 100);
    assert_eq!(load.percent(now + ms(1000)), 0);
}

#[test]
fn load_is_reported_per_tenth_and_before_fading() {
    let start = Instant::now();
    let mut teller = LoadReporter::default();
    assert_eq!(teller.report(start, 5), None, "calm is what is assumed");
    assert_eq!(teller.report(start, 42), Some(42));
    assert_eq!(teller.report(start + ms(10), 49), None);
    assert_eq!(teller.report(start + ms(20), 50), Some(50));
    assert_eq!(teller.report(start + ms(5019), 50), None);
    assert_eq!(teller.report(start + ms(5020), 50), Some(50));
    assert_eq!(teller.report(start + ms(5030), 3), Some(3));
    assert_eq!(teller.report(start + ms(60_000), 3), None);
}

proptest! {
    #[test]
    fn what_is_chosen_exists_and_was_not_tried(
        kinds in proptest::collection::vec(0u8..4, 0..40),
        near in proptest::collection::vec(0usize..50, 0..3),
        seed: u64,
    ) {
        let look = |at: usize| match kinds[at] {
            0 => works(1.0),
            1 => works(0.2),
            2 => Candidate::Ejected,
            _ => Candidate::Out,
        };
        let mut dice = Dice(seed);
        let picked = choose(kinds.len(), &near, look, || dice.roll());
        let left = kinds.iter().any(|kind| *kind < 3);
        prop_assert_eq!(picked.is_some(), left);
        if let Some(picked) = picked {
            let working = kinds.iter().any(|kind| *kind < 2);
            let below = if working { 2 } else { 3 };
            prop_assert!(kinds[picked.index] < below);
        }
    }
}
