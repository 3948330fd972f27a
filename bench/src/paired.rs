//! Whether a proxy costs more than the one before, as exactly as a shared machine can
//! tell: `weft-bench paired`, `make bench-paired PREVIOUS=older`.
//!
//! A round measures the older proxy, the newer one and the older one again under
//! another name, then the three in the opposite order, so that whatever drifts evenly
//! while the round lasts weighs on all alike. Each round gives one difference per
//! measure. The older proxy against itself is the control: what it shows is noise, and
//! a run whose control misses a bound proves nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::book::Book;
use crate::interval::{Interval, LEAST_ROUNDS};
use crate::measures::{self, Must};
use crate::plan::{Arguments, Plan};
use crate::report;
use crate::round::{self, Gaps};
use crate::saved_rounds::SavedRounds;
use crate::standing_in::Authority;
use crate::system::{System, SystemKind};

const OLDER: &str = "older";
const NEWER: &str = "newer";
const CONTROL: &str = "older-again";
/// One way there; a round goes it back as well.
const ORDER: [&str; 3] = [OLDER, NEWER, CONTROL];
/// A measure is missed when its interval lies above this share.
const SHARE: f64 = 0.02;
/// And one of CPU time when it lies above so many microseconds: without any policy a request
/// may cost both proxies together so much more than before.
const MICROS: f64 = 1.0;
/// Measures that one short round cannot tell: a single start, pages of memory that
/// depend on it, the farthest tail.
const NOT_PAIRED: [&str; 4] = ["start", "p999-1000", "p999-4000", "mem-conn"];

/// By how much `after` is worse than `before`, as a share of it.
fn worse(measure: &str, before: f64, after: f64) -> f64 {
    if more_is_better(measure) {
        before / after - 1.0
    } else {
        after / before - 1.0
    }
}

fn more_is_better(measure: &str) -> bool {
    measure.ends_with("-rate") || measure.starts_with("rps-") || measure.starts_with("conn-")
}

/// What one round found of a measure: of the older proxy, and of another one.
#[derive(Clone, Copy, Debug)]
struct Pair {
    older: f64,
    other: f64,
}

/// One way to look at the pairs of a measure, and its bound.
#[derive(Clone, Copy, Debug)]
enum Judge {
    Share,
    Micros,
}

impl Judge {
    fn all_of(measure: &str) -> &'static [Self] {
        if measure.starts_with("cpu-") {
            &[Self::Share, Self::Micros]
        } else {
            &[Self::Share]
        }
    }

    /// In percent, or in microseconds.
    const fn bound(self) -> f64 {
        match self {
            Self::Share => SHARE * 100.0,
            Self::Micros => MICROS,
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Share => "%",
            Self::Micros => "µs",
        }
    }

    /// By how much the others are worse, in the same unit.
    fn interval(self, measure: &str, pairs: &[Pair]) -> Option<Interval> {
        let by = |pair: &Pair| match self {
            Self::Share => worse(measure, pair.older, pair.other) * 100.0,
            Self::Micros => pair.other - pair.older,
        };
        Interval::of(&pairs.iter().map(by).collect::<Vec<_>>())
    }

    fn misses(self, measure: &str, pairs: &[Pair]) -> bool {
        let interval = self.interval(measure, pairs);
        interval.is_some_and(|interval| interval.misses(self.bound()))
    }
}

/// What the rounds gave, by measure.
#[derive(Debug, Default)]
struct Differences {
    newer: BTreeMap<&'static str, Vec<Pair>>,
    control: BTreeMap<&'static str, Vec<Pair>>,
    /// Figures of the older proxy, to show what the shares are shares of.
    older: Book,
}

impl Differences {
    /// Takes one round, which measured each proxy once in each direction.
    fn take(&mut self, round: &Book) {
        for (_, rows) in measures::SECTIONS {
            for row in *rows {
                let figure = |system| round.spread(row.id, system).map(|two| two.median);
                let Some(older) = figure(OLDER).filter(|_| !NOT_PAIRED.contains(&row.id)) else {
                    continue;
                };
                self.older.note(row.id, OLDER, older);
                for (system, all) in [(NEWER, &mut self.newer), (CONTROL, &mut self.control)] {
                    if let Some(other) = figure(system) {
                        let pairs = all.entry(row.id).or_default();
                        pairs.push(Pair { older, other });
                    }
                }
            }
        }
    }
}

