//! The table: on the screen, and as `evidence/conformance.md`.

use std::fmt::Write as _;

use super::{
    record::Kept,
    rows::{ROWS, Ring, Row},
};

/// Longest cell on the screen; the page has all of it.
const SCREEN_CELL: usize = 56;
/// Longest cell of the page, so that it stays readable.
const PAGE_CELL: usize = 600;

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowResult {
    Passed,
    Failed,
    /// A part of it was not run.
    Missing,
}

/// One row with what its parts kept.
#[derive(Clone, Debug)]
pub struct Judged {
    pub row: &'static Row,
    pub result: RowResult,
    pub kept: Vec<Kept>,
}

/// Judges every row by what is in `target/conformance`.
pub fn judge() -> anyhow::Result<Vec<Judged>> {
    ROWS.iter()
        .map(|row| {
            let parts: anyhow::Result<Vec<Option<Kept>>> = row
                .parts
                .iter()
                .map(|part| Kept::read(row.id, part))
                .collect();
            Ok(judge_row(row, parts?))
        })
        .collect()
}

fn judge_row(row: &'static Row, parts: Vec<Option<Kept>>) -> Judged {
    let result = if parts.iter().flatten().any(|kept| !kept.passed) {
        RowResult::Failed
    } else if parts.iter().any(Option::is_none) {
        RowResult::Missing
    } else {
        RowResult::Passed
    };
    Judged {
        row,
        result,
        kept: parts.into_iter().flatten().collect(),
    }
}

/// For the screen, one line a row.
pub fn screen(rows: &[Judged]) -> String {
    let mut text = String::new();
    for judged in rows {
        let (sent, saw) = judged.cells("; ");
        let _ = writeln!(
            text,
            "{:<6} {:<10} {:<8} {}\n       sent {}\n       saw  {}",
            judged.row.id,
            judged.row.ring.name(),
            judged.result.name(),
            judged.row.what,
            shortened(&sent, SCREEN_CELL * 2),
            shortened(&saw, SCREEN_CELL * 2),
        );
    }
    let _ = writeln!(text, "{}", summary(rows));
    text
}

/// The page, with the date and the commit of the run.
pub fn page(rows: &[Judged], date: &str, commit: &str) -> String {
    let mut text = format!(
        "# Conformance\n\n\
        `make conformance` runs every row of this page against a real cluster and writes the page anew; it fails\n\
        when a row fails or is not run. `make test-all` runs all of them but the last six.\n\n\
        Run of {date}, commit {commit}: {}.\n\n\
        Ids: `TA`, `SP` and `TS` are the steps of the Service Mesh Interface's own conformance suite for traffic\n\
        access, specs and splits, repaired where the suite cannot pass anywhere: definitions are read as\n\
        apiextensions v1, callees have well-formed names, access and specs run in namespaces in `deny` and splits in\n\
        one in `open`, fields stand in `spec` where these versions have them, and the harness reaches the application\n\
        on port 9092, which the pods name in `weft.dev/skip-inbound-ports` because the suite calls from outside the\n\
        mesh. `E` rows are cases that the suite leaves out. `FL` and `AR` are whole canaries driven by the real\n\
        Flagger and Argo Rollouts ([canaries.md](../docs/canaries.md)).\n\n\
        Rings: `mesh` is the whole mesh in a cluster, `alone` the same with nothing beside it because it is timed,\n\
        `canary` the same with a progressive delivery controller and Prometheus, `in process` a test that needs no\n\
        cluster.\n\n\
        | id | what | ring | sent | saw | result |\n|---|---|---|---|---|---|\n",
        summary(rows)
    );
    for judged in rows {
        let (sent, saw) = judged.cells("<br>");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            judged.row.id,
            judged.row.what,
            judged.row.ring.name(),
            escaped(&shortened(&sent, PAGE_CELL)),
            escaped(&shortened(&saw, PAGE_CELL)),
            judged.result.name()
        );
    }
    text
}

/// `46 of 48 rows pass; failed: E9; not run: AR-01`.
pub fn summary(rows: &[Judged]) -> String {
    let of = |result| -> Vec<&str> {
        let fits = rows.iter().filter(move |row| row.result == result);
        fits.map(|row| row.row.id).collect()
    };
    let mut text = format!(
        "{} of {} rows pass",
        of(RowResult::Passed).len(),
        rows.len()
    );
    for (result, name) in [
        (RowResult::Failed, "failed"),
        (RowResult::Missing, "not run"),
    ] {
        let ids = of(result);
        if !ids.is_empty() {
            let _ = write!(text, "; {name}: {}", ids.join(", "));
        }
    }
    text
}

impl Judged {
    fn cells(&self, between: &str) -> (String, String) {
        let steps = self.kept.iter().flat_map(|kept| &kept.steps);
        let (sent, saw): (Vec<&str>, Vec<&str>) = steps
            .map(|step| (step.sent.as_str(), step.saw.as_str()))
            .unzip();
        (sent.join(between), saw.join(between))
    }
}

impl RowResult {
    fn name(self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Failed => "FAIL",
            Self::Missing => "NOT RUN",
        }
    }
}

impl Ring {
    fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Alone => "alone",
            Self::Canary => "canary",
            Self::InProcess { .. } => "in process",
        }
    }
}

fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.into();
    }
    let mut short: String = text.chars().take(limit).collect();
    short.push_str(" ...");
    short
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::conformance::record::Step;

    fn kept(row: &Row, part: &str, passed: bool) -> Option<Kept> {
        Some(Kept {
            id: row.id.into(),
            part: part.into(),
            passed,
            steps: vec![Step {
                sent: "a | b".into(),
                saw: "c".into(),
            }],
            took_ms: 1,
            ended: 1,
        })
    }

    #[test]
    fn row_lacking_parts_is_missing_unless_one_failed() {
        let row = super::super::rows::find("E22").unwrap();
        let judged = |parts| judge_row(row, parts).result;
        assert_eq!(judged(vec![None, None]), RowResult::Missing);
        assert_eq!(
            judged(vec![kept(row, "peers", true), None]),
            RowResult::Missing
        );
        assert_eq!(
            judged(vec![kept(row, "peers", false), None]),
            RowResult::Failed
        );
        let both = vec![kept(row, "peers", true), kept(row, "self", true)];
        assert_eq!(judged(both.clone()), RowResult::Passed);
        let text = page(&[judge_row(row, both)], "today", "abc");
        assert!(
            text.contains("| a \\| b<br>a \\| b | c<br>c | pass |"),
            "{text}"
        );
    }

    #[test]
    fn suite_table_has_every_step_exactly_once() {
        let ids: BTreeSet<&str> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ROWS.len());
        for (suite, steps) in [("TA", 7), ("SP", 6), ("TS", 11)] {
            for step in 1..=steps {
                assert!(
                    ids.contains(format!("{suite}-{step:02}").as_str()),
                    "{suite}-{step}"
                );
            }
        }
    }
}
