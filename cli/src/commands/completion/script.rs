//! Completion scripts for shells: those of clap, extended by the query for names.

use std::fmt::Write as _;

use clap::Command;
use clap_complete::Shell;

use super::cursor;

/// Queries names, and goes on with the function of clap if there are none. `ASK` is replaced.
const BASH: &str = r#"_weft() {
    local names word
    names=$("$1" ASK "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
    if [[ -z "$names" ]]; then
        _weft_static "$@"
        return
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done <<< "$names"
    # Behind a kind comes a name.
    if [[ "$names" == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

"#;

const ZSH: &str = r#"_weft() {
    local -a names
    names=(${(f)"$($words[1] ASK "${(@)words[2,CURRENT]}" 2>/dev/null </dev/null)"})
    if (( ! $#names )); then
        _weft_static "$@"
        return
    fi
    if [[ $words[CURRENT] == --*=* ]]; then
        compset -P '*='
    fi
    # Behind a kind comes a name.
    if [[ $names[1] == */ ]]; then
        compadd -S '' -a names
    else
        compadd -a names
    fi
}

"#;

const FISH: &str = r#"
function __weft_names
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    test -n "$word"; or set word ''
    $words[1] ASK $words[2..-1] $word 2>/dev/null </dev/null
end
"#;

/// How the function of clap begins, and what it is called behind ours.
const OF_CLAP: &str = "_weft() {";
const BEHIND: &str = "_weft_static() {";

/// The script that completes `command`, and queries names by this word.
pub(super) fn of(shell: Shell, command: &mut Command, ask: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "weft", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let before = |ours: &str| {
        let both = format!("{}{BEHIND}", ours.replace("ASK", ask));
        script.replacen(OF_CLAP, &both, 1)
    };
    match shell {
        Shell::Bash => before(BASH),
        Shell::Zsh => before(ZSH),
        Shell::Fish => format!("{script}{}{}", FISH.replace("ASK", ask), fish(command)),
        _ => script,
    }
}

/// fish needs a line for each argument.
fn fish(command: &Command) -> String {
    let mut lines = String::new();
    for command in command.get_subcommands() {
        let name = command.get_name();
        let begin = format!("complete -c weft -n \"__fish_weft_using_subcommand {name}\"");
        let named = |id: &str| cursor::wanted(name, id).is_some();
        let mut positionals = command.get_positionals();
        if positionals.any(|argument| named(argument.get_id().as_str())) {
            let _ = writeln!(lines, "{begin} -f -a \"(__weft_names)\"");
        }
        for option in command.get_opts() {
            if !named(option.get_id().as_str()) {
                continue;
            }
            let mut flags = String::new();
            if let Some(short) = option.get_short() {
                let _ = write!(flags, " -s {short}");
            }
            if let Some(long) = option.get_long() {
                let _ = write!(flags, " -l {long}");
            }
            let _ = writeln!(lines, "{begin}{flags} -r -f -a \"(__weft_names)\"");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    #[test]
    fn completion_scripts_query_names_before_static_completion() {
        for shell in [Shell::Bash, Shell::Zsh] {
            let script = of(shell, &mut args::command(), "ask-me");
            for function in ["_weft() {", "_weft_static() {"] {
                assert_eq!(script.matches(function).count(), 1, "{shell}: {function}");
            }
            assert!(script.contains(" ask-me \"${"), "{shell}");
            assert!(!script.contains("ASK"), "{shell}");
        }
        let zsh = of(Shell::Zsh, &mut args::command(), "ask-me");
        assert!(zsh.starts_with("#compdef weft\n"), "zsh looks for it there");
        let other = of(Shell::PowerShell, &mut args::command(), "ask-me");
        assert!(!other.is_empty() && !other.contains("ask-me"));
    }

    #[test]
    fn fish_completes_each_argument_that_names_objects() {
        let script = of(Shell::Fish, &mut args::command(), "ask-me");
        assert!(
            script.contains("$words[1] ask-me $words[2..-1]"),
            "{script}"
        );
        for line in [
            "using_subcommand tap\" -f -a \"(__weft_names)\"",
            "using_subcommand tap\" -l to -r -f -a \"(__weft_names)\"",
            "using_subcommand stat\" -s n -l namespace -r -f -a \"(__weft_names)\"",
            "using_subcommand log-level\" -f -a \"(__weft_names)\"",
        ] {
            assert!(script.contains(line), "{line}");
        }
        assert!(!script.contains("using_subcommand check\" -f -a \"(__weft"));
    }
}
