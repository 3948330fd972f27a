//! Runs the command that the arguments name, to its exit status.
//!
//! Claims: observe-41

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use super::commands::ClusterCommand as _;
use crate::args::{self, Cli, Command};
use crate::commands::completion;
use crate::console::{self, Console};
use crate::failure::{Conclusion, Failure, exit_code};
use crate::global::Global;
use crate::line::Line;
use crate::output::{self, Format};

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let mut console = Console {
        input: &mut io::stdin(),
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        color: console::color(),
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
    // What has no end of a line may not be written yet.
    let ended = match console.out.flush() {
        Err(error) if ended.is_ok() => Err(error.into()),
        _ => ended,
    };
    if let Some(text) = ended.as_ref().err().and_then(Failure::words) {
        // If the error stream fails, too, no stream is left for a message.
        let _ = console.word(&format!("weft: {text}"));
    }
    exit_code(&ended)
}

/// Runs a command.
///
/// # Errors
/// When it has no result.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(words) = completion::requested(&arguments) {
        return completion::complete(args::command(), &words, console).await;
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        // Without any argument the help itself is shown.
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            console.words(error.render().to_string().trim_end())?;
            return Err(Failure::usage("say what is to be done"));
        }
        Err(error) if error.use_stderr() => return Err(Failure::usage(in_one_line(&error))),
        // Help and version are results.
        Err(answer) => {
            console.line(answer.render().to_string().trim_end())?;
            return Ok(Conclusion::Yes);
        }
    };
    must_be_said_once(&arguments)?;
    let mut out = NotedOutput {
        out: &mut *console.out,
        is_used: false,
    };
    let mut noted = Console {
        input: &mut *console.input,
        out: &mut out,
        err: &mut *console.err,
        color: console.color,
    };
    let ended = Box::pin(run_command(&cli, &mut noted)).await;
    if let Err(failure) = &ended
        && cli.command.prints_data()
        && !out.is_used
    {
        print_as_data(failure, &cli.global, console);
    }
    ended
}

/// An output, and whether anything was written to it.
struct NotedOutput<'a> {
    out: &'a mut dyn Write,
    is_used: bool,
}

impl Write for NotedOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.is_used |= written > 0;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints a failure in the form of the result, JSON or YAML: programs read no error stream.
fn print_as_data(failure: &Failure, global: &Global, console: &mut Console<'_>) {
    let format = global.format(&[Format::Json, Format::Yaml]);
    if let (Some(words), Ok(format)) = (failure.words(), format) {
        let value = serde_json::json!({"success": false, "error": words});
        // If it cannot be written, the exit status has the same meaning.
        let _ = output::data(console, format, &value);
    }
}

async fn run_command(cli: &Cli, console: &mut Console<'_>) -> Result<Conclusion, Failure> {
    let global = &cli.global;
    global.must_agree()?;
    match &cli.command {
        Command::Check(command) => Box::pin(command.run(global, console)).await,
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
        Command::Release(command) => command.run(global, console).await,
        Command::Fault(command) => command.run(global, console).await,
        Command::Proxies(command) => command.run(global, console).await,
        Command::Inject(command) => command.run(global, console).await,
        Command::Uninject(command) => command.run(global, console),
        Command::Validate(command) => command.run(global, console),
        Command::Convert(command) => command.run(global, console).await,
        Command::Token(command) => command.run(global, console),
        Command::Uninstall(command) => command.run(global, console).await,
        Command::Completion(command) => {
            global.without_output("a script")?;
            command.run(args::command(), console)
        }
    }
}

