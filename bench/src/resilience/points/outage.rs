//! One instance fails, in several ways, and all of them fail a little.

use std::time::Duration;

use anyhow::Result;

use super::{Bench, Picture, Row, SYSTEMS, Section, percent, row, shared};
use crate::curves::Panel;
use crate::resilience::application::{Behaviour, METHOD};
use crate::resilience::client::Call;
use crate::resilience::cluster::{Asked, Pod};
use crate::resilience::envoy::Extra;
use crate::resilience::generator::{Load, Sample};
use crate::resilience::judge;
use crate::resilience::scenario::Mesh;

pub(in crate::resilience) mod once;

const CALLERS: usize = 4;
const PODS: [Pod; 7] = [
    Pod::caller("caller-1"),
    Pod::caller("caller-2"),
    Pod::caller("caller-3"),
    Pod::caller("caller-4"),
    Pod::of("web", "web-1", Behaviour::Answers),
    Pod::of("web", "web-2", Behaviour::Answers),
    Pod::of("web", "web-3", Behaviour::Answers),
];
/// The instance that fails.
const BAD: &str = "web-1";
/// Calls per second, of all callers together.
const RATE: f64 = 200.0;
/// Seconds for which all is well.
const BEFORE: u64 = 5;
/// Longer than anything may wait, so that its end is seen.
const PATIENCE: Duration = Duration::from_secs(15);
/// By then failing endpoints are ejected.
const FOUND_OUT: Duration = Duration::from_secs(2);
/// Ejections of 5 s, 10 s, 20 s and 40 s, a fifth shorter at most, end at most so often in a
/// minute, with a probe of each caller.
const PROBES: f64 = (5 * CALLERS) as f64;

/// How an instance fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It answers 503, or grpc-status 14.
    Answers,
    /// Nothing that is sent to it arrives, and no sender gets an error.
    Silent,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    name: &'static str,
    failure: Failure,
    grpc: bool,
    requested: Asked,
    /// With the failure.
    time: u64,
    call: fn(u64) -> Call,
}

const ASKED_NOTHING: Asked = Asked {
    attempt: None,
    grpc_unavailable: false,
    overload: None,
    near: false,
};

const ANSWERS_503: Outage = Outage {
    name: "answers 503",
    failure: Failure::Answers,
    grpc: false,
    requested: ASKED_NOTHING,
    time: 60,
    call: get,
};
const BLACK_HOLE: Outage = Outage {
    name: "black hole, attempts of 500 ms",
    failure: Failure::Silent,
    requested: Asked {
        attempt: Some(Duration::from_millis(500)),
        ..ASKED_NOTHING
    },
    time: 20,
    ..ANSWERS_503
};
const NODE_LOST: Outage = Outage {
    name: "node lost",
    failure: Failure::Silent,
    time: 20,
    ..ANSWERS_503
};
const GRPC: Outage = Outage {
    name: "gRPC, answers 14",
    grpc: true,
    requested: Asked {
        grpc_unavailable: true,
        ..ASKED_NOTHING
    },
    time: 20,
    ..ANSWERS_503
};
const GRPC_HOLE: Outage = Outage {
    name: "gRPC, black hole, attempts of 500 ms",
    requested: Asked {
        grpc_unavailable: true,
        ..BLACK_HOLE.requested
    },
    grpc: true,
    ..BLACK_HOLE
};
const GRPC_NODE: Outage = Outage {
    name: "gRPC, node lost",
    failure: Failure::Silent,
    ..GRPC
};

/// What came of one outage in one mesh.
struct OutageRun {
    callers: Vec<Vec<Sample>>,
    samples: Vec<Sample>,
    /// When the failure began, and when the load ended.
    before: Duration,
    time: Duration,
    /// Requests at the failing instance, in bins.
    bad: Vec<Vec<u32>>,
    /// Requests that more than one application saw.
    again: u64,
    /// Times that it began to rest, at each caller of Weft.
    ejections: Vec<f64>,
}

impl OutageRun {
    fn of(bench: &Bench, mesh: &Mesh, outage: &Outage) -> Result<Self> {
        let mut scenario = bench.start(mesh, &PODS, outage.requested)?;
        let before = bench.seconds(BEFORE);
        let time = before + bench.seconds(outage.time);
        let load = Load {
            rate: RATE,
            time,
            patience: PATIENCE,
            call: outage.call,
        };
        let failure = outage.failure;
        let callers = scenario.load(shared(load, CALLERS), outage.grpc, |scenario, begin| {
            std::thread::sleep(
                (begin + before).saturating_duration_since(std::time::Instant::now()),
            );
            match failure {
                Failure::Answers => {
                    scenario.app(BAD).fail(100);
                    Ok(())
                }
                Failure::Silent => scenario.lose(BAD),
            }
        })?;
        Ok(Self {
            samples: judge::all(&callers),
            callers,
            before,
            time,
            bad: vec![scenario.app(BAD).counted()],
            again: scenario.repeats.again(),
            ejections: scenario.counted("weft_ejections_total", &[])?,
        })
    }

