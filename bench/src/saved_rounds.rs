//! Rounds of a paired run that outlive it: a run that was ended goes on where it was, with
//! the same two programs, at another quiet time.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::book::Book;
use crate::measures;

/// The file, and what it begins with.
pub(crate) struct SavedRounds {
    path: PathBuf,
    lines: Vec<String>,
}

impl SavedRounds {
    /// What an earlier run with these programs left in `out`; nothing where it had others.
    ///
    /// # Errors
    /// A program that cannot be read.
    pub(crate) fn of(out: &Path, programs: [&Path; 2], measures: Option<&str>) -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        measures.hash(&mut hasher);
        for program in programs {
            let bytes = fs::read(program).with_context(|| program.display().to_string())?;
            bytes.hash(&mut hasher);
        }
        let first = format!("{:016x}", hasher.finish());
        let path = out.join("paired-rounds.jsonl");
        let before = fs::read_to_string(&path).unwrap_or_default();
        let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
        if lines.first() != Some(&first) {
            lines = vec![first];
        }
        Ok(Self { path, lines })
    }

    /// The figures of each round.
    ///
    /// # Errors
    /// A line that is no round.
    pub(crate) fn rounds(&self, systems: &[&'static str]) -> Result<Vec<Book>> {
        let rounds = self.lines.iter().skip(1);
        rounds.map(|line| read(line, systems)).collect()
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn add(&mut self, round: &Book, systems: &[&'static str]) -> Result<()> {
        let mut all: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
        for row in measures::SECTIONS.iter().flat_map(|(_, rows)| *rows) {
            for system in systems {
                if let Some(figure) = round.median(row.id, system) {
                    all.entry(row.id).or_default().insert(system, figure);
                }
            }
        }
        self.lines.push(serde_json::to_string(&all)?);
        fs::write(&self.path, self.lines.join("\n") + "\n")?;
        Ok(())
    }
}

fn read(line: &str, systems: &[&'static str]) -> Result<Book> {
    let all: Value = serde_json::from_str(line).context("paired-rounds.jsonl")?;
    let mut book = Book::default();
    for row in measures::SECTIONS.iter().flat_map(|(_, rows)| *rows) {
        for system in systems {
            if let Some(figure) = all[row.id][system].as_f64() {
                book.note(row.id, system, figure);
            }
        }
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_rounds_resume_only_with_same_programs() {
        let out = std::env::temp_dir().join(format!("weft-bench-kept-{}", std::process::id()));
        fs::create_dir_all(&out).unwrap();
        let [older, newer] = ["older", "newer"].map(|name| out.join(name));
        fs::write(&older, "1").unwrap();
        fs::write(&newer, "2").unwrap();
        let kept = || SavedRounds::of(&out, [&older, &newer], None).unwrap();
        let mut round = Book::default();
        round.note("cpu-c32", "older", 40.0);
        round.note("cpu-c32", "newer", 41.5);
        let systems = ["older", "newer"];
        kept().add(&round, &systems).unwrap();
        kept().add(&round, &systems).unwrap();
        let rounds = kept().rounds(&systems).unwrap();
        assert_eq!(rounds.len(), 2);
        assert_eq!(rounds[1].median("cpu-c32", "newer"), Some(41.5));
        fs::write(&newer, "3").unwrap();
        assert!(kept().rounds(&systems).unwrap().is_empty());
        fs::remove_dir_all(&out).unwrap();
    }
}
