//! What one row measured, kept in `target/eyes/<id>.json`.

use std::{fmt::Display, fs, io::ErrorKind, path::PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::rows::{self, Row};
use crate::harness::cluster::root;

/// A row's file. `held` is false until the row's last line has run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub id: String,
    pub held: bool,
    pub measured: Vec<String>,
}

/// A row that is being measured. One that is dropped before [`Record::holds`] is written as
/// missed, so that a test which ends early cannot look like one that held.
#[derive(Debug)]
pub struct Record {
    row: &'static Row,
    measured: Vec<String>,
    held: bool,
}

impl Record {
    /// Begins the row with this id; an unknown id is an error of the test.
    pub fn begin(id: &str) -> anyhow::Result<Self> {
        let row =
            rows::find(id).with_context(|| format!("no row of `make eyes` is called {id}"))?;
        Ok(Self {
            row,
            measured: Vec::new(),
            held: false,
        })
    }

    /// Notes one figure.
    pub fn saw(&mut self, measured: impl Display) {
        self.measured.push(measured.to_string());
    }

    /// The row holds. Nothing that was not measured can.
    pub fn holds(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.measured.is_empty(),
            "row {} holds and measured nothing",
            self.row.id
        );
        self.held = true;
        self.write()
    }

    fn write(&self) -> anyhow::Result<()> {
        Kept {
            id: self.row.id.into(),
            held: self.held,
            measured: self.measured.clone(),
        }
        .write()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.held
            && let Err(error) = self.write()
        {
            eprintln!(
                "row {} is missed and cannot be kept: {error:#}",
                self.row.id
            );
        }
    }
}

impl Kept {
    /// Writes the file, whole or not at all.
    pub fn write(&self) -> anyhow::Result<()> {
        fs::create_dir_all(folder())?;
        let path = file(&self.id);
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&part, &path).with_context(|| format!("write {}", path.display()))
    }

    /// The file of a row; `None` when it was not run.
    pub fn read(id: &str) -> anyhow::Result<Option<Self>> {
        let path = file(id);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} is no record", path.display()))
    }
}

/// Where the files are; `weft-eyes clear` empties it before a run.
pub fn folder() -> PathBuf {
    root().join("target/eyes")
}

fn file(id: &str) -> PathBuf {
    folder().join(format!("{id}.json"))
}
