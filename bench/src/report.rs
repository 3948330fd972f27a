//! Writes bench/RESULTS.md and its pictures.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::book::{Book, Spread};
use crate::chart;
use crate::measures::{Measure, Must, SECTIONS};
use crate::micro::Timing;
use crate::provenance;

/// The report, in its folder.
const PAGE: &str = "RESULTS.md";

/// What figures of the proxy depend on.
const SOURCES: &[&str] = &[
    "proxy",
    "policy",
    "wire",
    "identity",
    "runtime",
    "bench/src",
    "Cargo.toml",
];

/// How the run was made, for the head of the report.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) full: bool,
    /// Complete ones.
    pub(crate) rounds: usize,
    pub(crate) planned: usize,
    /// Of the last minute before the run: others' work that disturbs.
    pub(crate) load_before: String,
    pub(crate) load_seconds: u64,
    pub(crate) rate_seconds: u64,
    pub(crate) bodies_seconds: u64,
    /// What was left out for want of time.
    pub(crate) left_out: Vec<String>,
    /// What did not work, with the reason, in order; begins with the system.
    pub(crate) failed: Vec<String>,
    /// What was measured is not what users get.
    pub(crate) development_binary: bool,
}

impl Run {
    /// # Errors
    /// When a measured call failed, or something was not measured for want of time.
    pub(crate) fn complete(&self) -> Result<()> {
        ensure!(
            self.failed.is_empty(),
            "measurements failed: {}",
            self.failed.join("; ")
        );
        ensure!(
            self.rounds == self.planned,
            "only {} of {} rounds are complete; what is missing is listed above",
            self.rounds,
            self.planned
        );
        Ok(())
    }
}

/// The report's text.
pub(crate) fn text(book: &Book, run: &Run, timings: &[Timing], versions: &str) -> String {
    let mut text = opening(run, versions);
    text.push_str(METHOD);
    for (title, rows) in SECTIONS {
        text.push_str(&section(book, title, rows));
    }
    text.push_str(&beside_previous(book));
    if !timings.is_empty() {
        text.push_str("\n## Decisions alone, in the `policy` crate\n\n");
        text.push_str(&decisions(timings));
    }
    for (title, what) in [("Failed", &run.failed), ("Not measured", &run.left_out)] {
        if what.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {title}\n\n");
        for what in what {
            let _ = writeln!(text, "- {what}");
        }
    }
    text
}

/// The table of decisions without a proxy.
pub(crate) fn decisions(timings: &[Timing]) -> String {
    let mut table = String::from("| decision | ns | at most |\n|---|---|---|\n");
    for timing in timings {
        let bound = timing.most.map(|most| {
            let verdict = if timing.nanos <= most {
                "met"
            } else {
                "**missed**"
            };
            format!("{most:.0}, {verdict}")
        });
        let (what, bound) = (&timing.what, bound.unwrap_or_default());
        let _ = writeln!(table, "| {what} | {:.0} | {bound} |", timing.nanos);
    }
    table
}

/// How a page about the proxy begins: what wrote it and when, of which commit and where.
/// `load_before` is the load average of the minute before the run: others' work that disturbs.
pub(crate) fn written_by(command: &str, load_before: &str) -> String {
    format!(
        "Written by `{command}`, {}. Commit {}. Machine: {}; load average before the run {load_before}.",
        time::OffsetDateTime::now_utc().date(),
        provenance::commit(SOURCES),
        provenance::machine()
    )
}

/// What was measured, when and where.
fn opening(run: &Run, versions: &str) -> String {
    let mut text = String::new();
    let name = if run.full {
        "make bench"
    } else {
        "make bench-quick"
    };
    let _ = writeln!(text, "# What the proxy costs\n");
    if run.development_binary {
        let _ = writeln!(
            text,
            "**Measured with a development build: these are not Weft's figures.**\n"
        );
    }
    if !run.failed.is_empty() {
        let _ = writeln!(
            text,
            "**This run failed: of {}, measured calls failed, which are named under [Failed](#failed).**\n",
            of_whom(&run.failed)
        );
    }
    let _ = writeln!(
        text,
        "Written by `{name}`, {}. Commit {}. {} interleaved rounds of direct, Envoy and Weft, {} s per load, {} s per fixed rate and {} s per load of calls with bodies or of downloads, proxies started anew in each round. Median [least to most].\n",
        time::OffsetDateTime::now_utc().date(),
        provenance::commit(SOURCES),
        run.rounds,
        run.load_seconds,
        run.rate_seconds,
        run.bodies_seconds
    );
    let _ = writeln!(
        text,
        "Machine: {}; load average before the run {}. {versions}\n",
        provenance::machine(),
        run.load_before
    );
    text
}

