//! `make eyes`, besides running the tests in the cluster: clears old records, runs the
//! tests of the dashboard's page, prints the table, writes bench/EYES.md when every row
//! was run.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, bail};
use e2e::{
    eyes::{
        page, record,
        report::{self, ClaimResult, Run},
    },
    harness::cluster::root,
};

const USAGE: &str = "usage: weft-eyes clear | page | report DATE COMMIT MACHINE";

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

/// Whether every row held.
fn run(words: &[&str]) -> anyhow::Result<bool> {
    match words {
        ["clear"] => match fs::remove_dir_all(record::folder()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(true),
        },
        ["page"] => page::run().map(|()| true),
        ["report", date, commit, machine] => {
            let rows = report::judge()?;
            print!("{}", report::screen(&rows));
            let run = Run {
                date,
                commit,
                machine,
            };
            // A part alone does not replace the page of a whole run.
            if rows.iter().all(|row| row.result != ClaimResult::NotRun) {
                let page = root().join("bench/EYES.md");
                fs::write(&page, report::page(&rows, &run))
                    .with_context(|| format!("write {}", page.display()))?;
            }
            Ok(rows.iter().all(|row| row.result == ClaimResult::Held))
        }
        _ => bail!("{USAGE}"),
    }
}
