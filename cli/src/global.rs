//! Options that every command takes, as `kubectl` names them.
//!
//! They are in one place so that no command takes `-n` for something else.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::failure::Failure;
use crate::output::{Format, number};

/// Where Weft is installed by default.
pub(crate) const WEFT_NAMESPACE: &str = "weft-system";
/// No response comes in no time.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Namespace; the kubeconfig's without it
    #[arg(short, long, global = true, value_name = "NAME", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, global = true)]
    pub(crate) all_namespaces: bool,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Kubeconfig; KUBECONFIG or ~/.kube/config without it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) impersonate: Option<String>,
    /// Longest time for one request
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "10s",
        value_parser = number::at_least(SHORTEST_TIMEOUT),
        allow_hyphen_values = true
    )]
    pub(crate) request_timeout: Duration,
    /// table, wide, json or yaml; what else a command prints stands in its help
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub(crate) output: Option<String>,
    /// Namespace that Weft is installed in
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = WEFT_NAMESPACE,
        value_parser = namespace
    )]
    pub(crate) weft_namespace: String,
}

impl Global {
    /// The format of `-o`, among those that the command can print.
    ///
    /// # Errors
    /// When the command has no such output.
    pub(crate) fn format(&self, allowed: &[Format]) -> Result<Format, Failure> {
        Format::read(self.output.as_deref(), allowed)
    }

    /// # Errors
    /// When one namespace is named, and all of them: one of the two would be ignored.
    pub(crate) fn must_agree(&self) -> Result<(), Failure> {
        match &self.namespace {
            Some(name) if self.all_namespaces => Err(Failure::usage(format!(
                "-n {name} and -A: say one namespace or all of them, not both"
            ))),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// When all namespaces are requested for what is in one; `why` is the sentence of the reason.
    pub(crate) fn in_one_namespace(&self, why: &str) -> Result<(), Failure> {
        match self.all_namespaces {
            true => Err(Failure::usage(format!("{why}; say -n NAME instead of -A"))),
            false => Ok(()),
        }
    }

    /// # Errors
    /// When a namespace is named for what is in none; `why` is the sentence of the reason.
    pub(crate) fn in_cluster(&self, why: &str) -> Result<(), Failure> {
        let said = match &self.namespace {
            Some(name) => format!("-n {name}"),
            None if self.all_namespaces => "-A".to_owned(),
            None => return Ok(()),
        };
        Err(Failure::usage(format!("{why}; leave {said} out")))
    }

    /// # Errors
    /// When `-o` is given to a command that prints `one` thing in one form.
    pub(crate) fn without_output(&self, one: &str) -> Result<(), Failure> {
        match &self.output {
            Some(text) => Err(Failure::usage(format!(
                "-o {text}: this command prints {one} in one form; leave -o out"
            ))),
            None => Ok(()),
        }
    }
}

/// A namespace as it was typed.
///
/// # Errors
/// When it cannot be the name of one.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = text.bytes().all(|byte| letter(byte) || byte == b'-');
    let ends = [text.bytes().next(), text.bytes().last()];
    if inner && ends.into_iter().all(|end| end.is_some_and(letter)) && text.len() <= 63 {
        return Ok(text.to_owned());
    }
    Err(
        "a namespace has up to 63 lower case letters, digits and dashes, and no dash at its ends"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_namespace_name_is_refused_before_any_query() {
        for good in ["shop", "a", "1-2", &"x".repeat(63)] {
            assert_eq!(namespace(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "a?b=c#",
            "../x",
            "a/b",
            "Shop",
            "-a",
            "a-",
            "a.b",
            "a b",
            &"x".repeat(64),
        ] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}
