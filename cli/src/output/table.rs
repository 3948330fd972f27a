//! Prints tables as kubectl does: columns as wide as their widest cell, three blanks between them,
//! no lines. A cell that is very long is truncated, so that one row does not make all others wide.
//!
//! Claims: observe-44

use std::io::{self, Write};

use crate::escape;

/// Characters of a cell at most, the sign of a cut included.
const LONGEST: usize = 120;
/// The same of the last one in a row, beside which nothing has to stand.
const LONGEST_LAST: usize = 4096;
/// What a cell that was cut ends with.
const CUT: char = '…';

/// How conspicuous a cell is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Like the rest.
    #[default]
    Plain,
    /// Fine.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

impl Tone {
    /// The text in the tone's colour.
    #[must_use]
    pub(crate) fn painted(self, text: &str, color: bool) -> String {
        match self.code().filter(|_| color) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }

    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// With a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A head and rows of as many cells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without rows.
    #[must_use]
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes it. An empty cell shows `-`, so that columns can be cut out by number; one with
    /// more than 120 characters, in the last column 4096, ends with `…`.
    ///
    /// # Errors
    /// When the output is closed.
    pub(crate) fn write(&self, out: &mut dyn Write, color: bool) -> io::Result<()> {
        let rows: Vec<Vec<(String, Tone)>> = self.rows.iter().map(|row| shown(row)).collect();
        let mut widths: Vec<usize> = self.head.iter().map(|name| name.len()).collect();
        for row in &rows {
            for (width, (text, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        let head: Vec<(String, Tone)> = self
            .head
            .iter()
            .map(|name| ((*name).to_owned(), Tone::Plain))
            .collect();
        for row in std::iter::once(&head).chain(&rows) {
            write_row(out, row, &widths, color)?;
        }
        Ok(())
    }
}

fn shown(row: &[Cell]) -> Vec<(String, Tone)> {
    let last = row.len().saturating_sub(1);
    row.iter()
        .enumerate()
        .map(|(at, cell)| {
            let most = if at < last { LONGEST } else { LONGEST_LAST };
            match cell.text.as_str() {
                "" => ("-".to_owned(), cell.tone),
                text => (cut(&escape::plain(text), most), cell.tone),
            }
        })
        .collect()
}

/// The text, or what of it has room in so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let kept = text.chars().take(most - 1);
    kept.chain([CUT]).collect()
}

fn write_row(
    out: &mut dyn Write,
    row: &[(String, Tone)],
    widths: &[usize],
    color: bool,
) -> io::Result<()> {
    let last = row.len().saturating_sub(1);
    for (at, ((text, tone), width)) in row.iter().zip(widths).enumerate() {
        write!(out, "{}", tone.painted(text, color))?;
        if at < last {
            let blanks = 3 + width - text.chars().count();
            // No width of a format: those end at 65 535.
            write!(out, "{}", " ".repeat(blanks))?;
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, color: bool) -> String {
        let mut out = Vec::new();
        table.write(&mut out, color).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn table_columns_are_aligned_and_empty_cells_shown() {
        let mut table = Table::new(&["NAME", "RPS", "LAST"]);
        table.row(vec!["cart".into(), "1.0".into(), "now".into()]);
        table.row(vec!["a-much-longer-name".into(), "".into(), "4s".into()]);
        let text = written(&table, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("RPS").unwrap();
        assert_eq!(&lines[1][column..column + 3], "1.0");
        assert_eq!(&lines[2][column..=column], "-");
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{text:?}");
    }

    #[test]
    fn overlong_cell_is_truncated_and_keeps_columns_bounded() {
        let name = |length| "x".repeat(length);
        let mut table = Table::new(&["NAME", "LAST"]);
        table.row(vec![name(LONGEST).into(), "whole".into()]);
        table.row(vec![name(400_000).into(), name(400_000).into()]);
        table.row(vec!["cart".into(), name(LONGEST_LAST).into()]);
        let text = written(&table, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], format!("{}   whole", name(LONGEST)));
        let (first, last) = (name(LONGEST - 1), name(LONGEST_LAST - 1));
        assert_eq!(lines[2], format!("{first}…   {last}…"));
        let beside = " ".repeat(LONGEST - "cart".len());
        assert_eq!(
            lines[3],
            format!("cart{beside}   {}", name(LONGEST_LAST)),
            "the control"
        );
    }

    #[test]
    fn colors_are_optional_and_shift_no_column() {
        let mut table = Table::new(&["STATE", "NEXT"]);
        table.row(vec![Cell::toned("bad", Tone::Bad), "x".into()]);
        let (plain, colored) = (written(&table, false), written(&table, true));
        assert!(!plain.contains('\x1b'));
        assert_eq!(
            colored.replace("\x1b[31m", "").replace("\x1b[0m", ""),
            plain
        );
        assert_ne!(colored, plain);
    }

    #[test]
    fn control_characters_of_cluster_never_reach_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["evil\x1b[2J\nNAME".into()]);
        let text = written(&table, true);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
