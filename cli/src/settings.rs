//! The settings from the environment. HOME is read by the Kubernetes client.

use std::io::IsTerminal as _;
use std::path::PathBuf;

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

/// The files that `KUBECONFIG` names.
pub(crate) fn kubeconfigs() -> Vec<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a convention of Kubernetes, and no setting of ours"
    )]
    let list = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let paths = std::env::split_paths(&list);
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

fn colored(terminal: bool, unwanted: Option<&std::ffi::OsStr>) -> bool {
    terminal && unwanted.is_none_or(std::ffi::OsStr::is_empty)
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
}
