//! Tests of steps: what each gives, when it ends, and how gates open after the last.

use std::time::Duration;

use crds::weft::ReleasePhase;
use crds::weft::validation::RateCheck;

use super::{World, pod, release, step};
use crate::judge::Verdict;
use crate::judge::latency::Threshold;
use crate::release::{EventKind, Gate, Seen, Verb, steps::cap, thresholds};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn good_candidate_goes_through_every_step_that_changes() {
    let steps = vec![step(5, 10), step(20, 10), step(50, 10), step(100, 10)];
    let mut world = World::updated(release(steps));
    let mut seen = Vec::new();
    world.run(1);
    while world.state.phase != ReleasePhase::Idle {
        world.tick();
        let step = world.state.run.as_ref().map(|run| (run.step, run.weight));
        if let Some(step) = step
            && seen.last() != Some(&step)
        {
            seen.push(step);
        }
        assert!(world.seconds < 300, "{seen:?}");
    }
    // One of four pods: 100 % would be the same as 50 %.
    assert_eq!(seen, [(1, 5), (2, 20), (3, 50), (4, 100)]);
    let started = EventKind::StepStarted;
    let reasons = [
        EventKind::ReleaseStarted,
        started,
        started,
        started,
        started,
    ];
    assert_eq!(world.reasons()[..5], reasons);
    assert_eq!(world.reasons()[5..], [EventKind::Promoted]);
    assert_eq!(world.state.stable.as_deref(), Some("v2"));
    let ended = &world.state.history[0];
    assert!(ended.requests > 100 && ended.bad < 10, "{ended:?}");
}

#[test]
fn gates_open_one_at_a_time() {
    let mut world = World::updated(release(vec![step(5, 10)]));
    world.run(1);
    world.until(ReleasePhase::Promoting, 100);
    while world.state.phase == ReleasePhase::Promoting {
        world.tick();
        let pods = world.seen.pods.iter();
        let opening = pods.filter(|pod| pod.gate == Gate::Open && !pod.ready);
        assert!(opening.count() <= 1);
        let ready = world.seen.pods.iter().filter(|pod| pod.ready).count();
        assert!(ready >= 3, "three pods are ready all the time");
        assert!(world.seconds < 300);
    }
    world.run(5);
    assert_eq!((world.count("v2"), world.shut("v2")), (3, 0));
}

#[test]
fn step_waits_for_its_requests_and_says_so() {
    let mut world = World::updated(release(vec![step(5, 10), step(50, 10)]));
    world.calls = 2.0;
    world.until_step(1);
    world.run(100);
    assert_eq!(world.weight(), 5, "20 requests take 200 s");
    let warned = world.reasons();
    let warned = warned
        .iter()
        .filter(|kind| **kind == EventKind::NotEnoughRequests);
    assert_eq!(warned.count(), 1);
    assert!(
        world.summary().ends_with("of 20 requests"),
        "{}",
        world.summary()
    );
    world.calls = 100.0;
    world.until_step(2);
}

#[test]
fn deadline_rolls_back_where_requests_never_come() {
    let mut spec = release(vec![step(5, 10)]);
    spec.deadline = seconds(300);
    let mut world = World::updated(spec);
    world.calls = 0.0;
    world.until_step(1);
    world.run(280);
    assert_eq!(world.state.phase, ReleasePhase::Progressing);
    world.until(ReleasePhase::RolledBack, 30);
    assert!(
        world.summary().contains("deadline of 5 min"),
        "{}",
        world.summary()
    );
}

#[test]
fn pauses_do_not_count_for_the_deadline() {
    let mut spec = release(vec![step(5, 10), step(50, 10)]);
    spec.deadline = seconds(300);
    spec.steps[0].pause = true;
    let mut world = World::updated(spec);
    world.until_step(1);
    world.until(ReleasePhase::Paused, 60);
    world.run(1000);
    assert_eq!(world.state.phase, ReleasePhase::Paused);
    assert_eq!(world.weight(), 5, "calls go on");
    world.command(Verb::Resume);
    world.until_step(2);
    world.until(ReleasePhase::Idle, 200);
}

#[test]
fn step_starts_without_a_proxy_that_is_cut_off() {
    let mut world = World::updated(release(vec![step(5, 10)]));
    world.seen.programmed = false;
    world.run(1);
    world.until(ReleasePhase::Progressing, 10);
    world.run(29);
    let started = |world: &World| world.state.run.as_ref().and_then(|run| run.step_started);
    assert_eq!(started(&world), None);
    world.run(2);
    assert!(started(&world).is_some());
}

