//! The table: on the screen, and as `bench/EYES.md`.

use std::fmt::Write as _;

use super::{
    record::Kept,
    rows::{ROWS, Row},
};

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimResult {
    Held,
    Missed,
    NotRun,
}

/// One row with what was measured.
#[derive(Clone, Debug)]
pub struct Judged {
    pub row: &'static Row,
    pub result: ClaimResult,
    pub measured: Vec<String>,
}

/// Of which run the page is.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    pub date: &'a str,
    pub commit: &'a str,
    pub machine: &'a str,
}

/// Judges every row by what is in `target/eyes`.
pub fn judge() -> anyhow::Result<Vec<Judged>> {
    ROWS.iter()
        .map(|row| Ok(judge_row(row, Kept::read(row.id)?)))
        .collect()
}

fn judge_row(row: &'static Row, kept: Option<Kept>) -> Judged {
    let result = match &kept {
        None => ClaimResult::NotRun,
        Some(kept) if kept.held => ClaimResult::Held,
        Some(_) => ClaimResult::Missed,
    };
    Judged {
        row,
        result,
        measured: kept.map_or_else(Vec::new, |kept| kept.measured),
    }
}

/// For the screen.
pub fn screen(rows: &[Judged]) -> String {
    let mut text = String::new();
    for judged in rows {
        let (id, name) = (judged.row.id, judged.result.name());
        let _ = writeln!(text, "{id:<18} {name:<8} {}", judged.row.claim);
        for measured in &judged.measured {
            let _ = writeln!(text, "{:<28}{measured}", "");
        }
    }
    let _ = writeln!(text, "{}", summary(rows));
    text
}

/// The page.
pub fn page(rows: &[Judged], run: &Run<'_>) -> String {
    let Run {
        date,
        commit,
        machine,
    } = run;
    let mut text = format!(
        "# What the mesh reports, compared with independent measurements\n\n\
        Written by `make eyes`, {date}. Commit {commit}. Machine: {machine}; the cluster, its load and the tests\n\
        share it. {}.\n\n\
        How: the local cluster of three nodes with the mesh as the chart installs it. The load is `weft-echo` in meshed\n\
        pods, an open loop that counts by itself what it sent and what came back, and a log in the application of what\n\
        reached it. Windows of the graph that lie side by side hold all of it, and the controller that holds the Lease is\n\
        killed in its middle. Collector, Prometheus and browser are the real ones, beside the cluster.\n",
        summary(rows)
    );
    let mut part = "";
    for judged in rows {
        if judged.row.part != part {
            part = judged.row.part;
            let _ = write!(
                text,
                "\n## {part}\n\n| claim | bound | measured | |\n|---|---|---|---|\n"
            );
        }
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            judged.row.claim,
            judged.row.bound,
            escaped(&judged.measured.join("<br>")),
            judged.result.name()
        );
    }
    text
}

/// `17 of 19 rows hold; missed: open; not run: page-axe`.
pub fn summary(rows: &[Judged]) -> String {
    let of = |result: ClaimResult| -> Vec<&str> {
        let fits = rows.iter().filter(move |row| row.result == result);
        fits.map(|row| row.row.id).collect()
    };
    let mut text = format!(
        "{} of {} rows hold",
        of(ClaimResult::Held).len(),
        rows.len()
    );
    for (result, name) in [
        (ClaimResult::Missed, "missed"),
        (ClaimResult::NotRun, "not run"),
    ] {
        let ids = of(result);
        if !ids.is_empty() {
            let _ = write!(text, "; {name}: {}", ids.join(", "));
        }
    }
    text
}

impl ClaimResult {
    fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Missed => "MISSED",
            Self::NotRun => "NOT RUN",
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::harness::cluster::root;

    #[test]
    fn committed_page_has_exactly_the_known_rows() {
        let page = std::fs::read_to_string(root().join("bench/EYES.md")).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| "));
        let rows: Vec<&str> = rows.filter(|line| !line.starts_with("| claim |")).collect();
        let lacks = |row: &&Row| {
            let begin = format!("| {} | {} |", row.claim, row.bound);
            !rows.iter().any(|line| line.starts_with(&begin))
        };
        let lacking: Vec<&str> = ROWS.iter().filter(lacks).map(|row| row.id).collect();
        assert!(
            lacking.is_empty(),
            "run `make eyes`: {lacking:?} are not in it"
        );
        assert_eq!(rows.len(), ROWS.len(), "run `make eyes`: it has other rows");
    }

    fn judged(passed: Option<bool>) -> Judged {
        let kept = passed.map(|passed| Kept {
            id: ROWS[0].id.into(),
            held: passed,
            measured: vec!["a | b".into(), "c".into()],
        });
        judge_row(&ROWS[0], kept)
    }

    #[test]
    fn claim_row_holds_only_after_complete_run() {
        assert_eq!(judged(None).result, ClaimResult::NotRun);
        assert_eq!(judged(Some(false)).result, ClaimResult::Missed);
        assert_eq!(judged(Some(true)).result, ClaimResult::Held);
        let rows = [judged(Some(true)), judged(Some(false)), judged(None)];
        assert_eq!(
            summary(&rows),
            "1 of 3 rows hold; missed: requests; not run: requests"
        );
        let run = Run {
            date: "today",
            commit: "abc",
            machine: "one core",
        };
        let page = page(&rows, &run);
        assert!(page.contains("| a \\| b<br>c | held |"), "{page}");
        assert_eq!(page.matches("\n## ").count(), 1, "{page}");
    }

    #[test]
    fn claim_rows_are_unique_and_parts_contiguous() {
        let ids: BTreeSet<&str> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ROWS.len());
        let mut parts: Vec<&str> = ROWS.iter().map(|row| row.part).collect();
        parts.dedup();
        let once: BTreeSet<&str> = parts.iter().copied().collect();
        assert_eq!(once.len(), parts.len());
    }
}
