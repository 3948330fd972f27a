//! The last hop of a chain is down: how often it is asked meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Bench, BoundResult, Picture, Row, SYSTEMS, Section, row};
use crate::curves::Panel;
use crate::resilience::application::{Behaviour, METHOD, Next};
use crate::resilience::client::Call;
use crate::resilience::cluster::{Asked, GRPC_PORT, HTTP_PORT, Pod, address};
use crate::resilience::envoy::Extra;
use crate::resilience::generator::Load;
use crate::resilience::judge;
use crate::resilience::scenario::{Mesh, Scenario};

const RATE: f64 = 50.0;
/// Seconds for which all is well, before the outage and after it.
const BEFORE: u64 = 5;
const AFTER: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(5);

fn pods() -> [Pod; 6] {
    let next = |number, host| {
        Behaviour::Asks(Next {
            http: address(number, HTTP_PORT),
            grpc: address(number, GRPC_PORT),
            host,
        })
    };
    [
        Pod::caller("a"),
        Pod::of("b", "b", next(2, "c")),
        Pod::of("c", "c", next(3, "d")),
        Pod::of("d", "d-1", Behaviour::Answers),
        Pod::of("d", "d-2", Behaviour::Answers),
        Pod::of("d", "d-3", Behaviour::Answers),
    ]
}

#[derive(Clone, Copy, Debug)]
struct ChainVariant {
    name: &'static str,
    grpc: bool,
    /// The applications pass on the headers by which the mesh finds what a call belongs to.
    context: bool,
    bound: &'static str,
    most: f64,
}

const HTTP: ChainVariant = ChainVariant {
    name: "HTTP, d answers 503, nothing passed on",
    grpc: false,
    context: false,
    bound: "≤ 1.20",
    most: 1.20,
};
const CONTEXT: ChainVariant = ChainVariant {
    name: "HTTP, d answers 503, `weft-context` and `traceparent` passed on",
    context: true,
    bound: "≤ 1.08",
    most: 1.08,
    ..HTTP
};
const GRPC: ChainVariant = ChainVariant {
    name: "gRPC, d answers 14, nothing passed on",
    grpc: true,
    ..HTTP
};
const GRPC_CONTEXT: ChainVariant = ChainVariant {
    name: "gRPC, d answers 14, `weft-context` and `traceparent` passed on",
    grpc: true,
    ..CONTEXT
};

struct ChainRun {
    /// Requests at d during the outage, for each of a.
    times: f64,
    each_second: Vec<f64>,
    /// The mesh gave contexts to pass on.
    context: bool,
}

impl ChainRun {
    fn of(bench: &Bench, mesh: &Mesh, variant: &ChainVariant) -> Result<Self> {
        eprintln!("chain: {}, {}", variant.name, mesh.name());
        let requested = Asked {
            grpc_unavailable: variant.grpc,
            ..Asked::default()
        };
        let mut scenario = bench.start(mesh, &pods(), requested)?;
        for service in ["b", "c"] {
            scenario.app(service).pass_on(variant.context);
        }
        let (before, outage) = (bench.seconds(BEFORE), bench.seconds(30));
        let time = before + outage + bench.seconds(AFTER);
        let load = Load {
            rate: RATE,
            time,
            patience: PATIENCE,
            call,
        };
        scenario.load(load, variant.grpc, |scenario, begin| {
            for (at, percent) in [(before, 100), (before + outage, 0)] {
                std::thread::sleep((begin + at).saturating_duration_since(Instant::now()));
                fail(scenario, percent);
            }
            Ok(())
        })?;
        let logs: Vec<_> = scenario.apps_of("d").map(|app| app.counted()).collect();
        let during = judge::requests(&logs, before, before + outage);
        Ok(Self {
            times: during / (RATE * outage.as_secs_f64()),
            each_second: judge::per_second(&logs, time),
            context: scenario.apps_of("d").any(|app| app.got_context()),
        })
    }
}

