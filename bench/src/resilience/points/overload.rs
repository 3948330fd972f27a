//! A server is asked for more than it can do.

use std::time::{Duration, Instant};

use anyhow::Result;
use policy::traffic::part::Part;

use super::{Bench, BoundResult, Picture, SYSTEMS, Section, millis, percent, row, shared};
use crate::curves::Panel;
use crate::resilience::application::{Behaviour, LONG_POLL, METHOD, WORKERS};
use crate::resilience::client::Call;
use crate::resilience::cluster::{Asked, Pod};
use crate::resilience::envoy::Extra;
use crate::resilience::generator::{CallEnd, Load, Sample};
use crate::resilience::judge::{self, GOOD_WITHIN};
use crate::resilience::scenario::{Mesh, Scenario};

const CALLERS: usize = 4;
/// Whose calls are Critical, a quarter of all.
const CRITICAL: &str = "caller-1";
const PODS: [Pod; 5] = [
    Pod::caller(CRITICAL),
    Pod::caller("caller-2"),
    Pod::caller("caller-3"),
    Pod::caller("caller-4"),
    Pod::of("web", "web-1", Behaviour::Works),
];
/// Offered, in parts of the capacity, and for how long. The first is the calm one; the high one
/// lasts for what is promised, since a limit that is measured wrongly shows in minutes.
const LOADS: [(f64, u64); 6] = [
    (0.5, 10),
    (0.85, 300),
    (1.0, 10),
    (1.5, 10),
    (2.0, 10),
    (3.0, 60),
];
const CALM: usize = 0;
const HIGH: usize = 1;
const TRIPLE: usize = 5;
/// One in so many calls at the high load is a long poll.
const POLLS: u64 = 200;

/// One load.
struct Step {
    callers: Vec<Vec<Sample>>,
    /// Good answers per second.
    goodput: f64,
}

struct OverloadRun {
    steps: Vec<Step>,
    carried: Option<(bool, bool)>,
}

fn get(_: u64) -> Call {
    Call {
        method: "GET",
        path: METHOD,
        headers: Vec::new(),
    }
}

/// Long polls among the others, as many of each caller.
fn with_polls(number: u64) -> Call {
    let poll = number.is_multiple_of(POLLS);
    Call {
        path: if poll { LONG_POLL } else { METHOD },
        ..get(number)
    }
}

