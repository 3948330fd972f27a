//! From arguments to an exit status.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{self, Cli, Command};
use crate::commands::completion;
use crate::console::Console;
use crate::failure::{Conclusion, Failure, exit_code};
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
    if let Some(text) = ended.as_ref().err().and_then(Failure::words) {
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
) -> Result<Conclusion, Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(words) = completion::asked(&arguments) {
        return completion::complete(args::command(), &words, console).await;
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Who says nothing at all is shown the help itself.
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            console.words(error.render().to_string().trim_end())?;
            return Err(Failure::usage("say what is to be done"));
        }
        Err(error) if error.use_stderr() => return Err(Failure::usage(in_one_line(&error))),
        // Help and version are answers.
        Err(answer) => {
            console.line(answer.render().to_string().trim_end())?;
            return Ok(Conclusion::Yes);
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

/// What is wrong with the arguments, and what may have been meant, without the usage that
/// `--help` shows better.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let tips = paragraphs.flat_map(str::lines);
    let tips = tips.filter_map(|line| line.trim().strip_prefix("tip: "));
    let words = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let clauses: Vec<&str> = std::iter::once(&*words).chain(tips).collect();
    format!("{}; see --help", clauses.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_arguments_are_told_in_one_line_with_what_may_be_meant() {
        for (line, told) in [
            (
                "weft stta",
                "unrecognized subcommand 'stta'; a similar subcommand exists: 'stat'; see --help",
            ),
            (
                "weft edges --sinc 5m",
                "unexpected argument '--sinc' found; a similar argument exists: '--since'; see --help",
            ),
            (
                "weft explain web",
                "the following required arguments were not provided: <TO>; see --help",
            ),
            (
                "weft check --fail-on warn",
                "invalid value 'warn' for '--fail-on <RESULT>' [possible values: error, warning]; \
                 a similar value exists: 'warning'; see --help",
            ),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(in_one_line(&error), told);
        }
    }

    #[tokio::test]
    async fn who_says_nothing_is_shown_the_help() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console {
            input: &mut io::empty(),
            out: &mut out,
            err: &mut err,
            color: false,
        };
        let ended = run([OsString::from("weft")], &mut console).await;
        assert!(matches!(ended, Err(Failure::Usage(_))), "{ended:?}");
        let err = String::from_utf8(err).unwrap();
        assert!(err.lines().any(|line| line.starts_with("Usage:")), "{err}");
    }
}
