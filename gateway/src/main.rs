//! `weft-gateway run` serves the listeners of one Gateway.

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
use weft_gateway::{GatewaySettings, run as run_gateway};
use weft_proxy::flush_access_log;

// As in the proxy.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("run") | None => run(),
        Some("--version") => {
            println!("weft-gateway {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(other) => {
            eprintln!("weft-gateway: {other:?} is no command; known is run");
            ExitCode::from(64)
        }
    }
}

fn run() -> ExitCode {
    let began = Instant::now();
    let settings = match GatewaySettings::from_env() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("weft-gateway: {error}");
            return ExitCode::from(78);
        }
    };
    let level = &settings.proxy.process.log;
    if let Err(error) = runtime::log::init(level, Format::Json, acts_upon) {
        eprintln!("weft-gateway: WEFT_LOG: {error}");
        return ExitCode::from(78);
    }
    // Before anything is opened: how many connections are served follows what there may be.
    runtime::files::raise();
    let code = match run_gateway(settings, began) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the Gateway could not go on");
            ExitCode::FAILURE
        }
    };
    flush_access_log();
    runtime::log::flush();
    code
}
