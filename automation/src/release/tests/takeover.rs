//! Tests of a controller that ends, or whose writes are refused, at any write of a run.

use std::time::Duration;

use crds::weft::{ReleasePhase, ReleaseResult};

use super::{Trouble, World, release, step};
use crate::judge::{Allowed, Counts, Judge, Look};
use crate::release::Evidence;

fn updated(bad: f64) -> World {
    let steps = vec![step(5, 10), step(20, 10), step(50, 10), step(100, 10)];
    let mut world = World::updated(release(steps));
    world.bad.1 = bad;
    world
}

/// A run to its end without trouble: how many writes it takes.
fn writes(bad: f64, phase: ReleasePhase) -> usize {
    let mut world = updated(bad);
    world.run(3);
    world.until(phase, 300);
    world.writes
}

fn troubles(writes: usize) -> impl Iterator<Item = Trouble> {
    (1..=writes).flat_map(|at| [Trouble::Refused(at), Trouble::Dies(at)])
}

#[test]
fn good_candidate_is_promoted_once_whichever_write_fails() {
    for trouble in troubles(writes(0.001, ReleasePhase::Idle)) {
        let mut world = updated(0.001);
        world.trouble = trouble;
        world.run(30);
        world.until(ReleasePhase::Idle, 400);
        world.run(10);
        let results: Vec<_> = world
            .state
            .history
            .iter()
            .map(|ended| ended.result)
            .collect();
        assert_eq!(results, [ReleaseResult::Promoted], "{trouble:?}");
        assert_eq!(world.state.stable.as_deref(), Some("v2"), "{trouble:?}");
        assert_eq!((world.count("v1"), world.shut("v2")), (0, 0), "{trouble:?}");
    }
}

#[test]
fn bad_candidate_gets_nothing_after_rollback_whichever_write_fails() {
    for trouble in troubles(writes(0.5, ReleasePhase::RolledBack)) {
        let mut world = updated(0.5);
        world.trouble = trouble;
        world.run(3);
        world.until(ReleasePhase::RolledBack, 100);
        for _ in 0..60 {
            world.tick();
            assert_eq!(world.weight(), 0, "{trouble:?}");
            assert_eq!(world.state.phase, ReleasePhase::RolledBack, "{trouble:?}");
        }
        assert_eq!(world.ended.len(), 1, "{trouble:?}: {:?}", world.ended);
        assert_eq!((world.count("v1"), world.shut("v2")), (3, 1), "{trouble:?}");
    }
}

#[test]
fn promoting_goes_on_after_a_time_without_controllers() {
    let mut world = updated(0.001);
    world.seen.progress_deadline = Duration::from_secs(60);
    world.run(3);
    world.until(ReleasePhase::Promoting, 300);
    // No gate was opened meanwhile.
    world.state = world.persisted.clone();
    world.seconds += 600;
    world.until(ReleasePhase::Idle, 100);
    assert_eq!(world.state.history[0].result, ReleaseResult::Promoted);
}

#[test]
fn evidence_fits_and_stays_the_same_as_a_text() {
    let mut world = updated(0.005);
    world.until_step(2);
    let run = world.state.run.as_ref().expect("a run");
    let text = run.evidence.to_text();
    let read = Evidence::of_text(&text);
    assert_eq!(read.to_text(), text);
    assert_eq!(read.total, run.evidence.total);
    assert_eq!(read.threshold, run.evidence.threshold);
    for (read, kept) in read.tests.iter().zip(&run.evidence.tests) {
        let (read, kept) = (read.judge.evidence(), kept.judge.evidence());
        assert!((read - kept).abs() <= kept * 1e-6, "{read} for {kept}");
    }
}

#[test]
fn evidence_of_the_longest_run_fits_a_kibibyte() {
    let mut world = updated(0.001);
    world.until_step(1);
    let mut evidence = world.state.run.expect("a run").evidence;
    let many = |calls| Counts {
        calls,
        bad: calls / 7,
    };
    for test in &mut evidence.tests {
        test.judge = Judge::default();
        for _ in 0..8000 {
            let allowed = Allowed::Above(0.0123);
            test.judge
                .look(allowed, many(1_234_567), many(123_456), Look::Later);
            test.judge
                .look(allowed, many(7), many(3), Look::FirstOf(19));
        }
        test.stable = many(9_876_543_210_123);
        test.candidate = many(1_234_567_890_123);
    }
    evidence.total = many(1_234_567_890_123);
    evidence.in_step = u64::MAX;
    let text = evidence.to_text();
    assert!(text.len() <= 1024, "{} bytes: {text}", text.len());
}

#[test]
fn evidence_that_cannot_be_read_begins_anew() {
    for text in [
        "",
        "{",
        "[]",
        r#"{"t":[1,2]}"#,
        r#"{"l":-1}"#,
        r#"{"n":"x"}"#,
    ] {
        assert_eq!(Evidence::of_text(text), Evidence::default(), "{text}");
    }
}

#[test]
fn evidence_with_a_foreign_threshold_does_no_harm() {
    let mut world = updated(0.001);
    world.until_step(1);
    if let Some(run) = &mut world.state.run {
        run.evidence = Evidence::of_text(r#"{"l":18446744073709551615}"#);
        assert!(run.evidence.threshold.is_some());
    }
    world.run(200);
    assert_eq!(world.state.stable.as_deref(), Some("v2"));
}
