//! Tests of runs of an experiment: starts, looks, ends and verdicts.

use crds::weft::validation::RateCheck;
use policy::name::ServiceId;

use super::*;

fn at(second: u64) -> Duration {
    Duration::from_secs(1_800_000_000 + second)
}

fn spec() -> Experiment {
    Experiment {
        duration: Duration::from_secs(60),
        min_requests: 100,
        checks: vec![ServiceCheck {
            service: ServiceId::new("shop", "checkout"),
            error_rate: RateCheck {
                tolerance: Some(0.005),
                max: Some(0.02),
            },
        }],
        share: 0.1,
        suspend: false,
        ..Experiment::default()
    }
}

/// A second with so many bad ones of a hundred harmed calls, and none among a hundred spared.
fn second(bad: u64) -> Seen {
    let hundred = |bad| Counts { calls: 100, bad };
    Seen {
        generation: 1,
        counts: vec![GroupCounts {
            all: Counts { calls: 1000, bad },
            control: hundred(0),
            harmed: hundred(bad),
        }],
        calls: Calls {
            total: 1000,
            harmed: 100,
            ..Calls::default()
        },
        ..Seen::default()
    }
}

fn ordered(order: Order) -> Seen {
    Seen {
        order: Some(order),
        ..second(0)
    }
}

/// An experiment, second by second.
struct Played {
    spec: Experiment,
    state: State,
    second: u64,
    happened: Vec<Happened>,
}

impl Played {
    fn new(spec: Experiment) -> Self {
        Self {
            spec,
            state: State::default(),
            second: 0,
            happened: Vec::new(),
        }
    }

    /// Started by a command.
    fn started(spec: Experiment) -> Self {
        let mut played = Self::new(spec);
        played.see(&ordered(Order::Run("anna".to_owned())));
        played
    }

    /// The same, after the look.
    fn running(spec: Experiment) -> Self {
        let mut played = Self::started(spec);
        while played.state.phase == ExperimentPhase::Waiting {
            played.see(&second(0));
        }
        played
    }

    fn see(&mut self, seen: &Seen) {
        let next = next(&self.spec, seen, &self.state, at(self.second));
        self.state = next.state;
        self.happened.extend(next.happened);
        self.second += 1;
    }

    fn verdict(&self) -> Option<(ExperimentVerdict, &str)> {
        self.happened.iter().rev().find_map(|one| match one {
            Happened::Ended(Ended { verdict, reason }) => Some((*verdict, reason.as_str())),
            _ => None,
        })
    }
}

#[test]
fn created_experiment_starts_nothing() {
    let mut played = Played::new(spec());
    for _ in 0..100 {
        played.see(&second(100));
    }
    assert_eq!(played.state, State::default());
    assert_eq!(played.happened, []);
}

#[test]
fn run_looks_ten_seconds_before_it_harms() {
    let played = Played::running(spec());
    // The second of the command, the look, and the one in which it begins.
    assert_eq!(played.second, 1 + 10 + 1);
    let run = played.state.run.unwrap();
    assert_eq!(run.harms, Some((at(11), at(11) + spec().duration)));
    assert_eq!(run.checks[0].counts, GroupCounts::default(), "counted anew");
    assert_eq!(played.happened, [Happened::Requested, Happened::Began]);
}

#[test]
fn check_that_is_worse_already_keeps_run_from_starting() {
    let mut played = Played::started(spec());
    for _ in 0..10 {
        played.see(&second(30));
    }
    let (verdict, reason) = played.verdict().unwrap();
    assert_eq!(verdict, ExperimentVerdict::NotStarted);
    assert!(reason.contains("before anything was harmed"), "{reason}");
}

#[test]
fn harm_beyond_a_check_ends_run_as_harmful() {
    let mut played = Played::running(spec());
    for _ in 0..10 {
        played.see(&second(30));
    }
    let (verdict, reason) = played.verdict().unwrap();
    assert_eq!(verdict, ExperimentVerdict::Harmful, "{reason}");
    assert!(reason.starts_with("checkout errorRate: "), "{reason}");
    assert_eq!(played.state.phase, ExperimentPhase::Finished);
}

