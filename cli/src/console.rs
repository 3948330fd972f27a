//! The streams of a command: results go to the output, messages to the error stream, so that `weft
//! ... | kubectl apply -f -` carries only the result.
//!
//! Claims: observe-28

use std::io::{self, Read, Write};

use crate::escape;

/// The three streams of a process, or of a test.
pub struct Console<'a> {
    /// What is read for `-`.
    pub input: &'a mut dyn Read,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Messages about them.
    pub err: &'a mut dyn Write,
    /// Whether results are coloured.
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
    /// A line of the output, or several. The caller keeps its lines apart from texts of the
    /// cluster; other characters that a terminal acts upon are escaped here, in case the caller
    /// forgot.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", escape::lines(text))
    }

    /// A line for a person. Texts of the cluster may stand in it, so control characters are
    /// escaped, and ends of lines are: with one a text could write lines of its own.
    ///
    /// If the error stream is closed, the output is still written.
    ///
    /// # Errors
    /// When the error stream cannot be written, though it is not closed.
    pub fn word(&mut self, text: &str) -> io::Result<()> {
        match writeln!(self.err, "{}", escape::plain(text)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// Several lines that are ours.
    ///
    /// # Errors
    /// As [`Self::word`].
    pub(crate) fn words(&mut self, text: &str) -> io::Result<()> {
        text.lines().try_for_each(|line| self.word(line))
    }
}

/// What a command of a test reads, and what it wrote.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Streams<'a> {
    input: &'a [u8],
    out: Vec<u8>,
    err: Vec<u8>,
}

#[cfg(test)]
impl<'a> Streams<'a> {
    /// Of a command that reads this.
    pub(crate) fn of(input: &'a str) -> Self {
        Self {
            input: input.as_bytes(),
            ..Self::default()
        }
    }

    /// Without colours.
    pub(crate) fn console(&mut self) -> Console<'_> {
        Console {
            input: &mut self.input,
            out: &mut self.out,
            err: &mut self.err,
            color: false,
        }
    }

    /// The results, and the messages about them.
    pub(crate) fn texts(self) -> (String, String) {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(self.out), text(self.err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_text_cannot_write_additional_lines() {
        let mut streams = Streams::default();
        let mut console = streams.console();
        console
            .word("web-1 refused x: y\nweft: all is well")
            .unwrap();
        console.words("one\ntwo").unwrap();
        console.line("a: caf\u{e9}\nb: \u{1b}[2J\u{85}").unwrap();
        let (out, err) = streams.texts();
        assert_eq!(out, "a: caf\u{e9}\nb: \\u{1b}[2J\\u{85}\n");
        assert_eq!(err, "web-1 refused x: y\\nweft: all is well\none\ntwo\n");
    }

    /// Its reader has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn console_survives_closed_stderr_but_fails_on_closed_stdout() {
        let (mut out, mut closed) = (Vec::new(), Closed);
        let mut console = Console {
            input: &mut io::empty(),
            out: &mut out,
            err: &mut Closed,
            color: false,
        };
        console.word("warning: many share this account").unwrap();
        console.line("kind: TrafficTarget").unwrap();
        console.out = &mut closed;
        let ended = console.line("kind: TrafficTarget").unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(out, b"kind: TrafficTarget\n");
    }
}
