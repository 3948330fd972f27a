//! Tests of commands: which phase takes which, and what each does.

use crds::weft::{ReleasePhase, ReleaseResult};

use super::{World, release, step};
use crate::release::{Command, EventKind, State, Verb, next};

fn progressing() -> World {
    let steps = vec![step(5, 20), step(20, 20), step(50, 20)];
    let mut world = World::updated(release(steps));
    world.until_step(1);
    world
}

/// No pod of the candidate serves yet.
fn waiting() -> World {
    let mut world = World::updated(release(vec![step(5, 20), step(20, 20)]));
    world.broken = Some("v2");
    world.run(3);
    world
}

#[test]
fn ignored_command_names_phase_in_which_it_was_met() {
    let mut world = waiting();
    // In this look the run goes on to its first step.
    world.broken = None;
    world.run(1);
    let mut at_the_end = world.seen.clone();
    at_the_end.command = Some(Command {
        verb: Verb::Promote,
        by: None,
    });
    let looks = |state: &State| next(&world.spec, &at_the_end, state, world.now());
    let mut before = world.state.clone();
    before.phase = ReleasePhase::Waiting;
    let look = looks(&before);
    assert_eq!(look.state.phase, ReleasePhase::Progressing);
    let said = "promote has no effect: the release was Waiting, which takes abort";
    assert!(
        look.events.iter().any(|event| event.message == said),
        "{:?}",
        look.events
    );
}

#[test]
fn command_that_does_not_fit_is_ignored() {
    let fits = |phase: ReleasePhase, verb: Verb| phase.commands().contains(&verb.as_str());
    for verb in Verb::ALL {
        for phase in ReleasePhase::ALL {
            let mut world = progressing();
            match phase {
                ReleasePhase::Idle => world = World::new(world.spec),
                ReleasePhase::Waiting => world = waiting(),
                ReleasePhase::Paused => world.command(Verb::Pause),
                ReleasePhase::Promoting => world.command(Verb::Promote),
                ReleasePhase::RolledBack => world.command(Verb::Abort),
                ReleasePhase::Progressing => {}
            }
            assert_eq!(world.state.phase, phase);
            let before = world.state.clone();
            world.command(verb);
            let ignored = world.reasons().contains(&EventKind::CommandIgnored);
            assert_eq!(ignored, !fits(phase, verb), "{verb:?} in {phase:?}");
            if ignored {
                assert_eq!(world.state.phase, before.phase);
            }
        }
    }
}

#[test]
fn pause_holds_a_step_and_resume_goes_on() {
    let mut world = progressing();
    world.command(Verb::Pause);
    world.run(100);
    assert_eq!(world.state.phase, ReleasePhase::Paused);
    assert_eq!(world.weight(), 5);
    world.command(Verb::Resume);
    world.until_step(2);
    let by = world.state.run.as_ref().and_then(|run| run.by.as_deref());
    assert_eq!(by, Some("kubectl"));
}

#[test]
fn bad_candidate_is_rolled_back_while_paused() {
    let mut world = progressing();
    world.command(Verb::Pause);
    world.bad.1 = 0.5;
    world.until(ReleasePhase::RolledBack, 60);
}

#[test]
fn promote_skips_the_steps() {
    let mut world = progressing();
    world.command(Verb::Promote);
    assert_eq!(world.state.phase, ReleasePhase::Promoting);
    world.until(ReleasePhase::Idle, 100);
    let ended = &world.state.history[0];
    assert_eq!(ended.result, ReleaseResult::Promoted);
    assert_eq!(ended.by.as_deref(), Some("kubectl"));
}

#[test]
fn pause_in_promoting_opens_no_further_gate() {
    let mut world = progressing();
    world.seen.progress_deadline = std::time::Duration::from_secs(60);
    world.command(Verb::Promote);
    world.command(Verb::Pause);
    world.run(5);
    let shut = world.shut("v2");
    world.run(300);
    assert_eq!(world.state.phase, ReleasePhase::Promoting, "it waits");
    assert_eq!(world.shut("v2"), shut);
    world.command(Verb::Resume);
    world.until(ReleasePhase::Idle, 100);
}

#[test]
fn abort_takes_all_calls_back_by_its_author() {
    let mut world = progressing();
    world.command(Verb::Abort);
    assert_eq!(world.weight(), 0);
    let ended = &world.state.history[0];
    assert_eq!(ended.result, ReleaseResult::RolledBack);
    assert_eq!(ended.by.as_deref(), Some("kubectl"));
}

#[test]
fn retry_runs_the_same_candidate_again() {
    let mut world = progressing();
    for pod in &mut world.seen.pods {
        pod.restarts = u32::from(pod.revision == "v2");
    }
    world.until(ReleasePhase::RolledBack, 5);
    world.command(Verb::Retry);
    let run = world.state.run.as_ref().expect("a run");
    assert_eq!((run.number, run.step), (2, 0));
    world.until(ReleasePhase::Idle, 300);
    let results: Vec<_> = world.ended.iter().map(|ended| ended.result).collect();
    assert_eq!(
        results,
        [ReleaseResult::RolledBack, ReleaseResult::Promoted]
    );
}