#[test]
fn run_without_harm_is_tolerated_at_its_end() {
    let mut played = Played::running(spec());
    for _ in 0..60 {
        assert_eq!(played.verdict(), None);
        played.see(&second(0));
    }
    assert_eq!(played.verdict(), Some((ExperimentVerdict::Tolerated, "")));
}

#[test]
fn harm_that_is_reported_late_counts() {
    let mut played = Played::running(spec());
    let unreported = Seen {
        calls: Calls::default(),
        ..second(0)
    };
    for _ in 0..70 {
        played.see(&unreported);
    }
    assert_eq!(played.verdict(), None, "the run is over, and not reported");
    played.see(&second(0));
    assert_eq!(played.verdict(), Some((ExperimentVerdict::Tolerated, "")));
}

#[test]
fn check_that_no_harmed_call_reached_is_inconclusive() {
    let mut spec = spec();
    spec.min_requests = 0;
    spec.checks[0].error_rate.tolerance = None;
    let mut played = Played::running(spec);
    let mut unmeasured = second(0);
    unmeasured.counts[0].harmed = Counts::default();
    for _ in 0..61 {
        played.see(&unmeasured);
    }
    let (verdict, reason) = played.verdict().unwrap();
    assert_eq!(verdict, ExperimentVerdict::Inconclusive);
    let start = "no harmed call with a trace reached checkout";
    assert!(reason.starts_with(start), "{reason}");
}

#[test]
fn calls_that_are_reported_after_the_end_count() {
    let mut played = Played::running(spec());
    while played.verdict().is_none() {
        played.see(&Seen {
            calls: Calls::default(),
            ..second(100)
        });
    }
    played.see(&second(0));
    let run = played.state.run.unwrap();
    assert_eq!((run.calls.harmed, run.calls.total), (100, 1000));
}

#[test]
fn run_with_too_few_requests_is_inconclusive() {
    let few = Seen {
        generation: 1,
        counts: vec![GroupCounts {
            harmed: Counts { calls: 1, bad: 0 },
            ..GroupCounts::default()
        }],
        calls: Calls {
            harmed: 1,
            ..Calls::default()
        },
        ..Seen::default()
    };
    let excluded = Seen {
        calls: Calls {
            total: 1000,
            excluded: 100,
            ..Calls::default()
        },
        ..second(0)
    };
    for (seen, why) in [
        (few, "checkout got 60 harmed calls"),
        (excluded, "no call was harmed"),
        (
            Seen {
                generation: 1,
                ..Seen::default()
            },
            "no call was harmed",
        ),
    ] {
        let mut played = Played::running(spec());
        while played.verdict().is_none() {
            played.see(&seen);
        }
        let (verdict, reason) = played.verdict().unwrap();
        assert_eq!(verdict, ExperimentVerdict::Inconclusive);
        assert!(reason.starts_with(why), "{reason}");
    }
}

#[test]
fn anything_that_forbids_a_run_ends_it() {
    let because = |change: fn(&mut Seen)| {
        let mut seen = second(0);
        change(&mut seen);
        seen
    };
    for seen in [
        because(|seen| seen.order = Some(Order::Stop("anna".to_owned()))),
        because(|seen| seen.refused = Some("not allowed".to_owned())),
        because(|seen| seen.taken = Some("another runs".to_owned())),
        because(|seen| seen.busy = Some("a release runs".to_owned())),
        because(|seen| seen.generation = 2),
    ] {
        let mut played = Played::running(spec());
        played.see(&seen);
        let (verdict, reason) = played.verdict().unwrap();
        assert_eq!(verdict, ExperimentVerdict::Stopped);
        assert!(!reason.is_empty());
    }
    let mut played = Played::running(spec());
    played.spec.suspend = true;
    played.see(&second(0));
    let stopped = (ExperimentVerdict::Stopped, "spec.suspend is true");
    assert_eq!(played.verdict(), Some(stopped));
}

#[test]
fn run_that_nothing_drove_is_over() {
    let takeover = 20;
    for away in [takeover, UNDRIVEN.as_secs()] {
        for (mut played, verdict) in [
            (Played::started(spec()), ExperimentVerdict::NotStarted),
            (Played::running(spec()), ExperimentVerdict::Stopped),
        ] {
            played.second += away;
            played.see(&second(0));
            let ended = played.verdict().map(|(verdict, _)| verdict);
            assert_eq!(ended, (away > takeover).then_some(verdict), "{away} s");
        }
    }
}

