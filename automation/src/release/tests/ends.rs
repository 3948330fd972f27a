//! Tests of how runs end: by the candidate, by the template, by the pods that are left.

use std::time::Duration;

use crds::weft::{ReleasePhase, ReleaseResult};

use super::{World, persisted, pod, release, step};
use crate::release::{EventKind, GRACE, Gate, HISTORY, SetCounts, State, Verb, next};

fn world() -> World {
    World::updated(release(vec![step(5, 20), step(20, 20), step(50, 20)]))
}

fn results(world: &World) -> Vec<ReleaseResult> {
    world.ended.iter().map(|ended| ended.result).collect()
}

#[test]
fn half_bad_candidate_is_rolled_back_in_seconds() {
    let mut world = world();
    world.bad.1 = 0.5;
    world.until_step(1);
    world.until(ReleasePhase::RolledBack, 30);
    let ended = &world.state.history[0];
    assert!(ended.reason.starts_with("errorRate: "), "{}", ended.reason);
    assert!(ended.bad < 60, "{ended:?}");
    let warning = world.events.last().expect("an Event");
    assert_eq!(warning.kind, EventKind::RolledBack);
    assert!(
        warning
            .message
            .ends_with("; kubectl rollout undo deployment/web")
    );
    world.run(5);
    assert!(
        world.summary().contains("; 3 of 4 pods serve; "),
        "{}",
        world.summary()
    );
}

#[test]
fn restart_of_the_deployment_starts_no_run() {
    let mut world = World::new(release(vec![step(5, 20)]));
    world.template = "v1-restarted".to_owned();
    world.run(60);
    assert!(world.events.is_empty(), "{:?}", world.events);
    assert_eq!(world.state.stable.as_deref(), Some("v1-restarted"));
    assert_eq!(world.shut("v1-restarted"), 0);
    assert_eq!(world.count("v1"), 0);
}

#[test]
fn undo_ends_a_run_and_a_rollback() {
    let mut running = world();
    running.until_step(2);
    running.template = "v1".to_owned();
    running.run(5);
    assert_eq!(results(&running), [ReleaseResult::Aborted]);
    assert_eq!(running.state.phase, ReleasePhase::Idle);
    assert_eq!((running.count("v1"), running.count("v2")), (3, 0));

    let mut rolled_back = world();
    rolled_back.until_step(1);
    rolled_back.command(Verb::Abort);
    rolled_back.template = "v1".to_owned();
    rolled_back.run(5);
    assert_eq!(rolled_back.state.phase, ReleasePhase::Idle);
    assert_eq!(results(&rolled_back), [ReleaseResult::RolledBack]);
}

#[test]
fn third_revision_takes_the_place_of_the_second() {
    let mut world = world();
    world.until_step(2);
    world.template = "v3".to_owned();
    world.run(1);
    assert_eq!(results(&world), [ReleaseResult::Superseded]);
    let run = world.state.run.as_ref().expect("a run");
    assert_eq!((run.number, run.step, run.weight), (2, 0, 0));
    assert_eq!(world.state.candidate.as_deref(), Some("v3"));
    world.until(ReleasePhase::Idle, 300);
    assert_eq!(world.state.stable.as_deref(), Some("v3"));
}

#[test]
fn candidate_serves_as_it_is_without_a_stable_pod() {
    let mut world = world();
    world.until_step(1);
    world.broken = Some("v1");
    world.run(8);
    assert_eq!(world.state.phase, ReleasePhase::Progressing, "not at once");
    world.until(ReleasePhase::Idle, 10);
    assert_eq!(results(&world), [ReleaseResult::Bypassed]);
    world.run(2);
    assert_eq!(world.shut("v2"), 0);
}

#[test]
fn rolled_back_candidate_stays_shut_without_a_stable_pod() {
    let mut world = world();
    world.until_step(1);
    world.command(Verb::Abort);
    world.broken = Some("v1");
    world.run(60);
    assert_eq!(world.state.phase, ReleasePhase::RolledBack);
    assert!(world.seen.of("v2").all(|pod| pod.gate == Gate::Shut));
}