/// # Errors
/// When an option of every command stands before the command and behind it too.
fn must_be_said_once(arguments: &[OsString]) -> Result<(), Failure> {
    let mut command = args::command();
    command.build();
    let mut line = Line::new(&command);
    for word in arguments.iter().skip(1) {
        line.read(&word.to_string_lossy());
    }
    match line.given_twice() {
        Some(option) => Err(Failure::usage(format!(
            "the argument '{option}' cannot be used multiple times; see --help"
        ))),
        None => Ok(()),
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
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::console::Streams;

    #[test]
    fn wrong_arguments_yield_one_line_with_suggestion() {
        for (line, message) in [
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
            assert_eq!(in_one_line(&error), message);
        }
    }

    /// How it ended, and the messages meanwhile.
    async fn ran(line: &str) -> (Result<Conclusion, Failure>, String) {
        let mut streams = Streams::default();
        let mut console = streams.console();
        let ended = run(line.split(' ').map(OsString::from), &mut console).await;
        let (_, err) = streams.texts();
        (ended, err)
    }

    /// No file is there, of none of these names.
    const NOWHERE: &str = "/nowhere/config";

    /// Why a command line is refused before a connection is made or a file is read.
    async fn refused(line: &str) -> Option<String> {
        let (ended, _) = ran(&format!("weft {line} --kubeconfig {NOWHERE}")).await;
        let words = ended.err()?.to_string();
        let wants_files = [NOWHERE, "No such file"];
        let is_readable = wants_files.iter().any(|file| words.contains(*file));
        (!is_readable).then_some(words)
    }

    /// The README, the pages and the decisions, but for the page that is made from the commands.
    fn pages() -> Vec<(PathBuf, String)> {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = vec![top.join("README.md")];
        for folder in ["docs", "docs/decisions"] {
            let entries = std::fs::read_dir(top.join(folder)).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        }
        files.retain(|file| file.extension().is_some_and(|kind| kind == "md"));
        files.retain(|file| !file.ends_with("docs/cli.md"));
        let pages = files.into_iter().map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            (file, text)
        });
        pages.collect()
    }

    #[tokio::test]
    async fn every_command_line_of_manual_can_be_parsed() {
        let mut lines = 0;
        for (file, page) in pages() {
            let all = page.lines();
            for line in all.filter_map(|line| line.strip_prefix("    weft ")) {
                // Without what the shell does with it.
                let ends = [" # ", " | ", " > "].map(|end| line.find(end));
                let end = ends.into_iter().flatten().min().unwrap_or(line.len());
                let words: Vec<&str> = line[..end].split_whitespace().collect();
                let why = refused(&words.join(" ")).await;
                assert_eq!(why, None, "{}: weft {line}", file.display());
                lines += 1;
            }
        }
        assert!(lines > 11, "{lines}");
        for bad in ["edges svc/cart --sinc 5m", "edges -o html", "stat secrets"] {
            assert!(refused(bad).await.is_some(), "{bad}");
        }
    }

    /// The first word of a command line in a sentence that no command is, or no option of it.
    fn unknown<'a>(command: &clap::Command, line: &'a str) -> Option<&'a str> {
        let mut words = line.split_whitespace().skip(1);
        let name = words.next()?;
        let Some(command) = command.find_subcommand(name) else {
            return Some(name);
        };
        let is_known = |word: &str| {
            let Some(option) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                return true;
            };
            let mut all = command.get_arguments();
            match option.strip_prefix('-') {
                Some(long) => all.any(|arg| arg.get_long() == long.split('=').next()),
                None => all.any(|arg| arg.get_short() == option.chars().next()),
            }
        };
        words.find(|word| !is_known(word))
    }

    /// They may stand there without what they need, or with names in capitals.
    #[test]
    fn every_inline_command_of_manual_exists() {
        let mut command = args::command();
        command.build();
        let mut found = 0;
        for (file, page) in pages() {
            // Quotes end with their paragraph, whatever is missing.
            let quoted = page
                .split("\n\n")
                .flat_map(|text| text.split('`').skip(1).step_by(2));
            for line in quoted.filter(|text| text.starts_with("weft ")) {
                assert_eq!(unknown(&command, line), None, "{}: {line}", file.display());
                found += 1;
            }
        }
        assert!(found > 50, "{found}");
        for (bad, word) in [
            ("weft stats pod", "stats"),
            ("weft proxy-config POD --trafic", "--trafic"),
            ("weft stat pod -x", "-x"),
        ] {
            assert_eq!(unknown(&command, bad), Some(word));
        }
    }

    #[tokio::test]
    async fn who_says_nothing_is_shown_the_help() {
        let (ended, err) = ran("weft").await;
        assert!(matches!(ended, Err(Failure::Usage(_))), "{ended:?}");
        assert!(err.lines().any(|line| line.starts_with("Usage:")), "{err}");
    }

    /// Without a kubeconfig: none of these sends a request.
    // Claims: observe-45
    #[tokio::test]
    async fn ignored_or_contradictory_options_are_refused_before_any_query() {
        let once = "cannot be used multiple times";
        for (line, word) in [
            ("-n shop stat deploy -n bank", once),
            ("-n shop stat deploy --namespace=bank", once),
            ("-A edges -A", once),
            ("-o json --context a edges -o yaml", once),
            ("stat deploy -n shop -n bank", once),
            ("stat deploy -w -w", once),
            ("stat deploy -n shop -A", "-n shop and -A"),
            ("-A edges -n shop", "-n shop and -A"),
            ("proxy-config web-1 -A", "say -n NAME instead of -A"),
            ("log-level web-1 info -A", "say -n NAME instead of -A"),
            ("release status web -A", "say -n NAME instead of -A"),
            ("release pause web -o json", "leave -o out"),
            ("release abort web --watch", "--watch is for status"),
            ("release status crel/web:80", "leave the port out"),
            ("explain web cart -A", "say -n NAME instead of -A"),
            ("tap deploy/web -A", "say -n NAME instead of -A"),
            ("dry-run --access deny -A", "say -n NAME instead of -A"),
            ("inject - -o json", "leave -o out"),
            ("uninject - -o json", "leave -o out"),
            ("uninstall -o json", "leave -o out"),
            ("completion bash -o json", "leave -o out"),
            ("diagnostics -o json", "-o FILE.tgz"),
            ("stat deploy/web:80", "leave the port out"),
            ("stat svc/cart:80 --to svc/api", "leave the port out"),
            ("stat svc --from deploy/web:80", "leave the port out"),
            ("routes svc/cart:80", "leave the port out"),
            ("identity pod/web-1:80", "leave the port out"),
            ("proxy-config web-1:80", "leave the port out"),
            ("explain deploy/web:80 svc/cart", "leave the port out"),
            (
                "explain outside svc/cart --from-namespace shop",
                "leave --from-namespace out",
            ),
            (
                "explain web external/a.example:443 --to-namespace shop",
                "leave --to-namespace out",
            ),
            ("proxy-config ..", "no name of an object"),
            ("explain web cart:99999999", "a number from 1 to 65535"),
            ("explain web svc/cart:0", "a number from 1 to 65535"),
            ("explain web cart:", "a number from 1 to 65535"),
        ] {
            let (ended, err) = ran(&format!("weft {line}")).await;
            let Err(Failure::Usage(words)) = ended else {
                panic!("{line}: {ended:?}");
            };
            assert!(words.contains(word), "{line}: {words}");
            assert_eq!(err, "", "{line}");
        }
    }

    /// What a command prints that has no cluster to query.
    async fn printed(line: &str) -> String {
        let mut streams = Streams::default();
        let mut console = streams.console();
        let line = format!("weft {line} --kubeconfig {NOWHERE}");
        let ended = run(line.split(' ').map(OsString::from), &mut console).await;
        assert!(ended.is_err(), "{line}: {ended:?}");
        streams.texts().0
    }

    #[tokio::test]
    async fn failure_of_a_command_that_prints_json_is_json() {
        for line in [
            "check",
            "check --pre",
            "stat deploy",
            "edges",
            "routes svc/cart",
            "explain deploy/web svc/cart",
            "suggest",
            "dry-run --access deny",
            "proxies",
            "proxy-config web-1",
            "identity deploy",
            "release status web",
            "tap deploy/web",
            // Before anything is queried.
            "proxy-config web-1 -A",
            "stat deploy -n shop -A",
        ] {
            let json: serde_json::Value =
                serde_json::from_str(&printed(&format!("{line} -o json")).await).unwrap();
            assert_eq!(json["success"], false, "{line}: {json}");
            assert!(!json["error"].as_str().unwrap().is_empty(), "{line}");
        }
        let yaml = printed("edges -o yaml").await;
        let yaml: serde_json::Value = serde_yaml_ng::from_str(&yaml).unwrap();
        assert_eq!(yaml["success"], false, "{yaml}");
        // What knows something prints that, once.
        let version = printed("version -o json").await;
        let version: serde_json::Value = serde_json::from_str(&version).unwrap();
        assert_eq!(version["client"], env!("CARGO_PKG_VERSION"));
        for line in [
            "edges",
            "edges -o dot",
            "edges -o xml",
            "inject - -o json",
            "top -o json",
            "log-level web-1 info -o json",
            "diagnostics -o json",
            "dashboard -o json",
        ] {
            assert_eq!(printed(line).await, "", "{line}");
        }
    }

    #[tokio::test]
    async fn option_duration_out_of_bounds_is_refused_with_bounds() {
        for (line, bounds) in [
            ("stat deploy -t -1m", ", from 10s to 5m"),
            ("stat deploy -t 5s", ", from 10s to 5m; you may mean 10s"),
            ("stat deploy -t 0s", ", from 10s to 5m; you may mean 10s"),
            ("routes svc/cart --window -1m", ", from 10s to 5m"),
            ("top deploy/web --paths -t -1m", ", from 1s to 1m"),
            (
                "top deploy/web --paths -t 2m",
                ", from 1s to 1m; you may mean 1m",
            ),
            ("edges --since -1m", ", 1s or more"),
            ("suggest --since -1m", ", from 1m to 1h"),
            ("suggest --since 2h", ", from 1m to 1h; you may mean 1h"),
            ("dry-run --access deny --watch -1m", ", 1s or more"),
            ("token --expires -1d", ", 1s or more"),
            ("check --wait -1m", ""),
            ("version --request-timeout -1s", ", 1ms or more"),
        ] {
            let (ended, _) = ran(&format!("weft {line}")).await;
            let Err(Failure::Usage(words)) = ended else {
                panic!("{line}: {ended:?}");
            };
            let message = format!(": must be a time such as 30s or 2m{bounds}; see --help");
            assert!(words.ends_with(&message), "{line}: {words}");
        }
    }
}
