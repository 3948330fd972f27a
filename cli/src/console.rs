//! Where a command reads and writes: answers go to the output, words to the error stream,
//! so that `weft ... | kubectl apply -f -` carries nothing but the answer.

use std::io::{self, Read, Write};

use crate::escape;

/// The three streams of a process, or of a test.
pub struct Console<'a> {
    /// What is read for `-`.
    pub input: &'a mut dyn Read,
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Words about them.
    pub err: &'a mut dyn Write,
    /// Whether answers are coloured.
    pub color: bool,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console")
            .field("color", &self.color)
            .finish_non_exhaustive()
    }
}

impl Console<'_> {
    /// A line of the answer, as it is.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A line for a person. Texts of the cluster may stand in it, so control characters
    /// are escaped.
    ///
    /// # Errors
    /// When the error stream is closed.
    pub fn word(&mut self, text: &str) -> io::Result<()> {
        for line in text.split('\n') {
            writeln!(self.err, "{}", escape::plain(line))?;
        }
        Ok(())
    }
}
