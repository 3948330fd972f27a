//! Rows that a lower test tier proves: runs their tests and keeps their output.
//!
//! Such a test lives in a crate that must not know this one, so it prints lines
//! `sent: ...` and `saw: ...` in pairs.

use std::time::Instant;

use super::{
    record::{self, Kept, Step},
    rows::{ROWS, Ring},
};
use crate::proof::proof;

/// Runs every in-process row once; a failed one is kept as failed.
pub fn run() -> anyhow::Result<()> {
    for row in ROWS {
        let Ring::InProcess { target, test } = row.ring else {
            continue;
        };
        let start = Instant::now();
        let (text, passed) = proof(target, test)?;
        let steps = steps(&text);
        let passed = passed && !steps.is_empty();
        if !passed {
            eprintln!("{text}");
        }
        Kept {
            id: row.id.into(),
            part: String::new(),
            passed,
            steps,
            took_ms: record::millis(start.elapsed()),
            ended: record::now(),
        }
        .write()?;
    }
    Ok(())
}

/// The pairs in a test's output.
fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut sent: Option<&str> = None;
    for line in text.lines() {
        if let Some(what) = line.strip_prefix("sent: ") {
            sent = Some(what);
        } else if let (Some(what), Some(saw)) = (sent, line.strip_prefix("saw: ")) {
            steps.push(Step {
                sent: what.into(),
                saw: saw.into(),
            });
            sent = None;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_pairs_are_read_from_test_output() {
        let text =
            "running 1 test\nsent: a\nsaw: b\nsaw: stray\nsent: c\nnoise\nsaw: d\nsent: half\n";
        let read: Vec<_> = steps(text)
            .into_iter()
            .map(|step| (step.sent, step.saw))
            .collect();
        assert_eq!(
            read,
            [("a".into(), "b".into()), ("c".into(), "d".into())] as [(String, String); 2]
        );
    }
}
