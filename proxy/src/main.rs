//! `weft-proxy run` is the sidecar, `capture` the init container, `drain` the
//! hook that runs when the pod is deleted, `capture-agent` the DaemonSet that captures pods for
//! init containers without privileges.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

use std::process::ExitCode;
use std::time::Instant;

use policy::terminal::acts_upon;
use runtime::log::Format;
use weft_proxy::{
    Settings, capture_agent_command, capture_command, drain_command, flush_access_log,
    run as run_proxy,
};

// Under load it holds two thirds of what glibc's holds, and streams of bytes cost
// no page faults.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("run") | None => run(),
        Some("capture") => capture_command(arguments),
        Some("capture-agent") => capture_agent_command(),
        Some("drain") => drain_command(),
        Some("--version") => {
            println!("weft-proxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(other) => {
            eprintln!(
                "weft-proxy: {other:?} is no command; known are run, capture, capture-agent and drain"
            );
            ExitCode::from(64)
        }
    }
}

fn run() -> ExitCode {
    let began = Instant::now();
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("weft-proxy: {error}");
            return ExitCode::from(78);
        }
    };
    let level = &settings.process.log;
    if let Err(error) = runtime::log::init(level, Format::Json, acts_upon) {
        eprintln!("weft-proxy: WEFT_LOG: {error}");
        return ExitCode::from(78);
    }
    // Before anything is opened: how many connections are served follows what there may be.
    runtime::files::raise();
    let code = match run_proxy(settings.workload, began) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the proxy could not go on");
            ExitCode::FAILURE
        }
    };
    flush_access_log();
    runtime::log::flush();
    code
}
