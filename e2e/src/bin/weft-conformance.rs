//! `make conformance`, besides running the tests: clears old records, runs the rows
//! of lower test tiers, prints the table, writes the page.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, bail};
use e2e::{
    conformance::{
        lower, record,
        report::{self, RowResult},
    },
    harness::cluster::root,
};

const USAGE: &str = "usage: weft-conformance clear | lower | report DATE COMMIT";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every row passed.
fn run(words: &[&str]) -> anyhow::Result<bool> {
    match words {
        ["clear"] => match fs::remove_dir_all(record::folder()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(true),
        },
        ["lower"] => lower::run().map(|()| true),
        ["report", date, commit] => {
            let rows = report::judge()?;
            print!("{}", report::screen(&rows));
            // A part alone does not replace the page of a whole run.
            if rows.iter().all(|row| row.result != RowResult::Missing) {
                let page = root().join("evidence/conformance.md");
                fs::write(&page, report::page(&rows, date, commit))
                    .with_context(|| format!("write {}", page.display()))?;
            }
            Ok(rows.iter().all(|row| row.result == RowResult::Passed))
        }
        _ => bail!("{USAGE}"),
    }
}