#[test]
fn cap_is_the_share_of_serving_pods() {
    let world = World::new(release(vec![step(5, 10)]));
    assert_eq!(cap(&world.seen, "v2"), 0, "no pod");
    let mut seen: Seen = world.seen.clone();
    seen.pods.push(pod("v2", 9));
    assert_eq!(cap(&seen, "v2"), 25);
    seen.foreign = 1;
    assert_eq!(cap(&seen, "v2"), 20, "another Deployment serves, too");
    seen.foreign = 0;
    seen.pods.retain(|pod| pod.revision == "v2");
    assert_eq!(cap(&seen, "v2"), 100);
    for number in 0..300 {
        seen.pods.push(pod("v1", number));
    }
    assert_eq!(cap(&seen, "v2"), 1, "one of 301");
}

#[test]
fn mirrored_candidate_is_judged_by_fixed_bounds_alone() {
    let mut spec = release(vec![step(0, 60), step(5, 10)]);
    spec.steps[0].mirror = Some(10);
    spec.checks.error_rate = Some(RateCheck {
        tolerance: Some(0.01),
        max: Some(0.05),
    });
    let mut world = World::updated(spec);
    world.until_step(1);
    // Copies are calls at the candidate.
    let mut bad = world.seen.clone();
    bad.candidate.errors = crate::judge::Counts { calls: 10, bad: 5 };
    bad.stable.errors = crate::judge::Counts { calls: 90, bad: 0 };
    let mut state = world.state.clone();
    let mut next = None;
    for second in 1..20 {
        let now = world.now() + seconds(second);
        let look = crate::release::next(&world.spec, &bad, &state, now);
        state = look.state.clone();
        next = Some(look);
        if state.phase == ReleasePhase::RolledBack {
            break;
        }
    }
    let next = next.expect("a look");
    assert_eq!(state.phase, ReleasePhase::RolledBack);
    let verdict = |name: &str| {
        let check = next.checks.iter().find(|check| check.name == name);
        check.map(|check| check.verdict)
    };
    assert_eq!(verdict("errorRate"), Some(Verdict::Waiting));
    assert_eq!(verdict("errorRate max"), Some(Verdict::Worse));
    let reason = &state.history[0].reason;
    assert!(reason.ends_with("5 % are allowed"), "{reason}");
}

#[test]
fn threshold_is_read_when_a_step_starts() {
    let mut world = World::updated(release(vec![step(5, 10), step(20, 10)]));
    world.seen.recent = None;
    world.until_step(1);
    assert_eq!(
        thresholds(&world.spec, &world.state).tolerance,
        None,
        "too few calls"
    );
    let mut quick = policy::latency::Histogram::default();
    quick.add([0, 0, 0, 0, 0, 0, 0, 500]);
    world.seen.recent = Some(quick);
    world.run(1);
    let first = thresholds(&world.spec, &world.state).tolerance;
    assert_eq!(first, Threshold::at(0.02), "14 ms and a fifth of it");
    let mut slow = policy::latency::Histogram::default();
    slow.observe(0.2);
    world.seen.recent = Some(slow);
    world.run(1);
    assert_eq!(
        thresholds(&world.spec, &world.state).tolerance,
        first,
        "not within a step"
    );
    world.until_step(2);
    let second = thresholds(&world.spec, &world.state).tolerance;
    assert!(second > first, "{second:?}");
}

#[test]
fn slow_candidate_is_rolled_back() {
    let mut world = World::updated(release(vec![step(20, 60)]));
    world.until_step(1);
    let mut state = world.state.clone();
    let mut seen = world.seen.clone();
    for second in 1..30 {
        seen.candidate.latency = crate::judge::Counts { calls: 20, bad: 15 };
        seen.stable.latency = crate::judge::Counts { calls: 80, bad: 0 };
        let now = world.now() + seconds(second);
        state = crate::release::next(&world.spec, &seen, &state, now).state;
    }
    assert_eq!(state.phase, ReleasePhase::RolledBack);
    let reason = &state.history[0].reason;
    assert!(reason.starts_with("latency: "), "{reason}");
    assert!(
        reason.contains("slower than 23 ms, stable 0 of"),
        "{reason}"
    );
}
