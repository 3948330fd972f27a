//! Writes evidence/scale.md and bench/CONTROL.md from what was measured.

use std::fmt::Write;

use crate::curves::short;
use crate::provenance;

pub(crate) mod control;
pub(crate) mod scale;

/// What the figures depend on.
const SOURCES: &[&str] = &[
    "controller",
    "automation",
    "wire",
    "policy",
    "identity",
    "runtime",
    "crds",
    "bench/src",
    "Cargo.toml",
];

/// A bound, and what was found.
#[derive(Clone, Debug)]
pub(crate) struct Must {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) most: f64,
    pub(crate) found: f64,
}

impl Must {
    pub(crate) fn holds(&self) -> bool {
        self.found <= self.most
    }
}

fn musts(text: &mut String, musts: &[Must]) {
    text.push_str("| must | bound | found | |\n|---|---|---|---|\n");
    for must in musts {
        let _ = writeln!(
            text,
            "| {} | {} {} | {} {} | {} |",
            must.what,
            must.most,
            must.unit,
            short(must.found),
            must.unit,
            if must.holds() { "met" } else { "**missed**" }
        );
    }
    text.push('\n');
}

/// A row of the table.
fn line<T>(text: &mut String, all: &[T], name: &str, of: impl Fn(&T) -> String) {
    let _ = write!(text, "| {name} | ");
    row(text, all, of);
}

fn row<T>(text: &mut String, all: &[T], of: impl Fn(&T) -> String) {
    let cells: Vec<String> = all.iter().map(of).collect();
    let _ = writeln!(text, "{} |", cells.join(" | "));
}

fn curve<T>(name: &str, all: &[T], of: impl Fn(&T) -> f64) -> (String, Vec<f64>) {
    (name.to_owned(), all.iter().map(of).collect())
}

fn head(title: &str, command: &str, took: u64) -> String {
    format!(
        "# {title}\n\nWritten by `{command}`, {}, in {} min. Commit {}. Machine: {}.\n\n",
        time::OffsetDateTime::now_utc().date(),
        took.div_ceil(60),
        provenance::commit(SOURCES),
        provenance::machine()
    )
}