#[test]
fn scaled_from_nothing_the_candidate_serves() {
    let mut world = World::new(release(vec![step(5, 20)]));
    world.seen.pods.clear();
    world.replicas = 0;
    world.template = "v2".to_owned();
    world.run(20);
    world.replicas = 3;
    world.run(30);
    assert_eq!(world.count("v2"), 3);
    assert_eq!(world.shut("v2"), 0);
}

#[test]
fn pod_without_a_gate_ends_the_run() {
    let mut world = world();
    world.until_step(1);
    let pods = world.seen.pods.iter_mut();
    pods.filter(|pod| pod.revision == "v2")
        .for_each(|pod| pod.gate = Gate::Absent);
    world.until(ReleasePhase::Idle, 5);
    assert_eq!(results(&world), [ReleaseResult::Bypassed]);
}

#[test]
fn candidate_that_never_serves_is_rolled_back() {
    let mut world = world();
    world.seen.progress_deadline = Duration::from_secs(100);
    world.broken = Some("v2");
    world.run(90);
    assert_eq!(world.state.phase, ReleasePhase::Waiting);
    world.until(ReleasePhase::RolledBack, 20);
    let reason = &world.state.history[0].reason;
    assert!(reason.starts_with("CandidateNotReady: "), "{reason}");
}

#[test]
fn candidate_that_is_gone_is_rolled_back() {
    let mut lost = world();
    lost.until_step(1);
    lost.broken = Some("v2");
    lost.until(ReleasePhase::RolledBack, 15);

    let mut silent = world();
    silent.until_step(1);
    for _ in 0..15 {
        let pods = silent.seen.pods.iter_mut();
        pods.filter(|pod| pod.revision == "v2")
            .for_each(|pod| pod.connected = false);
        silent.tick();
    }
    assert_eq!(silent.state.phase, ReleasePhase::RolledBack);
}

#[test]
fn breaker_and_restarts_roll_back_at_once() {
    let mut breaker = world();
    breaker.until_step(1);
    breaker.seen.breaker_open_at_candidate = true;
    breaker.run(1);
    assert_eq!(breaker.state.phase, ReleasePhase::RolledBack);

    let mut restarts = world();
    restarts.until_step(1);
    let pods = restarts.seen.pods.iter_mut();
    pods.for_each(|pod| pod.restarts = 1);
    restarts.run(1);
    assert_eq!(restarts.state.phase, ReleasePhase::RolledBack);
    let reason = &restarts.state.history[0].reason;
    assert!(reason.contains("restarted 1 times"), "{reason}");
}

#[test]
fn opened_candidate_keeps_calls_that_stable_cannot_take() {
    let mut world = world();
    world.replicas = 10;
    world.seen.pods = (0..10).map(|number| pod("v1", number)).collect();
    world.until_step(1);
    world.command(Verb::Promote);
    while world.count("v1") > 2 {
        world.tick();
        assert!(world.seconds < 300);
    }
    world.command(Verb::Abort);
    // Two of ten pods that are ready are stable: 100 - 2 * 20.
    let weight = world.weight();
    assert_eq!(weight, 60);
    let shut = world.shut("v2");
    world.run(60);
    assert_eq!(world.shut("v2"), shut, "no further gate");
    assert!(world.weight() <= weight);
}

#[test]
fn promoting_without_progress_is_rolled_back() {
    let mut world = world();
    world.seen.progress_deadline = Duration::from_secs(100);
    world.until_step(1);
    world.command(Verb::Promote);
    while world.count("v1") > 1 {
        world.tick();
    }
    // Kubernetes makes no further pod.
    let mut seen = world.seen.clone();
    seen.pods.retain(|pod| pod.ready);
    seen.stable = SetCounts::default();
    seen.candidate = SetCounts::default();
    let mut state = world.state.clone();
    for second in 1..=110 {
        let now = world.now() + Duration::from_secs(second);
        state = next(&world.spec, &seen, &state, now).state;
    }
    assert_eq!(state.phase, ReleasePhase::RolledBack);
    let reason = &state.history[0].reason;
    assert!(reason.starts_with("no further pod "), "{reason}");
}