#[test]
fn run_waits_ten_minutes_for_release_and_no_longer() {
    let busy = Seen {
        busy: Some("CanaryRelease shop/web is in step 2".to_owned()),
        ..second(0)
    };
    let mut played = Played::started(spec());
    for _ in 0..599 {
        played.see(&busy);
    }
    assert_eq!(played.state.phase, ExperimentPhase::Waiting);
    let mut patient = Played {
        state: played.state.clone(),
        ..Played::new(spec())
    };
    patient.second = played.second;
    for _ in 0..12 {
        patient.see(&second(0));
    }
    assert_eq!(patient.state.phase, ExperimentPhase::Running);
    for _ in 0..3 {
        played.see(&busy);
    }
    let (verdict, reason) = played.verdict().unwrap();
    assert_eq!(verdict, ExperimentVerdict::NotStarted);
    assert!(reason.contains("for 10 minutes"), "{reason}");
}

#[test]
fn schedule_starts_one_run_and_reports_a_missed_one() {
    let due = |due| Seen {
        due: Some(due),
        ..second(0)
    };
    let mut played = Played::new(spec());
    played.see(&due(Due::Now(at(0))));
    let run = played.state.run.as_ref().unwrap();
    assert_eq!((run.by.as_str(), run.number), (BY_SCHEDULE, 1));
    assert_eq!(played.state.scheduled, Some(at(0)), "not again");

    let mut late = Played::new(spec());
    late.see(&due(Due::Missed(at(0))));
    let (verdict, reason) = late.verdict().unwrap();
    assert_eq!(verdict, ExperimentVerdict::NotStarted);
    assert!(reason.contains("within 10 minutes"), "{reason}");

    let mut suspended = Played::new(Experiment {
        suspend: true,
        ..spec()
    });
    suspended.see(&due(Due::Now(at(0))));
    assert_eq!(suspended.happened, []);
    assert_eq!(suspended.state.scheduled, Some(at(0)));
}

#[test]
fn stop_at_the_scheduled_time_starts_nothing() {
    let mut played = Played::new(spec());
    played.see(&Seen {
        due: Some(Due::Now(at(0))),
        ..ordered(Order::Stop("anna".to_owned()))
    });
    assert_eq!(played.state.run, None);
    assert_eq!(played.state.scheduled, Some(at(0)), "nor a second later");
}

#[test]
fn saved_run_goes_on_with_its_evidence() {
    let mut played = Played::running(spec());
    played.see(&second(3));
    let run = played.state.run.clone().unwrap();
    let text = Saved::of(&played.state, &run, at(played.second)).to_text();
    assert!(text.len() <= 1024, "{text}");
    let saved = Saved::of_text(&text);
    let groups = [(run.checks[0].counts.control, run.checks[0].counts.harmed)];
    let checks = saved.checks(&groups);
    assert_eq!(checks[0].counts, run.checks[0].counts);
    let evidence = |check: &Check| check.tolerance.evidence();
    let (before, after) = (evidence(&run.checks[0]), evidence(&checks[0]));
    assert!((before - after).abs() <= before * 1e-5, "{before} {after}");
    assert_eq!(saved.generation(), 1);
    assert_eq!(saved.written(), at(played.second));
    assert_eq!(Saved::of_text("{"), Saved::default());
}

#[test]
fn saved_run_of_four_double_checks_has_room() {
    let mut state = State::default();
    let check = Check {
        counts: GroupCounts {
            all: Counts {
                calls: 123_456_789,
                bad: 12_345_678,
            },
            ..GroupCounts::default()
        },
        ..Check::default()
    };
    let run = Run {
        number: 1,
        by: String::new(),
        generation: 123,
        requested: at(0),
        driven: at(2),
        looking: Some(at(1)),
        harms: None,
        calls: Calls::default(),
        checks: vec![check; 4],
    };
    state.scheduled = Some(at(0));
    let text = Saved::of(&state, &run, at(2)).to_text();
    assert_eq!(
        Saved::of_text(&text).checks(&[Default::default(); 4]).len(),
        4
    );
    assert!(text.len() <= 1024);
}