    /// Calls that were due so long after the failure began, or later.
    fn since(&self, after: Duration) -> Vec<Sample> {
        judge::between(&self.samples, self.before + after, self.time)
    }

    fn not_good_since(&self, after: Duration) -> usize {
        let since = self.since(after);
        since
            .iter()
            .filter(|sample| !judge::is_good(sample))
            .count()
    }

    /// Since the failure, the end of the last call that was not good.
    fn over_after(&self) -> Duration {
        let ends = self.samples.iter().filter(|sample| !judge::is_good(sample));
        let last = ends.map(|sample| sample.due + sample.took).max();
        last.unwrap_or_default().saturating_sub(self.before)
    }

    fn at_bad_since(&self, after: Duration) -> f64 {
        judge::requests(&self.bad, self.before + after, self.time)
    }
}

fn get(_: u64) -> Call {
    Call {
        method: "GET",
        path: METHOD,
        headers: Vec::new(),
    }
}

const MORE: Extra = Extra {
    retries_503: true,
    adaptive: false,
};
const THIRD: &str = "Envoy, 503 tried again too";

fn of_all(bench: &Bench, outage: &Outage) -> Result<[Option<OutageRun>; SYSTEMS]> {
    bench.each(MORE, |mesh| {
        eprintln!("outage: {}, {}", outage.name, mesh.name());
        OutageRun::of(bench, mesh, outage)
    })
}

/// The share of good calls since the failure.
fn goodput(
    outage: &Outage,
    bound: &'static str,
    least: f64,
    all: &[Option<OutageRun>; SYSTEMS],
) -> Row {
    row(
        format!("{}: good calls", outage.name),
        bound,
        all,
        |run| percent(judge::good(&run.since(Duration::ZERO))),
        |run| judge::good(&run.since(Duration::ZERO)) >= least,
    )
}

/// What the failing instance gets once it is found out.
fn probes_alone(outage: &Outage, all: &[Option<OutageRun>; SYSTEMS]) -> Row {
    row(
        format!(
            "{}: requests at the failing instance after 2 s",
            outage.name
        ),
        "probes alone, ≤ 20",
        all,
        |run| format!("{:.0}", run.at_bad_since(FOUND_OUT)),
        |run| run.at_bad_since(FOUND_OUT) <= PROBES,
    )
}

/// Calls that were due so many seconds after the failure, or later.
fn all_good_after(seconds: u64, outage: &Outage, all: &[Option<OutageRun>; SYSTEMS]) -> Row {
    let not_good = |run: &OutageRun| run.not_good_since(Duration::from_secs(seconds));
    row(
        format!(
            "{}: calls after {seconds} s that were not good",
            outage.name
        ),
        "0",
        all,
        |run| not_good(run).to_string(),
        |run| not_good(run) == 0,
    )
}

fn last_late(outage: &Outage, all: &[Option<OutageRun>; SYSTEMS]) -> Row {
    row(
        format!(
            "{}: the last call that was not good ended after",
            outage.name
        ),
        "≤ 13 s",
        all,
        |run| format!("{:.1} s", run.over_after().as_secs_f64()),
        |run| run.over_after() <= Duration::from_secs(13),
    )
}