fn fail(scenario: &Scenario, percent: u8) {
    scenario.apps_of("d").for_each(|app| app.fail(percent));
}

/// Of a trace of its own.
fn call(number: u64) -> Call {
    let traceparent = format!("00-{:032x}-{:016x}-01", number + 1, number + 1);
    Call {
        method: "GET",
        path: METHOD,
        headers: vec![("traceparent", traceparent)],
    }
}

pub(in crate::resilience) fn last_hop_down(bench: &Bench) -> Result<Section> {
    const MORE: Extra = Extra {
        retries_503: true,
        adaptive: false,
    };
    let runs = |bench: &Bench, variant: &ChainVariant| {
        bench.each(MORE, |mesh| ChainRun::of(bench, mesh, variant))
    };
    let http = runs(bench, &HTTP)?;
    // Envoy knows nothing of contexts: it would be the same once more.
    let context = runs(&bench.some_of([true, false, false]), &CONTEXT)?;
    // That 503 is tried again makes no difference to gRPC.
    let grpc = runs(&bench.some_of([true, true, false]), &GRPC)?;
    let grpc_context = runs(&bench.some_of([true, false, false]), &GRPC_CONTEXT)?;
    let in_force = gave_context(&context) && gave_context(&grpc_context);
    let rows = [
        variant_row(&HTTP, &http),
        variant_row(&CONTEXT, &context),
        variant_row(&GRPC, &grpc),
        variant_row(&GRPC_CONTEXT, &grpc_context),
    ];
    let verdict = if in_force {
        "Weft's proxies gave the applications a `weft-context`."
    } else {
        "Weft's proxies gave the applications no `weft-context` to pass on, and marks of calls whose retries are spent are not in force: what stands there is what budgets alone do."
    };
    Ok(Section {
        title: "The last of a chain of four is down",
        how: format!(
            "a calls b, b calls c, c calls d, {RATE}/s; one pod each, and three of d, all of which fail for a while. The figure is requests at d for each call of a during the outage: 1.00 without any retries, 27 when each of three callers tries three times. {verdict}"
        ),
        third: "Envoy, 503 tried again too",
        rows: rows.into(),
        picture: Some(picture(&http, &grpc)),
    })
}

/// Whether Weft's proxies gave the last applications something to pass on.
fn gave_context(all: &[Option<ChainRun>; SYSTEMS]) -> bool {
    all[0].as_ref().is_some_and(|seen| seen.context)
}

fn variant_row(variant: &ChainVariant, all: &[Option<ChainRun>; SYSTEMS]) -> Row {
    let mut row = row(
        variant.name.to_owned(),
        variant.bound,
        all,
        |seen| format!("{:.2}", seen.times),
        |seen| seen.times <= variant.most,
    );
    if variant.context && !gave_context(all) && row.bound_result == BoundResult::Missed {
        row.bound_result = BoundResult::NotInForce;
    }
    row
}

fn picture(http: &[Option<ChainRun>; SYSTEMS], grpc: &[Option<ChainRun>; SYSTEMS]) -> Picture {
    let names = ["Weft", "Envoy", "Envoy, 503"];
    let panel = |title: &str, all: &[Option<ChainRun>; SYSTEMS]| Panel {
        title: title.to_owned(),
        curves: names
            .into_iter()
            .zip(all)
            .filter_map(|(name, seen)| Some((name.to_owned(), seen.as_ref()?.each_second.clone())))
            .collect(),
        bound: None,
    };
    let seconds = http[0].as_ref().map_or(0, |seen| seen.each_second.len());
    Picture {
        file: "resilience-outage.svg",
        title: "Requests per second at the last hop; it is down from 5 s on, until 10 s before the end",
        unit: "s",
        sizes: (0..seconds).map(|second| second as f64).collect(),
        panels: vec![panel("HTTP, 503", http), panel("gRPC, UNAVAILABLE", grpc)],
    }
}
