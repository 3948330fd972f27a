//! `weft`, also as `kubectl-weft` a plugin of kubectl.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_cli::main()
}
