//! Standard output, standard error and input of a command: results go to the output, messages to
//! the error stream, so that `weft ... | kubectl apply -f -` carries only the result.
//!
//! Claims: observe-28

use std::io::{self, IsTerminal as _, Read, Write};
use std::path::Path;

use crate::escape;
use crate::failure::Failure;

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

/// Whether results are coloured: on a terminal, unless `NO_COLOR` is set to something.
#[must_use]
pub(crate) fn color() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "a convention of command lines, and no setting of ours"
    )]
    let unwanted = std::env::var_os("NO_COLOR");
    colored(std::io::stdout().is_terminal(), unwanted.as_deref())
}

fn colored(terminal: bool, unwanted: Option<&std::ffi::OsStr>) -> bool {
    terminal && unwanted.is_none_or(std::ffi::OsStr::is_empty)
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

/// Most bytes of one manifest. What a cluster takes is far smaller; a whole distribution
/// in one file is smaller too.
const MOST_BYTES: u64 = 64 << 20;

/// One manifest.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// As it was named, for messages.
    pub(crate) name: String,
    /// Its text, without the mark that some editors write before it.
    pub(crate) text: String,
    /// Whether the text had that mark.
    pub(crate) marked: bool,
}

/// Reads a file, or the standard input for `-`.
///
/// # Errors
/// When it cannot be read, is too large or is no text.
pub(crate) fn read(name: &str, console: &mut Console<'_>) -> Result<Manifest, Failure> {
    let bad = |why: String| Failure::usage(format!("{name}: {why}"));
    let mut bytes = Vec::new();
    let read = if name == "-" {
        console.input.take(MOST_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(Path::new(name))
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(bad(format!("is larger than {} MiB", MOST_BYTES >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .split(|byte| *byte == b'\n')
            .count();
        Failure::usage(format!("{name}:{line}:1: is no UTF-8 text"))
    })?;
    let (marked, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (true, rest.to_owned()),
        None => (false, text),
    };
    Ok(Manifest {
        name: name.to_owned(),
        text,
        marked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_without_no_color_gets_colours() {
        let set = std::ffi::OsStr::new("1");
        let empty = std::ffi::OsStr::new("");
        assert!(colored(true, None));
        assert!(colored(true, Some(empty)), "set to nothing is not set");
        assert!(!colored(true, Some(set)));
        assert!(!colored(false, None));
    }

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
