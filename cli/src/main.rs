//! `weft`, also as `kubectl-weft` a plugin of kubectl.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_cli::main()
}
