//! The table of a crate: its rooms, and what each may import of the same crate.
//!
//! A room is a top-level module with all below it, or a part of one that has a row of
//! its own. One row a line:
//!
//! ```text
//! net []                       nothing
//! http [failure net]           these rooms, or parts of them: `telemetry/cell`
//! process [all but capture]    anything besides
//! # a comment
//! ```
//!
//! Every import that a row allows is used: an unused one would be an unwatched exception.
//! Within a room everything may be imported; circles have a rule of their own. The
//! root of a crate (`lib.rs`, `main.rs`) is called `root`, and imports what it likes.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) const ROOT: &str = "root";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Imports {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rooms {
    rows: BTreeMap<String, Imports>,
}

impl Rooms {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rows = BTreeMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (room, imports) = line
                .strip_suffix(']')
                .and_then(|line| line.split_once('['))
                .ok_or_else(|| format!("`{line}` is not of the form `room [imports]`"))?;
            let words: Vec<String> = imports.split_whitespace().map(str::to_owned).collect();
            let imports = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["all"] => Imports::AllBut(Vec::new()),
                ["all", "but", ..] => Imports::AllBut(words[2..].to_vec()),
                _ => Imports::Only(words),
            };
            let room = room.trim().trim_end_matches('/').to_owned();
            if rows.insert(room.clone(), imports).is_some() {
                return Err(format!("{room} has two rows"));
            }
        }
        Ok(Self { rows })
    }

    /// The row that a module of this path falls under: the longest that fits.
    pub(crate) fn row(&self, path: &[String]) -> Option<&str> {
        let whole = path.join("/");
        self.rows
            .keys()
            .filter(|row| is_within(&whole, row))
            .max_by_key(|row| row.len())
            .map(String::as_str)
    }

    pub(crate) fn may_import(&self, row: &str, to: &[String]) -> bool {
        let to = if to.is_empty() {
            ROOT.to_owned()
        } else {
            to.join("/")
        };
        let listed = |names: &[String]| names.iter().any(|name| is_within(&to, name));
        is_within(&to, row)
            || match &self.rows[row] {
                Imports::Only(names) => listed(names),
                Imports::AllBut(names) => !listed(names),
            }
    }

    /// What rows allow and nothing in them uses, as `row [name]`. `used`: a row, and the path
    /// of a module that something in it names.
    pub(crate) fn unused(&self, used: &BTreeSet<(String, String)>) -> Vec<String> {
        let mut unused = Vec::new();
        for (row, imports) in &self.rows {
            let Imports::Only(names) = imports else {
                continue;
            };
            for name in names {
                let uses = |(from, to): &(String, String)| from == row && is_within(to, name);
                if !used.iter().any(uses) {
                    unused.push(format!("{row} [{name}]"));
                }
            }
        }
        unused
    }

    /// Names in the table for which there is no module.
    pub(crate) fn unknown(&self, modules: &BTreeSet<String>) -> BTreeSet<String> {
        let named = self.rows.iter().flat_map(|(row, imports)| {
            let (Imports::Only(names) | Imports::AllBut(names)) = imports;
            names.iter().chain([row])
        });
        named
            .filter(|name| *name != ROOT && !modules.contains(*name))
            .cloned()
            .collect()
    }
}

fn is_within(path: &str, room: &str) -> bool {
    path.strip_prefix(room)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
