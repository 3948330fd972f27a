//! `weft-bench` measures what the proxy adds: no proxy, a pair of Envoys and a
//! pair of Weft's proxies between the same client and the same server, in
//! turns, on one machine in one run. `make bench` and `make bench-quick` start it.
//! `weft-bench draw FOLDER` draws the pictures of the report there once more.
//! `weft-bench flame` shows where Weft's proxies spend their time (`make flame`),
//! `weft-bench paired` whether they cost more than older ones (`make bench-paired`),
//! `weft-bench eyes` what it costs to look at single requests (`make bench-eyes`),
//! `weft-bench resilience` what callers see when something fails (`make bench-resilience`).

mod book;
mod chart;
mod control;
mod curves;
mod edge;
mod envoy;
mod exchange;
mod eyes;
mod files;
mod flame;
mod grpc;
mod interval;
mod load;
mod load_result;
mod loads;
mod measures;
mod micro;
mod namespaces;
mod paired;
mod plan;
mod proof;
mod provenance;
mod rate;
mod report;
mod resilience;
mod resources;
mod round;
mod saved_rounds;
mod sections;
mod sidecar;
mod standing_in;
mod streams;
mod system;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::book::Book;
use crate::files::Shared;
use crate::plan::{Arguments, Plan, RunKind};
use crate::round::Gaps;
use crate::standing_in::Authority;
use crate::system::{System, SystemKind};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("clean") => namespaces::remove_what_dead_runs_left(),
        Some("decisions") => print!("{}", report::decisions(&micro::all()?)),
        Some("draw") => {
            let folder = std::env::args().nth(2).context("weft-bench draw FOLDER")?;
            report::draw(Path::new(&folder))?;
        }
        Some("resilience") => {
            let arguments = resilience::Arguments::read(std::env::args().skip(2))?;
            namespaces::remove_what_dead_runs_left();
            resilience::run(&arguments)?;
        }
        Some("eyes") => {
            let arguments = eyes::Arguments::read(std::env::args().skip(2))?;
            namespaces::remove_what_dead_runs_left();
            eyes::run(&arguments)?;
        }
        Some("flame") => flame::run(&flame::Arguments::read(std::env::args().skip(2))?)?,
        _ => {
            let arguments = Arguments::read(std::env::args().skip(1))?;
            if arguments.kind != RunKind::Paired {
                return compare(&arguments);
            }
            namespaces::remove_what_dead_runs_left();
            paired::run(&arguments, &Shared::new()?.0)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures all systems in turns and writes the report. Fails where something became dearer.
fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let plan = Plan::of(arguments);
    let load = fs::read_to_string("/proc/loadavg")?;
    let deadline = Instant::now() + plan.at_most;
    namespaces::remove_what_dead_runs_left();
    let shared = Shared::new()?;
    let mut systems = systems(arguments, &shared)?;
    let mut book = Book::default();
    let mut measured = measure(&mut systems, &plan, deadline, &mut book);
    note_sizes(&mut book, &systems, arguments.image.as_deref())?;
    drop(systems);
    note_added(&mut book);
    measured.left_out.extend(plan.never().map(str::to_owned));
    let timings = if plan.full { micro::all()? } else { Vec::new() };
    let run = report::Run {
        full: plan.full,
        rounds: measured.complete,
        planned: plan.rounds,
        load_before: load.split(' ').next().unwrap_or_default().to_owned(),
        load_seconds: plan.load.as_secs(),
        rate_seconds: plan.rate.as_secs(),
        bodies_seconds: plan.bodies.as_secs(),
        left_out: measured.left_out,
        failed: measured.failed.into_iter().collect(),
        development_binary: arguments
            .proxy
            .components()
            .any(|part| part.as_os_str() == "debug"),
    };
    let text = report::text(&book, &run, &timings, &arguments.versions);
    report::write(&arguments.out, &text)?;
    println!("{text}");
    let dearer = book.dearer("previous", "weft");
    for (measure, before, after) in &dearer {
        let unit = measures::unit(measure);
        eprintln!("regression: {measure} rose from {before:.2} to {after:.2} {unit}");
    }
    run.complete()?;
    Ok(if dearer.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Those that take part, each with its servers, without a proxy yet.
fn systems(arguments: &Arguments, shared: &Shared) -> Result<Vec<System>> {
    let authority = Arc::new(Authority::new()?);
    let mut kinds = vec![
        ("direct", SystemKind::Direct),
        ("envoy", SystemKind::Envoy(arguments.envoy.clone())),
        ("weft", SystemKind::Weft(arguments.proxy.clone())),
    ];
    if let Some(previous) = &arguments.previous {
        kinds.push(("previous", SystemKind::Weft(previous.clone())));
    }
    if let Some(only) = &arguments.only {
        kinds.retain(|(name, _)| only.split(',').any(|one| one == *name));
    }
    let (proxy, nginx) = (&arguments.proxy, &arguments.nginx);
    let system = |(name, kind)| -> Result<System> {
        let mut system = System::new(name, kind, proxy, nginx, &authority, &shared.0)?;
        if name == "weft" {
            system.gateway.clone_from(&arguments.gateway);
        }
        Ok(system)
    };
    kinds.into_iter().map(system).collect()
}

/// What came of the rounds beside the figures.
#[derive(Default)]
struct Measured {
    /// Rounds in which nothing was left out.
    complete: usize,
    left_out: Vec<String>,
    failed: BTreeSet<String>,
}

fn measure(systems: &mut [System], plan: &Plan, deadline: Instant, book: &mut Book) -> Measured {
    let mut measured = Measured::default();
    for round in 0..plan.rounds {
        // The first system meets a machine that has just done something
        // else, so each comes first in turn.
        let begin = round % systems.len().max(1);
        systems.rotate_left(begin);
        let mut complete = true;
        for system in &mut *systems {
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, system.name);
            let mut gaps = Gaps::default();
            if let Err(error) = round::run(system, plan, round, deadline, book, &mut gaps) {
                eprintln!("{}: {error:#}", system.name);
                gaps.failed.push(format!("{}: {error:#}", system.name));
                complete = false;
                system.stop_pair();
            }
            complete &= gaps.out_of_time.is_empty();
            let late = gaps
                .out_of_time
                .iter()
                .map(|what| format!("round {}, {}: {what} (out of time)", round + 1, system.name));
            measured.left_out.extend(late);
            measured.failed.extend(gaps.failed);
        }
        systems.rotate_right(begin);
        measured.complete += usize::from(complete);
    }
    measured
}

/// Sizes of programs and of the image, in MB.
fn note_sizes(book: &mut Book, systems: &[System], image: Option<&Path>) -> Result<()> {
    let megabytes = |path: &Path| anyhow::Ok(fs::metadata(path)?.len() as f64 / 1e6);
    for system in systems {
        if let SystemKind::Envoy(binary) | SystemKind::Weft(binary) = &system.kind {
            book.note("binary", system.name, megabytes(binary)?);
        }
    }
    if let Some(image) = image {
        book.note("image", "weft", megabytes(image)?);
    }
    Ok(())
}

/// What proxies add to the median of a call.
fn note_added(book: &mut Book) {
    let Some(direct) = book.median("p50-1000", "direct") else {
        return;
    };
    for system in ["envoy", "weft", "previous"] {
        if let Some(p50) = book.median("p50-1000", system) {
            book.note("p50-1000-added", system, p50 - direct);
        }
    }
}
