//! `weft-echo` without arguments serves; with a subcommand it is a client.

use std::process::ExitCode;

use e2e::echo::{args, serve, settings::Settings};

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weft-echo: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = runtime.block_on(async {
        if words.is_empty() || words == ["serve"] {
            serve::until_terminated(Settings::from_env()?).await
        } else {
            args::run(&words).await
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
