//! `weft-controller` runs a replica of the control plane; `weft-controller leave`
//! prepares the mesh for being uninstalled.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use policy::terminal::acts_upon;
use runtime::env::EnvReader;
use runtime::log::Format;
use weft_controller::{Caps, Settings, bounded, leave as uninstall, run as run_replica};

// Lists of ten thousand pods and two thousand streams come and go; glibc's own keeps
// what they held.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let ended = match std::env::args().nth(1).as_deref() {
        None | Some("run") => run().await,
        Some("leave") => leave().await,
        Some("--version") => {
            println!("weft-controller {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Some(other) => Err(anyhow::anyhow!("{other:?} is neither run nor leave")),
    };
    runtime::log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    // First, so that a signal while starting is not lost.
    let signal = runtime::stop::signal().context("signals")?;
    let mut settings = Settings::read(EnvReader::from_env())?;
    runtime::log::init(&settings.log, Format::Json, acts_upon)?;
    // Before anything is opened: how many streams there may be follows it.
    runtime::files::raise();
    let memory = runtime::cgroup::memory_limit(Path::new(runtime::cgroup::ROOT));
    let files = runtime::files::limit();
    settings.caps = Caps::of(memory, files);
    let caps = settings.caps;
    tracing::info!(
        memory,
        files,
        ?caps,
        "bounds follow the limits of memory and open files"
    );
    let by_memory = Caps::of(memory, None).connections;
    if caps.connections < by_memory {
        tracing::warn!(
            files,
            connections = caps.connections,
            by_memory,
            "the limit of open files (RLIMIT_NOFILE), not memory, bounds how many proxies this \
             replica serves; raise the hard limit that the container runtime sets (LimitNOFILE \
             of its systemd unit)"
        );
    }
    let client = kube::Client::try_default().await.context("API server")?;
    let client = bounded(&client);
    run_replica(settings, client, async {
        let name = signal.await;
        tracing::info!(signal = name, "ending on a signal");
    })
    .await
}

async fn leave() -> anyhow::Result<()> {
    let mut env = EnvReader::from_env();
    let namespace: Option<String> = env.required("WEFT_NAMESPACE");
    let namespace = env.finish_with(|| namespace)?;
    match kube::Client::try_default().await {
        Ok(client) => {
            let client = bounded(&client);
            print!("{}", uninstall(client, &namespace).await?);
        }
        // An uninstall must not hang on this.
        Err(error) => println!("The API server cannot be reached, nothing was marked: {error}"),
    }
    Ok(())
}
