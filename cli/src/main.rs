//! The program `weft`, which is also the kubectl plugin `kubectl-weft`.

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
