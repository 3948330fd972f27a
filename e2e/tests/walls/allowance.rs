//! The breaches of the walls that are allowed so far, one line each; the list can only shrink.
//!
//! A line that is no longer needed fails the test as a new breach does: otherwise a new
//! breach could take the place of a repaired one.

use std::collections::BTreeMap;
use std::fmt;

/// A wall that something does not keep to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Breach {
    pub rule: &'static str,
    pub subject: String,
    /// By how much, where that is a number.
    pub amount: Option<usize>,
}

impl Breach {
    pub(crate) fn of(rule: &'static str, subject: impl Into<String>) -> Self {
        Self {
            rule,
            subject: subject.into(),
            amount: None,
        }
    }

    pub(crate) fn measured(rule: &'static str, subject: impl Into<String>, amount: usize) -> Self {
        Self {
            amount: Some(amount),
            ..Self::of(rule, subject)
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.subject)?;
        match self.amount {
            Some(amount) => write!(f, " = {amount}"),
            None => Ok(()),
        }
    }
}

/// The text of an allowance that allows exactly these.
pub(crate) fn write(breaches: &[Breach]) -> String {
    let mut lines: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    lines.sort();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Where the breaches found and those allowed differ, in words; empty is good.
pub(crate) fn differences(allowed: &str, found: &[Breach]) -> Vec<String> {
    let mut left: BTreeMap<&str, Option<usize>> = allowed
        .lines()
        .filter(|line| !line.is_empty())
        .map(parsed)
        .collect();
    let mut differences = Vec::new();
    for breach in found {
        let key = Breach {
            amount: None,
            ..breach.clone()
        }
        .to_string();
        match left.remove(key.as_str()) {
            None => differences.push(format!("new: {breach}")),
            Some(limit) if breach.amount > limit => {
                differences.push(format!("more than the allowance: {breach}"));
            }
            Some(limit) if breach.amount < limit => {
                differences.push(format!("less than the allowance, lower it: {breach}"));
            }
            Some(_) => {}
        }
    }
    let unused = left
        .keys()
        .map(|key| format!("not needed any more, remove it: {key}"));
    differences.extend(unused);
    differences
}

fn parsed(line: &str) -> (&str, Option<usize>) {
    match line.rsplit_once(" = ") {
        Some((key, amount)) => match amount.parse() {
            Ok(amount) => (key, Some(amount)),
            Err(_) => (line, None),
        },
        None => (line, None),
    }
}
