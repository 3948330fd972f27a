//! What it costs that single requests can be looked at, and that policies apply to them:
//! `weft-bench eyes`, `make bench-eyes`.
//!
//! One pair of proxies serves the same load without any of that, with one of it twice, and
//! without again; how much dearer the two in the middle were is one difference, in which
//! even drift weighs nothing. Each round takes one of each row, so that what a machine does
//! beside it meets all alike. A row is missed when the whole 95 % interval of the median
//! difference lies above its bound. The first row changes nothing and shows the noise: a run
//! in which it is missed proves nothing.
//!
//! That a proxy costs no more than before without any of this is measured by `paired`.

mod collector;
mod rows;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use policy::traffic::Section;

use self::rows::{Load, Of, ROWS, Row, Unit};
use crate::control::{Controller, Extra};
use crate::files::Shared;
use crate::interval::{Interval, LEAST_ROUNDS};
use crate::load;
use crate::report;
use crate::sidecar::{self, WEFT_ADMIN};
use crate::system::{Port, System};

/// Differences of each row, unless the command line sets others.
const PAIRS: usize = 20;
/// One load.
const TIME: Duration = Duration::from_secs(2);
/// A proxy has its configuration, and has sent its last reports, far sooner.
const SETTLE: Duration = Duration::from_millis(300);
/// How long everything is recorded for a collector that never answers, at so many requests
/// in a second, and what a proxy may hold more after it.
const LOST: Duration = Duration::from_secs(30);
const LOST_RATE: u32 = 2000;
const LOST_MIB: f64 = 4.0;

/// The command line behind `eyes`.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    proxy: PathBuf,
    nginx: PathBuf,
    /// Folder for the page.
    out: PathBuf,
    pairs: usize,
    /// Only rows whose name holds this are measured, beside the noise.
    rows: String,
}

impl Arguments {
    /// # Errors
    /// An argument that is unknown or missing.
    pub(crate) fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let (mut proxy, mut nginx, mut out, mut pairs) = (None, None, None, PAIRS);
        let mut rows = String::new();
        for argument in arguments {
            match argument.split_once('=') {
                Some(("--proxy", path)) => proxy = Some(PathBuf::from(path)),
                Some(("--nginx", path)) => nginx = Some(PathBuf::from(path)),
                Some(("--out", path)) => out = Some(PathBuf::from(path)),
                Some(("--rows", text)) => rows = text.to_owned(),
                Some(("--pairs", count)) => {
                    pairs = count.parse().with_context(|| argument.clone())?;
                    ensure!(pairs >= LEAST_ROUNDS, "{argument}: {LEAST_ROUNDS} at least");
                }
                _ => bail!("{argument:?} is not understood"),
            }
        }
        Ok(Self {
            proxy: proxy.context("--proxy= is missing")?,
            nginx: nginx.context("--nginx= is missing")?,
            out: out.context("--out= is missing")?,
            pairs,
            rows,
        })
    }
}

/// # Errors
/// When a call failed, nothing was recorded or shown, the noise misses its bound, or a row
/// does. Of chosen rows no page is written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let shared = Shared::new()?;
    let mut system = System::weft(&arguments.proxy, &arguments.nginx, &shared.0)?;
    system.start_plain(&arguments.nginx, &shared.0)?;
    let controller = system.controller.clone().context("no controller")?;
    let taken = collector::collect(&system.namespaces)?;
    system.start_pair()?;
    let mut differences: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for pair in 0..arguments.pairs {
        eprintln!("round {} of {}", pair + 1, arguments.pairs);
        let chosen = |(at, row): &(usize, &Row)| *at == 0 || row.what.contains(&arguments.rows);
        for (at, row) in ROWS.iter().enumerate().filter(chosen) {
            let difference = row.difference(&mut system, &controller);
            let difference = difference.with_context(|| row.what)?;
            differences.entry(at).or_default().push(difference);
        }
    }
    if !arguments.rows.is_empty() {
        ensure!(
            differences.len() > 1,
            "no row's name holds {:?}",
            arguments.rows
        );
        for (at, all) in &differences {
            print!("{}", line(&ROWS[*at], all));
        }
        return judge(&differences, None);
    }
    ensure!(
        taken.load(Ordering::Relaxed) > 0,
        "no span came to the collector"
    );
    ensure!(controller.shown() > 0, "no tap showed a request");
    let lost = lost(&mut system, &controller)?;
    let load_before = load.split(' ').next().unwrap_or_default();
    let text = text(&differences, lost, load_before);
    fs::create_dir_all(&arguments.out)?;
    fs::write(arguments.out.join("WATCHED.md"), &text)?;
    println!("{text}");
    judge(&differences, Some(lost))
}