/// What the server can do, in requests per second, when three times as much is asked of it
/// and no proxy stands between.
fn capacity(bench: &Bench) -> Result<f64> {
    eprintln!("overload: capacity");
    let mut scenario = bench.start(&Mesh::Direct, &PODS, Asked::default())?;
    let time = bench.seconds(10);
    let load = Load {
        // A worker needs 10 ms at least.
        rate: 300.0 * WORKERS as f64,
        time,
        patience: GOOD_WITHIN,
        call: get,
    };
    let worked = std::sync::atomic::AtomicU64::new(0);
    scenario.load(shared(load, CALLERS), false, |scenario, begin| {
        std::thread::sleep((begin + time).saturating_duration_since(Instant::now()));
        let done = scenario.app("web-1").worked();
        worked.store(done, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    })?;
    Ok(worked.into_inner() as f64 / time.as_secs_f64())
}

fn steps(bench: &Bench, mesh: &Mesh, capacity: f64) -> Result<OverloadRun> {
    let requested = Asked {
        overload: Some(CRITICAL),
        ..Asked::default()
    };
    let mut scenario = bench.start(mesh, &PODS, requested)?;
    let mut steps = Vec::new();
    for (at, (part, seconds)) in LOADS.into_iter().enumerate() {
        eprintln!("overload: {part} of the capacity, {}", mesh.name());
        let time = bench.seconds(seconds);
        let polls = at == HIGH;
        let load = Load {
            rate: capacity * part,
            time,
            // Polls wait for longer.
            patience: if polls { 10 * GOOD_WITHIN } else { GOOD_WITHIN },
            call: if polls { with_polls } else { get },
        };
        let callers = scenario.load(shared(load, CALLERS), false, |_, _| Ok(()))?;
        let good = judge::all(&callers);
        let good = good.iter().filter(|one| judge::is_good(one)).count();
        steps.push(Step {
            callers,
            goodput: good as f64 / time.as_secs_f64(),
        });
        // Each load begins with an idle server.
        scenario.app("web-1").drop_queue();
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(OverloadRun {
        steps,
        carried: carried(&scenario),
    })
}

/// Whether Weft's proxies carry out overload and priority.
fn carried(scenario: &Scenario) -> Option<(bool, bool)> {
    let parts = scenario.carried()?;
    Some((parts.has(Part::Overload), parts.has(Part::Priority)))
}

/// The 99th percentile of answers that are good calls but for the time that they took.
fn admitted(step: &Step) -> Duration {
    let all = judge::all(&step.callers);
    let admitted: Vec<_> = all
        .into_iter()
        .filter(|one| one.end == CallEnd::Good)
        .collect();
    judge::quantile(&admitted, 0.99)
}

/// Calls of the high load that were not let in.
fn refused(step: &Step) -> usize {
    let all = judge::all(&step.callers);
    let ends = [
        CallEnd::Refused,
        CallEnd::Broken,
        CallEnd::TimedOut,
        CallEnd::NotSent,
    ];
    ends.into_iter().map(|end| judge::count(&all, end)).sum()
}

pub(in crate::resilience) fn three_times(bench: &Bench) -> Result<Section> {
    const MORE: Extra = Extra {
        retries_503: false,
        adaptive: true,
    };
    let capacity = capacity(bench)?;
    let all = bench.each(MORE, |mesh| steps(bench, mesh, capacity))?;
    // Where Weft takes no part, nothing is said of it.
    let carried = all[0].as_ref().and_then(|run| run.carried);
    let (overload, priority) = carried.unwrap_or((true, true));
    let mut rows = vec![
        row(
            "three times the capacity: good calls, of the capacity".to_owned(),
            "≥ 90 %",
            &all,
            |seen| percent(seen.steps[TRIPLE].goodput / capacity),
            |seen| seen.steps[TRIPLE].goodput >= 0.9 * capacity,
        ),
        row(
            "three times the capacity: p99 of what was answered 200, above the calm p99".to_owned(),
            "≤ 250 ms",
            &all,
            |seen| millis(above_calm(seen)),
            |seen| above_calm(seen) <= Duration::from_millis(250),
        ),
        row(
            "three times the capacity: good calls of the caller that is Critical".to_owned(),
            "≥ 99 %",
            &all,
            |seen| percent(critical(seen)),
            |seen| critical(seen) >= 0.99,
        ),
        row(
            "85 % of the capacity, long polls among it: calls that were refused or lost".to_owned(),
            "0",
            &all,
            |seen| refused(&seen.steps[HIGH]).to_string(),
            |seen| refused(&seen.steps[HIGH]) == 0,
        ),
    ];
    for (at, in_force) in [(0, overload), (1, overload), (2, overload && priority)] {
        if !in_force {
            rows[at].bound_result = BoundResult::NotInForce;
        }
    }
    Ok(Section {
        title: "A server is asked for three times what it can do",
        how: how(capacity, overload, priority),
        third: "Envoy with adaptive concurrency",
        rows,
        picture: Some(picture(&all, capacity)),
    })
}

fn how(capacity: f64, overload: bool, priority: bool) -> String {
    let words = match (overload, priority) {
        (true, true) => "Weft's proxies carry out `overload` and `priority`.",
        (true, false) => "Weft's proxies carry out `overload`, and `priority` not yet.",
        (false, _) => {
            "**Weft's proxies say that they do not carry out `overload` yet**: they are measured all the same, and let everything through."
        }
    };
    format!(
        "One server with {WORKERS} workers, each of which is busy for 10 ms with a request, and a queue that is worked on whether or not the caller still waits, as most servers do. Without a mesh it does {capacity:.0} requests per second, which is its capacity here. Four callers together offer parts of that, for {} s at 0.85, {} s at 3.0 and 10 s else, and give up after one second; good is an answer 200 by then. Weft has a TrafficPolicy with `overload: {{}}` and `priority: Critical` for one caller, Envoy in the third column the filter `adaptive_concurrency` in front of the server, as its documentation's example sets it. {words}",
        LOADS[HIGH].1, LOADS[TRIPLE].1
    )
}

fn above_calm(seen: &OverloadRun) -> Duration {
    admitted(&seen.steps[TRIPLE]).saturating_sub(admitted(&seen.steps[CALM]))
}

fn critical(seen: &OverloadRun) -> f64 {
    seen.steps[TRIPLE]
        .callers
        .first()
        .map_or(0.0, |caller| judge::good(caller))
}

fn picture(all: &[Option<OverloadRun>; SYSTEMS], capacity: f64) -> Picture {
    let names = ["Weft", "Envoy", "adaptive"];
    let curves = names.into_iter().zip(all).filter_map(|(name, seen)| {
        let steps = seen.as_ref()?.steps.iter();
        Some((
            name.to_owned(),
            steps.map(|step| step.goodput.round()).collect(),
        ))
    });
    Picture {
        file: "resilience-goodput.svg",
        title: "Good answers per second over offered load",
        unit: "offered, of the capacity",
        sizes: LOADS.map(|(part, _)| part).into(),
        panels: vec![Panel {
            title: format!("goodput, 1/s; the capacity is {capacity:.0}/s"),
            curves: curves.collect(),
            bound: Some((0.9 * capacity).round()),
        }],
    }
}