#[test]
fn promoting_waits_for_a_paused_deployment() {
    let mut world = world();
    world.seen.progress_deadline = Duration::from_secs(30);
    world.until_step(1);
    world.command(Verb::Promote);
    world.seen.deployment_paused = true;
    world.run(100);
    assert_eq!(world.state.phase, ReleasePhase::Promoting);
    world.seen.deployment_paused = false;
    world.until(ReleasePhase::Idle, 100);
}

#[test]
fn suspended_release_opens_all_gates() {
    let mut world = world();
    world.until_step(1);
    world.spec.suspend = true;
    world.run(60);
    assert_eq!(results(&world), [ReleaseResult::Bypassed]);
    assert_eq!((world.count("v2"), world.shut("v2")), (3, 0));
    assert_eq!(world.state.stable.as_deref(), Some("v2"));
}

#[test]
fn release_made_in_a_rollout_waits_for_one_revision() {
    let mut world = World::new(release(vec![step(5, 20)]));
    world.template = "v2".to_owned();
    world.state = State::default();
    world.persisted = State::default();
    world.run(1);
    assert_eq!(world.state.phase, ReleasePhase::Waiting);
    assert_eq!(world.summary(), "waits until one revision is left");
    world.until(ReleasePhase::Idle, 60);
    assert_eq!(world.state.stable.as_deref(), Some("v2"));
    assert!(world.ended.is_empty());
}

#[test]
fn nothing_is_decided_without_a_deployment() {
    let mut world = world();
    world.until_step(1);
    let mut seen = world.seen.clone();
    seen.newest = None;
    seen.pods.clear();
    let look = next(
        &world.spec,
        &seen,
        &world.state,
        world.now() + Duration::from_secs(60),
    );
    assert!(!look.decided && look.gates.is_empty() && look.events.is_empty());
}

#[test]
fn history_keeps_the_last_ten_runs() {
    let mut world = world();
    world.until_step(1);
    world.command(Verb::Abort);
    for _ in 0..12 {
        world.command(Verb::Retry);
        world.until_step(1);
        world.command(Verb::Abort);
    }
    let numbers: Vec<_> = world
        .state
        .history
        .iter()
        .map(|ended| ended.number)
        .collect();
    let expected: Vec<u64> = (4..=13).rev().collect();
    assert_eq!(numbers, expected);
    assert_eq!(numbers.len(), HISTORY);
}

#[test]
fn refused_revision_that_suspend_lets_through_is_reported() {
    let mut world = world();
    world.until_step(1);
    world.command(Verb::Abort);
    world.spec.suspend = true;
    world.run(5);
    let expected = [ReleaseResult::RolledBack, ReleaseResult::Bypassed];
    assert_eq!(results(&world), expected);
    let said = "refused revision v2 serves: spec.suspend is true; \
                kubectl rollout undo deployment/web";
    let last = world.events.last().expect("an Event");
    assert_eq!(
        (last.kind, last.message.as_str()),
        (EventKind::Bypassed, said)
    );
    assert!(world.summary().starts_with(said), "{}", world.summary());
    // Until it is reverted.
    world.template = "v1".to_owned();
    world.run(20);
    assert!(!world.summary().contains("v2"), "{}", world.summary());
}

#[test]
fn missing_service_has_one_grace_per_absence() {
    let mut world = world();
    world.until_step(1);
    let (mut state, now) = (world.state.clone(), world.now());
    assert_eq!(state.outlives(now), Some(GRACE));
    let mut successor = persisted(&state);
    assert_eq!(successor.outlives(now + GRACE), None);
    assert!(state.is_of("web") && !state.is_of("webb"));
    let back = next(&world.spec, &world.seen, &state, now + GRACE / 2);
    assert!(!back.state.is_absent());
    let mut again = back.state;
    assert_eq!(again.outlives(now + GRACE), Some(GRACE));
    assert_eq!(State::default().outlives(now), None, "no run");
}