impl Row {
    /// How much dearer a request is with the row's setting: without, with, with, without.
    fn difference(&self, system: &mut System, controller: &Controller) -> Result<f64> {
        let mut cost = |extra| self.cost(system, controller, extra);
        let first = cost(Extra::Nothing)?;
        let with = cost(self.extra)? + cost(self.extra)?;
        let without = first + cost(Extra::Nothing)?;
        Ok(match self.unit {
            Unit::Micros => (with - without) / 2.0,
            Unit::Percent => (with / without - 1.0) * 100.0,
        })
    }

    /// Microseconds of CPU time for each request.
    fn cost(&self, system: &mut System, controller: &Controller, extra: Extra) -> Result<f64> {
        controller.send_extra(extra);
        thread::sleep(SETTLE);
        if extra == Extra::Policies {
            policies_in_force(system)?;
        }
        let before = self.of.cpu(system)?;
        let requests = match self.load {
            Load::Full => full(system, Port::Http1)?,
            Load::Plain => full(system, Port::Plain)?,
            // As many requests, however few come in a second.
            Load::Rate(rate) => load::fixed(system, rate, TIME * (4000 / rate).max(1))?.sent as f64,
        };
        let used = self.of.cpu(system)?.saturating_sub(before);
        system.pair_alive()?;
        Ok(used.as_secs_f64() * 1e6 / requests)
    }
}

/// So many requests were answered, as fast as they go.
fn full(system: &System, port: Port) -> Result<f64> {
    Ok(load::wrk(system, port, "/bench", 32, TIME, true)?.requests)
}

/// # Errors
/// When the client's proxy goes by no policy, which would cost nothing.
fn policies_in_force(system: &System) -> Result<()> {
    let page = sidecar::page(&system.namespaces.client, WEFT_ADMIN, "/traffic")?;
    let last = format!("\"{}\"", Section::Overrides);
    ensure!(page.contains(&last), "no policy is in force: {page}");
    Ok(())
}

impl Of {
    fn cpu(self, system: &System) -> Result<Duration> {
        let pair = system.pair.as_ref().context("no proxy runs")?;
        let client = pair.client.cpu()?;
        Ok(match self {
            Self::Pair => client + pair.server.cpu()?,
            Self::Client => client,
        })
    }
}

/// MiB that one of the proxies holds more, after all was recorded without a collector. No
/// request fails meanwhile.
fn lost(system: &mut System, controller: &Controller) -> Result<f64> {
    eprintln!("a collector that never answers");
    system.start_pair()?;
    // What a proxy needs once for such a load is there then.
    load::fixed(system, LOST_RATE, LOST / 3)?;
    let before = residents(system)?;
    controller.send_extra(Extra::Traces {
        share: 1_000_000,
        lost: true,
    });
    load::fixed(system, LOST_RATE, LOST)?;
    let after = residents(system)?;
    system.pair_alive()?;
    let grown = |at: usize| (after[at] - before[at]) / 1024.0;
    Ok(grown(0).max(grown(1)))
}

/// KiB of both proxies.
fn residents(system: &System) -> Result<[f64; 2]> {
    let pair = system.pair.as_ref().context("no proxy runs")?;
    Ok([
        pair.client.resident()? as f64,
        pair.server.resident()? as f64,
    ])
}

/// `lost` is the memory for a collector that never answers, if that was measured.
///
/// # Errors
/// When a row is missed, after a line for each, or the noise.
fn judge(differences: &BTreeMap<usize, Vec<f64>>, lost: Option<f64>) -> Result<()> {
    let mut missed = missed(differences)?;
    if let Some(lost) = lost.filter(|lost| *lost > LOST_MIB) {
        missed.push(format!(
            "memory for a collector that never answers: {lost:+.1} MiB, and must be \
             {LOST_MIB} MiB at most"
        ));
    }
    for one in &missed {
        eprintln!("missed: {one}");
    }
    ensure!(missed.is_empty(), "missed bounds: {}", missed.len());
    Ok(())
}

/// One line for each row whose bound is missed.
///
/// # Errors
/// When the noise misses its own, or nothing was measured.
fn missed(differences: &BTreeMap<usize, Vec<f64>>) -> Result<Vec<String>> {
    ensure!(!differences.is_empty(), "nothing was measured");
    let mut missed = Vec::new();
    for (at, all) in differences {
        let row = &ROWS[*at];
        let interval = Interval::of(all).with_context(|| {
            let count = all.len();
            format!("{count} differences say nothing: {}", row.what)
        })?;
        if interval.misses(row.bound) {
            ensure!(
                *at > 0,
                "a proxy is dearer than itself by more than {}: this run says nothing",
                row.bound
            );
            let (unit, bound) = (row.unit.name(), row.bound);
            missed.push(format!(
                "{}: {:+.2} {unit} at least, and must be {bound} {unit} at most",
                row.what, interval.low
            ));
        }
    }
    Ok(missed)
}