/// # Errors
/// When a call failed, too few rounds were whole, the control missed a bound, or the
/// newer proxy did.
pub(crate) fn run(arguments: &Arguments, shared: &Path) -> Result<()> {
    let older = arguments
        .previous
        .as_ref()
        .context("PREVIOUS= is missing: the older weft-proxy")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let plan = Plan::of(arguments);
    let deadline = Instant::now() + plan.at_most;
    let authority = Arc::new(Authority::new()?);
    let mut systems = Vec::new();
    for name in ORDER {
        let binary = if name == NEWER {
            &arguments.proxy
        } else {
            older
        };
        systems.push(System::new(
            name,
            SystemKind::Weft(binary.clone()),
            &arguments.proxy,
            &arguments.nginx,
            &authority,
            shared,
        )?);
    }
    fs::create_dir_all(&arguments.out)?;
    let measures = arguments.measures.as_deref();
    let mut kept = SavedRounds::of(&arguments.out, [older, &arguments.proxy], measures)?;
    let mut differences = Differences::default();
    let before = kept.rounds(&ORDER)?;
    before.iter().for_each(|book| differences.take(book));
    let completed = before.len();
    let mut rounds = completed;
    for number in completed..plan.rounds {
        let Some(book) = there_and_back(&mut systems, &plan, number, deadline)? else {
            eprintln!("out of time after {rounds} rounds of {}", plan.rounds);
            break;
        };
        kept.add(&book, &ORDER)?;
        differences.take(&book);
        rounds += 1;
    }
    let load_before = load.split(' ').next().unwrap_or_default();
    let text = text(&differences, rounds, &arguments.versions, load_before);
    fs::write(arguments.out.join("PAIRED.md"), &text)?;
    println!("{text}");
    judge(&differences)
}

/// One round; `None` when its time is over.
fn there_and_back(
    systems: &mut [System],
    plan: &Plan,
    number: usize,
    deadline: Instant,
) -> Result<Option<Book>> {
    let mut book = Book::default();
    let there = 0..systems.len();
    // The first of one round comes last in the next.
    let order: Vec<usize> = if number.is_multiple_of(2) {
        there.clone().chain(there.rev()).collect()
    } else {
        there.clone().rev().chain(there).collect()
    };
    for index in order {
        let Some(system) = systems.get_mut(index) else {
            continue;
        };
        eprintln!("round {} of {}: {}", number + 1, plan.rounds, system.name);
        let mut gaps = Gaps::default();
        round::run(system, plan, number, deadline, &mut book, &mut gaps)?;
        // Three pairs side by side would share what one of them leaves idle.
        system.stop_pair();
        if !gaps.out_of_time.is_empty() {
            return Ok(None);
        }
        ensure!(gaps.failed.is_empty(), "{}", gaps.failed.join("; "));
    }
    Ok(Some(book))
}

/// # Errors
/// When a bound is missed, after a line for each, or the older proxy misses one against itself.
fn judge(differences: &Differences) -> Result<()> {
    ensure!(
        differences
            .newer
            .values()
            .any(|each| each.len() >= LEAST_ROUNDS),
        "fewer than {LEAST_ROUNDS} rounds say nothing"
    );
    let noise = missed(&differences.control);
    ensure!(
        noise.is_empty(),
        "the older proxy is worse than itself in {}: this run says nothing",
        noise.join(", ")
    );
    let worse = missed(&differences.newer);
    for one in &worse {
        eprintln!("missed: {one}");
    }
    if !worse.is_empty() {
        bail!("worse than before: {}", worse.join(", "));
    }
    Ok(())
}

/// Each measure that misses a bound, with the bound.
fn missed(all: &BTreeMap<&'static str, Vec<Pair>>) -> Vec<String> {
    let mut missed = Vec::new();
    for (id, pairs) in all {
        for judge in Judge::all_of(id) {
            if judge.misses(id, pairs) {
                let (bound, unit) = (judge.bound(), judge.unit());
                missed.push(format!("{id} by more than {bound} {unit}"));
            }
        }
    }
    missed
}

fn text(differences: &Differences, rounds: usize, versions: &str, load_before: &str) -> String {
    let share = SHARE * 100.0;
    let mut text = format!(
        "# The proxy against the one before\n\n\
         {} {rounds} rounds, each older, newer, older again and the same backwards; how much worse than the older one, \
         as the median of the rounds with its 95 % interval. Missed is what lies above {share:.0} % with its whole \
         interval, and of CPU time what lies above {MICROS:.0} µs; met is what lies below with all of it. The older one \
         against itself shows the noise. {versions}\n\n\
         | measure | older | newer, worse by | older again, worse by |\n|---|---|---|---|\n",
        report::written_by("make bench-paired", load_before)
    );
    for (section, rows) in measures::SECTIONS {
        for row in *rows {
            let Some(newer) = differences.newer.get(row.id) else {
                continue;
            };
            let before = differences.older.median(row.id, OLDER).unwrap_or_default();
            let _ = writeln!(
                text,
                "| {section}: {}{} | {before:.*} {} | {} | {} |",
                row.title,
                if row.must == Must::Shown { "" } else { " (*)" },
                row.decimals.max(1),
                row.unit,
                shown(row.id, newer),
                differences
                    .control
                    .get(row.id)
                    .map_or_else(String::new, |each| shown(row.id, each)),
            );
        }
    }
    text.push_str("\n(*) has a bound of its own beside Envoy, see RESULTS.md.\n");
    text
}

