//! Rows of the dashboard: runs its tests and keeps what they print.
//!
//! They live in a crate that must not know this one, so they print lines `measured: ...`.

use super::{
    record::Kept,
    rows::{MeasuredIn, ROWS},
};
use crate::proof::proof;

/// Runs every row of the page once; one whose test fails is kept as missed.
pub fn run() -> anyhow::Result<()> {
    for row in ROWS {
        let MeasuredIn::Page(test) = row.measured_in else {
            continue;
        };
        let (text, passed) = proof(&["--test", "dashboard"], test)?;
        let measured = measured(&text);
        let passed_all = passed && !measured.is_empty();
        if !passed_all {
            eprintln!("{text}");
        }
        Kept {
            id: row.id.into(),
            held: passed_all,
            measured,
        }
        .write()?;
    }
    Ok(())
}

/// The figures in a test's output.
fn measured(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("measured: "));
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_taken_out_of_what_a_test_prints() {
        let text = "\nrunning 1 test\nmeasured: 3 ms\nmeasured\n.\ntest result: ok. 1 passed\n";
        assert_eq!(measured(text), ["3 ms"]);
    }
}