/// A table of what was measured; nothing where nothing was.
fn section(book: &Book, title: &str, rows: &[Measure]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| {
            let shown = |system| book.spread(row.id, system).is_some();
            ["direct", "envoy", "weft"].into_iter().any(shown)
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n## {title}\n\n{}\n| measure | direct | Envoy | Weft | Weft / Envoy | must | |\n|---|---|---|---|---|---|---|\n",
        chart::links(title)
    );
    for row in rows {
        let _ = writeln!(text, "{}", table_row(book, row));
    }
    text
}

/// The systems of these failures, whose names come first.
fn of_whom(failed: &[String]) -> String {
    let mut systems: Vec<_> = failed
        .iter()
        .filter_map(|what| what.split([',', ':']).next())
        .collect();
    systems.dedup();
    systems.join(" and ")
}

/// Figures of the binary that was given as the previous one, if any.
fn beside_previous(book: &Book) -> String {
    let mut text = String::new();
    let rows = SECTIONS.iter().flat_map(|(_, rows)| *rows);
    for row in rows {
        let (Some(before), Some(now)) =
            (book.spread(row.id, "previous"), book.spread(row.id, "weft"))
        else {
            continue;
        };
        let (before_text, now_text) = (show(before, row.decimals), show(now, row.decimals));
        let change = (now.median / before.median - 1.0) * 100.0;
        let _ = writeln!(
            text,
            "| {}, {} | {before_text} | {now_text} | {change:+.1} % |",
            row.title, row.unit
        );
    }
    if !text.is_empty() {
        text.insert_str(0, "\n## Beside the previous binary\n\n| measure | previous | Weft | change |\n|---|---|---|---|\n");
    }
    text
}

const METHOD: &str = "How: each system has its own pair of network namespaces, client and server, joined by a veth pair. In the client's namespace are the load generator and the outbound proxy, in the server's the inbound proxy and nginx (one process). Both pairs stand behind the redirection that `weft-proxy capture` writes; the first hop is redirected, the second goes straight to port 15108. Both do mutual TLS 1.3 with client certificates and SPIFFE ids checked, HTTP/1.1 on the outside, HTTP/2 between the proxies (what Envoy did best with; Weft changes to HTTP/1.1 by itself while the pair is quiet), request metrics on, access log off, one worker. Envoy has one plain route by Host. Weft has more to do: a TrafficSplit over two backends and, at the server, a TrafficTarget of ten routes of which the last one matches, in enforcing, strict mode; the run fails unless the counters of both backends, of the caller's identity and of a refusal moved.

Calls with bodies and downloads are made by h2load, over one connection; how many, a short probe measures beforehand, so that each of them comes to its end and the bytes of all answers can be counted. gRPC streams both ways are the bench's own client's: each of them sends a message when the one before is back. The server of both is the bench's own, for downloads it is nginx. The run fails when any call that is measured fails, of any system: a connection that breaks, a status other than 200 or grpc-status 0, an answer that is a byte too short or late.

At the edge one process stands in the client's place, called at loopback: a Gateway of Weft with one route, behind which the TrafficSplit holds, or an Envoy that notes addresses of clients and brings paths into one form. Both end TLS with an ECDSA certificate and call the server's proxy as the client's does; the CPU is theirs alone, without that of the server's proxy.

CPU is the time of the proxies' processes in user and kernel together. Latency counts from when a request was due, not from when it was sent. A must is a figure relative to Envoy's in the same run (bound = table's must / table's Envoy x this Envoy); for memory, start and scrape it is absolute. Rates depend on everything that shares the machine's cores; CPU per request is the figure to compare.
";

