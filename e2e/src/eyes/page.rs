//! Rows of the dashboard: runs its tests and keeps what they print.
//!
//! They live in a crate that must not know this one, so they print lines `measured: ...`.

use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::{
    record::Kept,
    rows::{Place, ROWS},
};
use crate::harness::cluster::root;

/// Runs every row of the page once; one whose test fails is kept as missed.
pub fn run() -> anyhow::Result<()> {
    for row in ROWS {
        let Place::Page(test) = row.place else {
            continue;
        };
        // Of the whole workspace, as all rings are built: one package alone has other features
        // of the same dependencies, and they would compile once more.
        let output = Command::new("cargo")
            .args(["test", "-q", "--workspace", "--test", "dashboard", "--"])
            .args([test, "--exact", "--nocapture"])
            .current_dir(root())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("run the test of row {}", row.id))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let measured = measured(&text);
        // A filter that fits no test also ends with success.
        let ran = text.contains("test result: ok. 1 passed");
        let held = output.status.success() && ran && !measured.is_empty();
        if !held {
            eprintln!("{text}");
        }
        Kept {
            id: row.id.into(),
            held,
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
