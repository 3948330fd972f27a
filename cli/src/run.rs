//! From arguments to an exit status.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{self, Cli, Command};
use crate::commands::completion;
use crate::console::Console;
use crate::failure::{Failure, Verdict, exit_code};
use crate::settings;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let mut console = Console {
        input: &mut io::stdin(),
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        color: settings::color(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(std::env::args_os(), &mut console));
            // A name that is being resolved must not keep the program alive.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Failure::unknown(format!("no runtime: {error}"))),
    };
    if let Err(Failure::Usage(text) | Failure::Unknown(text)) = &ended {
        // Nobody is left to be told that nobody can be told.
        let _ = console.word(&format!("weft: {text}"));
    }
    exit_code(&ended)
}

/// Runs a command.
///
/// # Errors
/// When it has no answer.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    console: &mut Console<'_>,
) -> Result<Verdict, Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(words) = completion::asked(&arguments) {
        return completion::complete(args::command(), &words, console).await;
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            return Err(Failure::usage(text.trim_end()));
        }
        // Help and version are answers.
        Err(answer) => {
            console.line(answer.render().to_string().trim_end())?;
            return Ok(Verdict::Yes);
        }
    };
    let global = &cli.global;
    match cli.command {
        Command::Check(command) => command.run(global, console).await,
        Command::ProxyConfig(command) => command.run(global, console).await,
        Command::LogLevel(command) => command.run(global, console).await,
        Command::Identity(command) => command.run(global, console).await,
        Command::Dashboard(command) => Box::pin(command.run(global, console)).await,
        Command::Diagnostics(command) => command.run(global, console).await,
        Command::Version(command) => command.run(global, console).await,
        Command::Stat(command) => command.run(global, console).await,
        Command::Edges(command) => command.run(global, console).await,
        Command::Routes(command) => command.run(global, console).await,
        Command::Top(command) => command.run(global, console).await,
        Command::Tap(command) => command.run(global, console).await,
        Command::Explain(command) => command.run(global, console).await,
        Command::Suggest(command) => command.run(global, console).await,
        Command::DryRun(command) => command.run(global, console).await,
        Command::Proxies(command) => command.run(global, console).await,
        Command::Inject(command) => command.run(global, console).await,
        Command::Uninject(command) => command.run(console),
        Command::Validate(command) => command.run(global, console),
        Command::Token(command) => command.run(global, console),
        Command::Completion(command) => command.run(args::command(), console),
    }
}
