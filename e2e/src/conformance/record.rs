//! What one row sent and saw, kept in `target/conformance/<id>[.<part>].json`.

use std::{
    fmt::Display,
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::rows::{self, Row};
use crate::harness::cluster::root;

/// One exchange: what was done, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub sent: String,
    pub saw: String,
}

/// A row's file. `passed` is false until the row's last line has run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub id: String,
    pub part: String,
    pub passed: bool,
    pub steps: Vec<Step>,
    /// Milliseconds from `begin` to the end.
    pub took_ms: u64,
    /// Unix time in seconds.
    pub ended: u64,
}

/// A row that is being run. One that is dropped before [`Record::passed`] is
/// written as failed, so that a test which ends early cannot look like a pass.
#[derive(Debug)]
pub struct Record {
    row: &'static Row,
    part: &'static str,
    steps: Vec<Step>,
    start: Instant,
    passed: bool,
}

impl Record {
    /// Begins the row with this id; an unknown id is an error of the test.
    pub fn begin(id: &str) -> anyhow::Result<Self> {
        Self::part(id, "")
    }

    /// Begins one part of a row that several tests make up.
    pub fn part(id: &str, part: &str) -> anyhow::Result<Self> {
        let row = rows::find(id).with_context(|| format!("no conformance row is called {id}"))?;
        let known = row.parts.iter().find(|known| **known == part);
        let part = known.with_context(|| format!("row {id} has no part called {part:?}"))?;
        Ok(Self {
            row,
            part,
            steps: Vec::new(),
            start: Instant::now(),
            passed: false,
        })
    }

    /// Notes one exchange.
    pub fn saw(&mut self, sent: impl Display, saw: impl Display) {
        self.steps.push(Step {
            sent: sent.to_string(),
            saw: saw.to_string(),
        });
    }

    /// The row holds. Nothing that was not noted can pass.
    pub fn passed(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.steps.is_empty(),
            "row {} passed and noted nothing",
            self.row.id
        );
        self.passed = true;
        self.write()
    }

    fn write(&self) -> anyhow::Result<()> {
        Kept {
            id: self.row.id.into(),
            part: self.part.into(),
            passed: self.passed,
            steps: self.steps.clone(),
            took_ms: millis(self.start.elapsed()),
            ended: now(),
        }
        .write()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.passed
            && let Err(error) = self.write()
        {
            eprintln!("row {} failed and cannot be kept: {error:#}", self.row.id);
        }
    }
}

impl Kept {
    /// Writes the file, whole or not at all.
    pub fn write(&self) -> anyhow::Result<()> {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        let path = folder.join(file_name(&self.id, &self.part));
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&part, &path).with_context(|| format!("write {}", path.display()))
    }

    /// The file of a row's part; `None` when it was not run.
    pub fn read(id: &str, part: &str) -> anyhow::Result<Option<Self>> {
        let path = folder().join(file_name(id, part));
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is no record", path.display()))
    }
}

/// Where the files are; `weft-conformance clear` empties it before a run.
pub fn folder() -> PathBuf {
    root().join("target/conformance")
}

/// Unix time in seconds.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn file_name(id: &str, part: &str) -> String {
    match part {
        "" => format!("{id}.json"),
        part => format!("{id}.{part}.json"),
    }
}
