//! Whether a proxy costs more than the one before, as exactly as a shared machine can
//! tell: `weft-bench paired`, `make bench-paired PREVIOUS=older`.
//!
//! A round measures the older proxy, the newer one and the older one again under
//! another name, then the three in the opposite order, so that whatever drifts evenly
//! while the round lasts weighs on all alike. Each round gives one difference per
//! measure. The older proxy against itself is the control: what it shows is noise, and
//! a run whose control misses a bound says nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::book::Book;
use crate::measures::{self, Must};
use crate::plan::{Arguments, Plan};
use crate::round::{self, Gaps};
use crate::saved_rounds::SavedRounds;
use crate::standing_in::Authority;
use crate::system::{Kind, System};

const OLDER: &str = "older";
const NEWER: &str = "newer";
const CONTROL: &str = "older-again";
/// One way there; a round goes it back as well.
const ORDER: [&str; 3] = [OLDER, NEWER, CONTROL];
/// Fewer rounds give an interval that is too wide to say anything.
pub(crate) const LEAST_ROUNDS: usize = 6;
/// A measure is missed when its interval lies above this share.
const BOUND: f64 = 0.02;
/// Measures that one short round cannot tell: a single start, pages of memory that
/// depend on it, the farthest tail.
const NOT_PAIRED: [&str; 4] = ["start", "p999-1000", "p999-4000", "mem-conn"];

/// The middle difference of all rounds, and what it lies between with 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// `None` for fewer than [`LEAST_ROUNDS`] differences.
    ///
    /// The interval of a median by order statistics: it asks nothing of how the
    /// differences are spread but that the rounds do not depend on each other.
    pub(crate) fn of(differences: &[f64]) -> Option<Self> {
        let count = differences.len();
        if count < LEAST_ROUNDS {
            return None;
        }
        let mut sorted = differences.to_vec();
        sorted.sort_by(f64::total_cmp);
        let cut = outside(count);
        let middle = f64::midpoint(*sorted.get((count - 1) / 2)?, *sorted.get(count / 2)?);
        Some(Self {
            low: *sorted.get(cut)?,
            median: middle,
            high: *sorted.get(count - 1 - cut)?,
        })
    }

    fn missed(self) -> bool {
        self.low > BOUND
    }
}

/// How many of `count` sorted differences may be left out on each side so that the rest
/// holds the true median with at least 95 %: of as many fair coins no more heads than
/// that, with at most 2.5 %.
fn outside(count: usize) -> usize {
    const TAIL: f64 = 0.025;
    // The probability of `heads` heads, from none upwards.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut at_most = exactly;
    let mut cut = 0;
    while at_most <= TAIL {
        cut += 1;
        exactly *= (count - cut + 1) as f64 / cut as f64;
        at_most += exactly;
    }
    cut.saturating_sub(1)
}

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

/// What the rounds gave, by measure.
#[derive(Debug, Default)]
struct Differences {
    newer: BTreeMap<&'static str, Vec<f64>>,
    control: BTreeMap<&'static str, Vec<f64>>,
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
                        all.entry(row.id)
                            .or_default()
                            .push(worse(row.id, older, other));
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
            Kind::Weft(binary.clone()),
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
    let begun = before.len();
    let mut rounds = begun;
    for number in begun..plan.rounds {
        let Some(book) = there_and_back(&mut systems, &plan, number, deadline)? else {
            eprintln!("out of time after {rounds} rounds of {}", plan.rounds);
            break;
        };
        kept.add(&book, &ORDER)?;
        differences.take(&book);
        rounds += 1;
    }
    let text = text(&differences, rounds, arguments);
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
    // Whoever comes first in one round comes last in the next.
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

fn judge(differences: &Differences) -> Result<()> {
    let missed = |all: &BTreeMap<&'static str, Vec<f64>>| -> Vec<&'static str> {
        let intervals = all.iter().map(|(id, each)| (*id, Interval::of(each)));
        intervals
            .filter(|(_, interval)| interval.is_some_and(Interval::missed))
            .map(|(id, _)| id)
            .collect()
    };
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
    if !worse.is_empty() {
        bail!("worse than before: {}", worse.join(", "));
    }
    Ok(())
}

fn text(differences: &Differences, rounds: usize, arguments: &Arguments) -> String {
    let bound = BOUND * 100.0;
    let mut text = format!(
        "# The proxy against the one before\n\n\
         Written by `make bench-paired`; do not edit. {rounds} rounds, each older, newer, older again and the same \
         backwards; how much worse than the older one, as the median of the rounds with its 95 % interval. Missed is \
         what lies above {bound:.0} % with its whole interval. The older one against itself shows the noise. {}\n\n\
         | measure | older | newer, worse by | older again, worse by |\n|---|---|---|---|\n",
        arguments.versions
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
                shown(newer),
                differences
                    .control
                    .get(row.id)
                    .map_or_else(String::new, |each| shown(each)),
            );
        }
    }
    text.push_str("\n(*) has a bound of its own beside Envoy, see RESULTS.md.\n");
    text
}

fn shown(differences: &[f64]) -> String {
    Interval::of(differences).map_or_else(
        || format!("{} rounds only", differences.len()),
        |Interval { low, median, high }| {
            let missed = if low > BOUND { " **missed**" } else { "" };
            format!(
                "{:+.1} % ({:+.1} to {:+.1}){missed}",
                median * 100.0,
                low * 100.0,
                high * 100.0
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_twenty_rounds_leaves_out_five_on_each_side() {
        // What tables of the binomial distribution say.
        for (rounds, cut) in [(6, 0), (9, 1), (12, 2), (20, 5), (40, 13)] {
            assert_eq!(outside(rounds), cut, "{rounds}");
        }
        let differences: Vec<f64> = (0..20).map(f64::from).collect();
        let expected = Interval {
            low: 5.0,
            median: 9.5,
            high: 14.0,
        };
        assert_eq!(Interval::of(&differences), Some(expected));
        assert_eq!(Interval::of(&differences[..5]), None);
    }

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
        assert!(drift.newer["cpu-c32"].iter().all(|one| one.abs() < 1e-9));
    }

    #[test]
    fn three_percent_more_in_every_round_are_missed_and_noise_is_not() {
        let worse = rounds(|_| round([40.0; 2], [41.2; 2], [40.0; 2]));
        let said = judge(&worse).unwrap_err().to_string();
        assert_eq!(said, "worse than before: cpu-c32");
        let noise = rounds(|at| {
            let newer = if at % 2.0 == 0.0 { 38.0 } else { 42.0 };
            round([40.0; 2], [newer; 2], [40.0; 2])
        });
        assert!(judge(&noise).is_ok());
    }

    #[test]
    fn a_control_that_misses_makes_the_run_worthless() {
        let said = judge(&rounds(|_| round([40.0; 2], [44.0; 2], [44.0; 2])));
        let said = said.unwrap_err().to_string();
        assert!(said.contains("says nothing"), "{said}");
        let said = judge(&Differences::default()).unwrap_err().to_string();
        assert!(said.contains("say nothing"), "{said}");
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