fn text(differences: &BTreeMap<usize, Vec<f64>>, lost: f64, load_before: &str) -> String {
    let mut text = format!(
        "# What it costs to look at single requests, and to go by policies\n\n\
         {} CPU time for each request with what the row says, above that of the same proxies a moment before and \
         after: the median of {} differences with its 95 % interval. Missed is what lies above its bound with its whole \
         interval, and met what lies below with all of it.\n\n\
         | what | bound | found | |\n|---|---|---|---|\n",
        report::written_by("make bench-eyes", load_before),
        differences.values().map(Vec::len).min().unwrap_or_default()
    );
    for (at, row) in ROWS.iter().enumerate() {
        let all = differences.get(&at).map(Vec::as_slice).unwrap_or_default();
        text.push_str(&line(row, all));
    }
    let verdict = if lost > LOST_MIB { "**missed**" } else { "met" };
    let _ = writeln!(
        text,
        "| all recorded at {LOST_RATE} requests/s for a collector that never answers, {} s, memory of a proxy | \
         {LOST_MIB} MiB | {lost:+.1} MiB | {verdict} |",
        LOST.as_secs()
    );
    text
}

fn line(row: &Row, all: &[f64]) -> String {
    let unit = row.unit.name();
    let (found, verdict) = match Interval::of(all) {
        None => (format!("{} differences only", all.len()), ""),
        Some(interval) => {
            let Interval { low, median, high } = interval;
            let found = format!("{median:+.2} {unit} ({low:+.2} to {high:+.2})");
            (found, interval.verdict(row.bound))
        }
    };
    format!(
        "| {} | {} {unit} | {found} | {verdict} |\n",
        row.what, row.bound
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance;

    fn differences(of: impl Fn(usize) -> f64) -> BTreeMap<usize, Vec<f64>> {
        let all = |at| -> Vec<f64> { (0..20).map(|_| of(at)).collect() };
        (0..ROWS.len()).map(|at| (at, all(at))).collect()
    }

    #[test]
    fn row_above_bound_is_missed_and_noise_invalidates_run() {
        assert!(judge(&differences(|at| ROWS[at].bound), Some(0.0)).is_ok());
        let dear = differences(|at| if at == 3 { 17.0 } else { 0.0 });
        let error = missed(&dear).unwrap();
        assert_eq!(error.len(), 1);
        let [what, found] = [ROWS[3].what, "+17.00 µs at least"];
        assert!(
            error[0].contains(what) && error[0].contains(found),
            "{error:?}"
        );
        let error = judge(&dear, Some(0.0)).unwrap_err().to_string();
        assert_eq!(error, "missed bounds: 1");
        assert!(text(&dear, 0.0, "0.5").contains("| **missed** |"));
        let noise = differences(|_| 20.0);
        let error = judge(&noise, Some(0.0)).unwrap_err().to_string();
        assert!(error.contains("says nothing"), "{error}");
        assert!(judge(&differences(|_| 0.0), Some(4.5)).is_err());
        assert!(judge(&BTreeMap::new(), None).is_err());
    }

    #[test]
    fn page_states_date_command_machine_and_commit() {
        let today = || time::OffsetDateTime::now_utc().date();
        let (started, page) = (today(), text(&differences(|_| 0.0), 0.0, "0.53"));
        // Midnight may pass.
        let dates = [started, today()].map(|day| format!("Written by `make bench-eyes`, {day}. "));
        assert!(dates.iter().any(|date| page.contains(date)), "{page}");
        let machine = format!(
            " Machine: {}; load average before the run 0.53. ",
            provenance::machine()
        );
        assert!(page.contains(&machine), "{page}");
        let commit = provenance::commit(&[]);
        let commit = commit.split(' ').next().unwrap_or_default();
        assert!(page.contains(&format!(" Commit {commit}")), "{page}");
        // Control: a page of another program.
        let other = report::written_by("make bench", "0.53");
        assert!(!dates.iter().any(|date| other.contains(date)), "{other}");
    }

    #[test]
    fn chosen_rows_are_judged_as_all_are() {
        let chosen = |found: f64| BTreeMap::from([(0, vec![0.0; 20]), (4, vec![found; 20])]);
        assert!(judge(&chosen(ROWS[4].bound), None).is_ok());
        assert!(judge(&chosen(ROWS[4].bound + 0.1), None).is_err());
    }
}
