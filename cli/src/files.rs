//! Manifests from files and from the standard input.

use std::io::Read;
use std::path::Path;

use crate::console::Console;
use crate::failure::Failure;

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
