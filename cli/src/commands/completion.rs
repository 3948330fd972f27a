//! `weft completion`: a script that completes commands, options and the names of existing objects.
//!
//! For names the script runs `weft complete-names WORD...`. That is no command for users: no help
//! lists it, it takes words that no command would accept yet, and it prints no message when it
//! fails, because it runs while the user types a line.

mod cursor;
mod names;
mod script;

use std::ffi::OsString;

use clap::Args;
use clap_complete::Shell;

use crate::console::Console;
use crate::failure::{Conclusion, Failure};

/// The hidden command by which scripts query names.
const COMPLETE_NAMES: &str = "complete-names";

/// Arguments of `weft completion`.
#[derive(Args, Debug)]
#[command(
    about = "Print a completion script for a shell",
    long_about = "Prints a script that completes commands and options. In bash, zsh and fish it \
                  completes names of objects too: it asks the API server for them with the user's \
                  rights, where the line says, for a second at most, and is silent where nothing \
                  answers.",
    after_help = "Example:\n  weft completion bash > /etc/bash_completion.d/weft"
)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Prints the script.
    ///
    /// # Errors
    /// When the output is closed.
    pub(crate) fn run(
        &self,
        mut command: clap::Command,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let script = script::of(self.shell, &mut command, COMPLETE_NAMES);
        console.out.write_all(script.as_bytes())?;
        Ok(Conclusion::Yes)
    }
}

/// The words of a line that is being typed, if a script queries names for one.
#[must_use]
pub(crate) fn requested(arguments: &[OsString]) -> Option<Vec<String>> {
    let [_, first, words @ ..] = arguments else {
        return None;
    };
    let words = words.iter().map(|word| word.to_string_lossy().into_owned());
    (first == COMPLETE_NAMES).then(|| words.collect())
}

/// Prints the names that could stand at the end of that line, a line each.
///
/// # Errors
/// When the output is closed; no other failure is reported.
pub(crate) async fn complete(
    mut command: clap::Command,
    words: &[String],
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    command.build();
    if let Some(cursor) = cursor::of(&command, words) {
        for name in names::found(&cursor).await {
            console.line(&name)?;
        }
    }
    Ok(Conclusion::Yes)
}
