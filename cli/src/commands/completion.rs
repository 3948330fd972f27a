//! `weft completion`: a script that completes commands and options.

use clap::Args;
use clap_complete::Shell;

use crate::console::Console;
use crate::failure::{Failure, Verdict};

/// Arguments of `weft completion`.
#[derive(Args, Debug)]
#[command(
    about = "Print a completion script for a shell",
    after_help = "Example:\n  weft completion bash > /etc/bash_completion.d/weft"
)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Prints the script.
    ///
    /// # Errors
    /// When the output is closed.
    pub fn run(
        &self,
        mut command: clap::Command,
        console: &mut Console<'_>,
    ) -> Result<Verdict, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "weft", &mut script);
        console.out.write_all(&script)?;
        Ok(Verdict::Yes)
    }
}
