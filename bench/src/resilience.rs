//! `weft-bench resilience`: what callers see when instances fail, when a dependency is down
//! and when a server is asked for too much, with Weft and with Envoy as Istio sets it up, on
//! one machine in one run. `make bench-resilience` starts it.
//!
//! Here a failed call is no failed measurement: how many of them there are is what is
//! measured. A proxy that ends, or refuses its configuration, is one.

mod application;
mod client;
mod cluster;
mod envoy;
mod generator;
mod judge;
mod network;
mod page;
mod points;
mod scenario;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::files::Shared;
use points::outage::{self, once};
use points::{Bench, Section, chain, overload, zones};

/// The command line.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    proxy: PathBuf,
    envoy: PathBuf,
    /// Folder for the page.
    out: PathBuf,
    versions: String,
    /// Only these points, by their numbers.
    points: Option<Vec<usize>>,
    /// Only these columns, by their numbers.
    columns: Option<Vec<usize>>,
    short: bool,
}

impl Arguments {
    /// # Errors
    /// An argument that is unknown or missing.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let (mut proxy, mut envoy, mut out) = (None, None, None);
        let (mut versions, mut points, mut columns) = (String::new(), None, None);
        let mut short = false;
        for argument in arguments {
            match argument.split_once('=') {
                Some(("--proxy", path)) => proxy = Some(PathBuf::from(path)),
                Some(("--envoy", path)) => envoy = Some(PathBuf::from(path)),
                Some(("--out", path)) => out = Some(PathBuf::from(path)),
                Some(("--versions", text)) => text.clone_into(&mut versions),
                Some(("--points", numbers)) => points = Some(read(numbers)?),
                Some(("--columns", numbers)) => columns = Some(read(numbers)?),
                None if argument == "--short" => short = true,
                _ => bail!("{argument:?} is not understood"),
            }
        }
        Ok(Self {
            proxy: proxy.context("--proxy= is missing")?,
            envoy: envoy.context("--envoy= is missing")?,
            out: out.context("--out= is missing")?,
            versions,
            points,
            columns,
            short,
        })
    }
}

/// Numbers with commas between them.
fn read(numbers: &str) -> Result<Vec<usize>> {
    let read = numbers.split(',').map(str::parse::<usize>);
    let read = read.collect::<Result<Vec<_>, _>>();
    read.with_context(|| format!("{numbers:?} are no numbers"))
}

/// Whether this one was asked for; where nothing was, all of them are.
fn wanted(numbers: Option<&Vec<usize>>, number: usize) -> bool {
    numbers.is_none_or(|numbers| numbers.contains(&number))
}

type Point = fn(&Bench) -> Result<Section>;

/// Each of them by itself.
const POINTS: [Point; 6] = [
    outage::one_of_three,
    once::seen_by_one,
    chain::last_hop_down,
    overload::three_times,
    outage::all_fail_a_little,
    zones::own_zone_first,
];

/// Those of them that were asked for, with their numbers.
fn chosen(numbers: Option<&Vec<usize>>) -> impl Iterator<Item = (usize, Point)> {
    let all = (1..).zip(POINTS);
    all.filter(move |(number, _)| wanted(numbers, *number))
}

/// Measures, and writes the page with its pictures.
///
/// # Errors
/// When something could not be measured, or a bound was missed; that is on the page as well.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let shared = Shared::new()?;
    let bench = Bench {
        weft: arguments.proxy.clone(),
        envoy: arguments.envoy.clone(),
        folder: shared.0.clone(),
        short: arguments.short,
        columns: [1, 2, 3].map(|number| wanted(arguments.columns.as_ref(), number)),
    };
    let mut sections = Vec::new();
    for (_, point) in chosen(arguments.points.as_ref()) {
        sections.push(point(&bench)?);
    }
    let text = page::text(&page::Run {
        sections: &sections,
        versions: &arguments.versions,
        load_before: load.split(' ').next().unwrap_or_default(),
        minutes: began.elapsed().as_secs().div_ceil(60),
        short: arguments.short,
        partial: arguments.points.is_some() || arguments.columns.is_some(),
    });
    page::write(&arguments.out, &text, &sections)?;
    println!("{text}");
    check_bounds(&page::shortfalls(&sections), arguments.short)
}

/// # Errors
/// When bounds were missed, after a line for each. A short run is too short for some of them,
/// and fails for none.
fn check_bounds(shortfalls: &[String], short: bool) -> Result<()> {
    for one in shortfalls {
        eprintln!("missed: {one}");
    }
    let missed = shortfalls.len();
    ensure!(short || missed == 0, "missed bounds: {missed}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Arguments, POINTS, check_bounds, chosen};

    #[test]
    fn points_are_chosen_by_their_numbers() {
        let line = ["--proxy=p", "--envoy=e", "--out=o", "--points=1,4"];
        let read = Arguments::read(line.map(str::to_owned)).unwrap();
        let numbers = |points: Option<&Vec<usize>>| -> Vec<usize> {
            chosen(points).map(|(number, _)| number).collect()
        };
        assert_eq!(numbers(read.points.as_ref()), [1, 4]);
        let all: Vec<_> = (1..=POINTS.len()).collect();
        assert_eq!(numbers(None), all);
        assert_eq!(read.columns, None);
        assert!(Arguments::read(["--points=one".to_owned()]).is_err());
    }

    #[test]
    fn missed_bound_fails_only_complete_run() {
        let missed = ["Overload: good calls: 12 %".to_owned()];
        let error = check_bounds(&missed, false).unwrap_err().to_string();
        assert_eq!(error, "missed bounds: 1");
        assert!(check_bounds(&missed, true).is_ok());
        assert!(check_bounds(&[], false).is_ok());
    }
}
