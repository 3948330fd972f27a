//! Redirects the pod's TCP traffic to the proxy, in the kernel, and checks that this works before
//! the application starts.
//!
//! Runs once, in the pod's network namespace, as the init container
//! `weft-capture` with uid 0 and NET_ADMIN. The rules live in the kernel from
//! then on, so the proxy itself needs no privilege. They can be written again
//! at any time: the whole table is replaced in one transaction.
//!
//! Where the chart's value capture.mode is `node` the init container has no privilege either: it
//! waits for `weft-node`, the agent of its node, which enters the pod's network namespace and
//! writes the same rules there.
//!
//! Imports `net`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use runtime::env::EnvReader;

use crate::capture::by_node::ByNodeError;
use crate::capture::rules::Forwarded;
use crate::capture::settings::{BadArguments, Settings, Then, known_service};

pub(crate) mod agent;
pub(crate) mod by_node;
pub(crate) mod check;
pub(crate) mod exchange;
pub(crate) mod nftables;
pub(crate) mod rules;
pub(crate) mod settings;

/// Why the pod's traffic is not, or not provably, brought to the proxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error(transparent)]
    Arguments(#[from] BadArguments),
    #[error("traffic redirection could not be written: {0}")]
    Write(#[from] nftables::WriteError),
    #[error("traffic redirection was not written by the node: {0}")]
    ByNode(#[from] ByNodeError),
    #[error("traffic redirection does not work: {0}")]
    Check(#[from] check::CheckError),
}

/// The subcommand `capture`, by its arguments.
///
/// # Errors
/// See [`CaptureError`]; with `--check`, rules may have been written.
pub(crate) fn run(
    arguments: impl IntoIterator<Item = String>,
) -> Result<Vec<check::CheckOutcome>, CaptureError> {
    let settings = Settings::from_arguments(arguments)?;
    let forwarded = match settings.then {
        Then::CheckOnly => Forwarded::Pass,
        Then::ByNode => by_node::wait(&settings)?,
        Then::Write | Then::WriteAndCheck => nftables::write(&settings)?,
    };
    let mut outcomes = Vec::new();
    if forwarded == Forwarded::Redirected {
        outcomes.push(check::CheckOutcome::ForwardedToo);
    }
    if settings.then != Then::Write {
        let service = known_service(EnvReader::from_env());
        outcomes.extend(check::check(&settings, service)?);
    }
    Ok(outcomes)
}

/// [`run`] for `main`: reports the result on stderr. Exit code 2 means that the arguments are
/// wrong, 1 that something failed.
pub fn command(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let began = Instant::now();
    let (code, lines) = match run(arguments) {
        Ok(outcomes) => {
            let mut lines = vec!["traffic is redirected".to_owned()];
            lines.extend(outcomes.iter().map(ToString::to_string));
            lines.push(format!("done after {} ms", began.elapsed().as_millis()));
            (ExitCode::SUCCESS, lines)
        }
        Err(CaptureError::Arguments(bad)) => (ExitCode::from(2), vec![bad.to_string()]),
        Err(error) => (ExitCode::FAILURE, vec![error.to_string()]),
    };
    let mut stderr = std::io::stderr().lock();
    for line in lines {
        // No output is left when stderr is closed; the exit code remains.
        let _ = writeln!(stderr, "weft-capture: {line}");
    }
    code
}

#[cfg(test)]
mod tests;