/// One instance of three.
pub(in crate::resilience) fn one_of_three(bench: &Bench) -> Result<Section> {
    let answers = of_all(bench, &ANSWERS_503)?;
    let hole = of_all(bench, &BLACK_HOLE)?;
    let node = of_all(bench, &NODE_LOST)?;
    // That 503 is tried again makes no difference to gRPC.
    let grpc = of_all(&bench.some_of([true, true, false]), &GRPC)?;
    let grpc_hole = of_all(&bench.some_of([true, true, false]), &GRPC_HOLE)?;
    let grpc_node = of_all(&bench.some_of([true, true, false]), &GRPC_NODE)?;
    let rows = vec![
        goodput(&ANSWERS_503, "≥ 99.9 %", 0.999, &answers),
        probes_alone(&ANSWERS_503, &answers),
        goodput(&BLACK_HOLE, "≥ 99 %", 0.99, &hole),
        all_good_after(3, &BLACK_HOLE, &hole),
        all_good_after(8, &NODE_LOST, &node),
        last_late(&NODE_LOST, &node),
        goodput(&GRPC, "≥ 99.9 %", 0.999, &grpc),
        probes_alone(&GRPC, &grpc),
        goodput(&GRPC_HOLE, "≥ 99 %", 0.99, &grpc_hole),
        all_good_after(3, &GRPC_HOLE, &grpc_hole),
        all_good_after(8, &GRPC_NODE, &grpc_node),
        last_late(&GRPC_NODE, &grpc_node),
    ];
    let pictured = [
        (&ANSWERS_503, &answers),
        (&BLACK_HOLE, &hole),
        (&NODE_LOST, &node),
    ];
    Ok(Section {
        title: "One of three instances fails",
        how: format!(
            "{RATE} GET/s from four callers to three instances, for five seconds; then one of them fails. Good is an answer 200 (gRPC: status 0) within one second of when the call was due. Nothing is configured, but for gRPC (Weft: a TrafficPolicy with `grpcCodes: [Unavailable]`; Istio tries that again by default) and for the black holes (Weft: `backendRequest: 500ms`; Envoy: `per_try_timeout: 0.5s`)."
        ),
        third: THIRD,
        rows,
        picture: Some(picture(&pictured)),
    })
}

/// The slowest calls of each second, around the failure.
fn picture(outages: &[(&Outage, &[Option<OutageRun>; SYSTEMS])]) -> Picture {
    const SHOWN: Duration = Duration::from_secs(25);
    let shown = |run: &Option<OutageRun>| run.as_ref().map_or(SHOWN, |run| run.time.min(SHOWN));
    let shortest = outages.iter().flat_map(|(_, all)| all.iter().map(shown));
    let time = shortest.min().unwrap_or(SHOWN);
    let names = ["Weft", "Envoy", "Envoy, 503"];
    let panels = outages.iter().map(|(outage, all)| {
        let curve = |(name, run): (&str, &Option<OutageRun>)| {
            let run = run.as_ref()?;
            let of = |second: &[Sample]| judge::quantile(second, 0.99).as_secs_f64() * 1e3;
            let curve = judge::each_second(&run.samples, time, of);
            Some((name.to_owned(), curve))
        };
        Panel {
            title: format!("{}: p99, ms", outage.name),
            curves: names.into_iter().zip(*all).filter_map(curve).collect(),
            bound: None,
        }
    });
    Picture {
        file: "resilience-latency.svg",
        title: "Latency around the failure of one instance of three, which begins after 5 s",
        unit: "s",
        sizes: (0..time.as_secs()).map(|second| second as f64).collect(),
        panels: panels.collect(),
    }
}

/// All fail a little: none is worse than the others.
pub(in crate::resilience) fn all_fail_a_little(bench: &Bench) -> Result<Section> {
    const FOUR: [Pod; 8] = [
        PODS[0],
        PODS[1],
        PODS[2],
        PODS[3],
        PODS[4],
        PODS[5],
        PODS[6],
        Pod::of("web", "web-4", Behaviour::Answers),
    ];
    let all = bench.each(MORE, |mesh| {
        eprintln!("all fail a little: {}", mesh.name());
        let mut scenario = bench.start(mesh, &FOUR, ASKED_NOTHING)?;
        scenario.apps_of("web").for_each(|app| app.fail(30));
        let load = Load {
            rate: RATE,
            time: bench.seconds(20),
            patience: PATIENCE,
            call: get,
        };
        let callers = scenario.load(shared(load, CALLERS), false, |_, _| Ok(()))?;
        let rested = scenario.counted("weft_ejections_total", &[])?;
        // Without any, a sum of these numbers begins with -0.
        let rested = rested.iter().fold(0.0, |all, one| all + one);
        Ok((judge::good(&judge::all(&callers)), rested))
    })?;
    let rows = vec![
        row(
            "times that an endpoint rested".to_owned(),
            "0",
            &all,
            |(_, rested)| format!("{rested:.0}"),
            |(_, rested)| *rested == 0.0,
        ),
        row(
            "good calls".to_owned(),
            "",
            &all,
            |(good, _)| percent(*good),
            |_| true,
        ),
    ];
    Ok(Section {
        title: "All four instances fail 30 %",
        how: format!(
            "{RATE} GET/s from four callers to four instances, of whose answers 30 % are 503, in no order. None is worse than the others, so ejecting one helps no caller. Envoy's outlier detection is off in Istio's defaults."
        ),
        third: THIRD,
        rows,
        picture: None,
    })
}