/// A line for each bound of the measure.
fn shown(measure: &str, pairs: &[Pair]) -> String {
    let line = |judge: &Judge| {
        let interval = judge.interval(measure, pairs);
        interval.map_or_else(
            || format!("{} rounds only", pairs.len()),
            |interval| {
                let Interval { low, median, high } = interval;
                let (unit, verdict) = (judge.unit(), interval.verdict(judge.bound()));
                format!("{median:+.1} {unit} ({low:+.1} to {high:+.1}) {verdict}")
            },
        )
    };
    let lines = Judge::all_of(measure).iter().map(line);
    lines.collect::<Vec<_>>().join("<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(older: [f64; 2], newer: [f64; 2], control: [f64; 2]) -> Book {
        let mut book = Book::default();
        for (system, both) in [(OLDER, older), (NEWER, newer), (CONTROL, control)] {
            both.iter()
                .for_each(|one| book.note("cpu-c32", system, *one));
        }
        book
    }

    fn rounds(make: impl Fn(f64) -> Book) -> Differences {
        let mut differences = Differences::default();
        (0..20).for_each(|number| differences.take(&make(f64::from(number))));
        differences
    }

    #[test]
    fn what_drifts_while_a_round_lasts_is_no_difference() {
        let drift = rounds(|at| {
            let base = 40.0 + at;
            round(
                [base, base + 5.0],
                [base + 1.0, base + 4.0],
                [base + 2.0, base + 3.0],
            )
        });
        assert!(judge(&drift).is_ok());
        let apart = |pair: &Pair| (pair.other - pair.older).abs();
        assert!(drift.newer["cpu-c32"].iter().all(|pair| apart(pair) < 1e-9));
    }

    #[test]
    fn constant_three_percent_increase_is_missed_but_noise_passes() {
        let worse = rounds(|_| round([40.0; 2], [41.2; 2], [40.0; 2]));
        let error = judge(&worse).unwrap_err().to_string();
        assert_eq!(
            error,
            "worse than before: cpu-c32 by more than 2 %, cpu-c32 by more than 1 µs"
        );
        let noise = rounds(|at| {
            let newer = if at % 2.0 == 0.0 { 38.0 } else { 42.0 };
            round([40.0; 2], [newer; 2], [40.0; 2])
        });
        assert!(judge(&noise).is_ok());
    }

    #[test]
    fn only_cpu_time_has_additional_bound_in_microseconds() {
        // 1.6 of 200 are less than a hundredth.
        let worse = rounds(|_| round([200.0; 2], [201.6; 2], [200.0; 2]));
        let error = judge(&worse).unwrap_err().to_string();
        assert_eq!(error, "worse than before: cpu-c32 by more than 1 µs");
        let cell = shown("cpu-c32", &worse.newer["cpu-c32"]);
        assert_eq!(
            cell,
            "+0.8 % (+0.8 to +0.8) met<br>+1.6 µs (+1.6 to +1.6) **missed**"
        );
        let pairs = [Pair {
            older: 1000.0,
            other: 998.0,
        }; 20];
        assert_eq!(shown("rps-c32", &pairs), "+0.2 % (+0.2 to +0.2) met");
    }

    #[test]
    fn a_control_that_misses_makes_the_run_worthless() {
        let error = judge(&rounds(|_| round([40.0; 2], [44.0; 2], [44.0; 2])));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("says nothing"), "{error}");
        let error = judge(&Differences::default()).unwrap_err().to_string();
        assert!(error.contains("say nothing"), "{error}");
    }

    #[test]
    fn page_states_date_command_machine_and_commit() {
        let differences = rounds(|_| round([40.0; 2], [40.0; 2], [40.0; 2]));
        let said = || report::written_by("make bench-paired", "0.53");
        let before = said();
        let page = text(&differences, 20, "nginx 1.22.1", "0.53");
        // Midnight may pass.
        let after = said();
        let says = |said: &String| page.contains(said.as_str());
        assert!([before, after].iter().any(says), "{page}");
        assert!(page.contains(" 20 rounds,") && page.contains(" nginx 1.22.1\n"));
        // Control: another load.
        assert!(!page.contains("before the run 0.54"));
    }

    #[test]
    fn fewer_requests_per_second_are_worse() {
        assert!((worse("rps-c32", 100.0, 50.0) - 1.0).abs() < 1e-9);
        assert!((worse("tcp-rate", 1.0, 2.0) + 0.5).abs() < 1e-9);
        assert!((worse("cpu-c32", 10.0, 11.0) - 0.1).abs() < 1e-9);
        // The cost of a new connection, and how many there are.
        assert!(!more_is_better("cpu-conn-tcp") && more_is_better("conn-tcp"));
    }
}
