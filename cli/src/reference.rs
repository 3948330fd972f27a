//! Generates `docs/cli.md` from the commands' help.
//!
//! May import `args`.
//!
//! Claims: observe-82

use std::fmt::Write as _;

use clap::{Arg, Command};

pub use crate::commands::check::page as page_of_checks;

const HEAD: &str = "\
# weft

Made from the commands by `WEFT_WRITE_GENERATED=1 cargo test -p cli reference`; edit those.

One static file; as `kubectl-weft` in the PATH it is `kubectl weft`. It speaks to the API server
with its user's kubeconfig and rights. Answers go to the output, words about them to the error
stream; JSON and YAML are the API's own. Where there is no answer, `-o json` and `-o yaml` print why:
`success: false` and `error`. Exit status: 0 yes or fine, 1 no (refused, a failed check),
2 bad usage or input, 3 it could not be found out. A name of nothing is bad input, reported with
the nearest that there is; so are an option that is said twice and a port or `-A` that would be
passed over. `NO_COLOR` switches colours off. A missing right is named with the role that grants it.
";

/// The whole page.
#[must_use]
pub fn page(mut command: Command) -> String {
    command.build();
    let mut page = HEAD.to_owned();
    let _ = write!(page, "\n## Options of every command\n\n");
    options(
        &mut page,
        command.get_arguments().filter(|arg| arg.is_global_set()),
    );
    for command in command.get_subcommands() {
        let _ = write!(page, "\n## weft {}\n\n", command.get_name());
        let about = command.get_long_about().or_else(|| command.get_about());
        let about = about.map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, "{}.\n", about.trim_end_matches('.'));
        let mut usage = command.clone();
        let usage = usage.render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
        let _ = writeln!(page, "    {usage}\n");
        options(
            &mut page,
            command.get_arguments().filter(|arg| !arg.is_global_set()),
        );
        if let Some(example) = example(command) {
            let _ = writeln!(page, "\nExample: `{example}`");
        }
    }
    page
}

/// The command line that the help of a command shows.
#[must_use]
pub fn example(command: &Command) -> Option<String> {
    let after = command.get_after_help()?.to_string();
    let (_, example) = after.split_once("Example:\n  ")?;
    Some(example.lines().next()?.to_owned())
}

fn options<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let shown = arguments.filter(|arg| !arg.is_hide_set() && arg.get_id() != "help");
    let rows: Vec<String> = shown.map(row).collect();
    if !rows.is_empty() {
        let _ = writeln!(
            page,
            "| argument | meaning |\n|---|---|\n{}",
            rows.join("\n")
        );
    }
}

fn row(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let value: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let value = if takes {
        value.join(" ")
    } else {
        String::new()
    };
    let mut forms = Vec::new();
    if let Some(short) = arg.get_short() {
        forms.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        forms.push(format!("--{long}"));
    }
    let name = match forms.as_slice() {
        [] => value,
        forms if value.is_empty() => forms.join(", "),
        forms => format!("{} {value}", forms.join(", ")),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let default: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let default = if default.is_empty() || !takes {
        String::new()
    } else {
        format!("; default {}", default.join(","))
    };
    format!(
        "| `{}` | {}{default} |",
        name.replace('|', "\\|"),
        help.replace('|', "\\|")
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::args;

    #[test]
    fn reference_page_holds_what_the_commands_say() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
        let wanted = page(args::command());
        if std::env::var_os("WEFT_WRITE_GENERATED").is_some() {
            std::fs::write(&file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == wanted, "docs/cli.md is not what the commands say");
    }

    #[test]
    fn page_of_checks_holds_what_the_checks_say() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checks.md");
        let wanted = page_of_checks();
        if std::env::var_os("WEFT_WRITE_GENERATED").is_some() {
            std::fs::write(&file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == wanted, "docs/checks.md is not what the checks say");
    }

    #[test]
    fn help_of_every_command_shows_an_example_of_itself() {
        for command in args::command().get_subcommands() {
            let example = example(command).unwrap_or_default();
            let start = format!("weft {}", command.get_name());
            assert!(
                example.starts_with(&start),
                "{}: {example:?}",
                command.get_name()
            );
        }
    }
}
