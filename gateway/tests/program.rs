//! The program as a process: what it prints, and how it refuses an environment that is wrong.

#![allow(clippy::unwrap_used, reason = "a test ends with the first surprise")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_weft-gateway"));
    program.args(arguments).env_clear();
    program.env("WEFT_TRUSTED_HOPS", "9").output().unwrap()
}

#[test]
fn program_names_its_version() {
    let printed = run(&["--version"]);
    assert!(printed.status.success());
    let version = format!("weft-gateway {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), version);
}

#[test]
fn wrong_start_is_refused_with_every_mistake() {
    let unknown = run(&["serve"]);
    assert_eq!(unknown.status.code(), Some(64));
    let refused = run(&["run"]);
    assert_eq!(refused.status.code(), Some(78));
    let text = String::from_utf8(refused.stderr).unwrap();
    for variable in ["WEFT_TRUSTED_HOPS", "WEFT_NAMESPACE", "WEFT_POD_IPS"] {
        assert!(text.contains(variable), "{text}");
    }
}