fn table_row(book: &Book, row: &Measure) -> String {
    let [direct, envoy, weft] =
        ["direct", "envoy", "weft"].map(|system| book.spread(row.id, system));
    let cell = |spread: Option<Spread>| {
        spread.map_or_else(|| "-".to_owned(), |spread| show(spread, row.decimals))
    };
    let ratio = match (envoy, weft) {
        (Some(envoy), Some(weft)) if envoy.median > 0.0 => {
            format!("{:.2}", weft.median / envoy.median)
        }
        _ => "-".to_owned(),
    };
    let bounds = row.must.bounds(envoy.map(|spread| spread.median));
    let (must, verdict) = match (bounds, weft) {
        (Some((must, aim)), Some(weft)) => {
            let side = if matches!(row.must, Must::NoLess { .. }) {
                "≥"
            } else {
                "≤"
            };
            let verdict = if row.must.met(aim, weft.median) {
                "aim"
            } else if row.must.met(must, weft.median) {
                "must"
            } else {
                "**missed**"
            };
            (
                format!(
                    "{side} {must:.*} (aim {aim:.*})",
                    row.decimals, row.decimals
                ),
                verdict,
            )
        }
        _ => (String::new(), ""),
    };
    format!(
        "| {}, {} | {} | {} | {} | {ratio} | {must} | {verdict} |",
        row.title,
        row.unit,
        cell(direct),
        cell(envoy),
        cell(weft)
    )
}

fn show(spread: Spread, decimals: usize) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    if least == most {
        return format!("{median:.decimals$}");
    }
    format!("{median:.decimals$} [{least:.decimals$} to {most:.decimals$}]")
}

pub(crate) fn write(folder: &Path, text: &str) -> Result<()> {
    fs::write(folder.join(PAGE), text)?;
    draw(folder)
}

/// Draws the pictures of the report that the folder holds.
///
/// # Errors
/// When there is none, or the folder cannot be written.
pub(crate) fn draw(folder: &Path) -> Result<()> {
    let page = folder.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    for (name, picture) in chart::pictures(&text) {
        fs::write(folder.join(name), picture)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Run, table_row, text};
    use crate::book::Book;
    use crate::measures::SECTIONS;

    fn run(failed: &[&str]) -> Run {
        Run {
            full: false,
            rounds: 3,
            planned: 3,
            load_before: "0.1".to_owned(),
            load_seconds: 2,
            rate_seconds: 3,
            bodies_seconds: 1,
            left_out: Vec::new(),
            failed: failed.iter().map(|&what| what.to_owned()).collect(),
            development_binary: false,
        }
    }

    #[test]
    fn one_failed_call_fails_run_and_is_listed() {
        let what = "weft, gRPC with 100 B: calls failed";
        let (good, bad) = (run(&[]), run(&[what]));
        good.complete().unwrap();
        let error = bad.complete().unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        let page = |run| text(&Book::default(), run, &[], "");
        assert!(!page(&good).contains("failed:"));
        let page = page(&bad);
        assert!(page.contains("**This run failed: of weft, "), "{page}");
        assert!(page.contains(&format!("## Failed\n\n- {what}\n")), "{page}");
    }

    #[test]
    fn a_round_that_is_not_complete_fails_the_run() {
        let short = Run {
            rounds: 2,
            ..run(&[])
        };
        assert!(short.complete().is_err());
    }

    #[test]
    fn figure_is_evaluated_against_envoy_of_same_run() {
        let row = SECTIONS[0]
            .1
            .iter()
            .find(|row| row.id == "cpu-c32")
            .unwrap();
        let mut book = Book::default();
        book.note("cpu-c32", "envoy", 104.0);
        for (figure, verdict) in [
            (47.0, "| aim |"),
            (63.0, "| must |"),
            (70.0, "| **missed** |"),
        ] {
            let mut book = book.clone();
            book.note("cpu-c32", "weft", figure);
            let line = table_row(&book, row);
            assert!(line.ends_with(verdict), "{line}");
            assert!(line.contains("≤ 64.0 (aim 48.0)"), "{line}");
        }
    }
}
