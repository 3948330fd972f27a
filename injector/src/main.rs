//! The program `weft-injector`: webhooks that inject proxies into pods, refuse invalid objects of
//! SMI and of Weft, and convert SMI objects between their versions.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

mod account;
mod authority;
mod bundle;
mod convert;
mod metrics;
mod mutate;
mod obstacles;
mod reconciler;
mod releases;
mod review;
mod server;
mod settings;
mod spelling;
mod trust_domain;
mod validate;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use crds::smi::validation::Cluster;
use identity::tls::{ServingHandle, webhook_server_config};
use kube::Client;
use parking_lot::Mutex;
use policy::terminal::acts_upon;
use prometheus_client::registry::Registry;
use runtime::admin::{self, Admin};
use runtime::env::EnvReader;
use runtime::ready::Ready;
use runtime::{files, listen, log, stop, task};
use tokio::net::TcpListener;
use tracing::info;

use metrics::Metrics;
use mutate::Mutator;
use obstacles::Obstacles;
use reconciler::Reconciler;
use server::Webhooks;
use settings::Settings;

// A review takes many times its length and is gone at once; glibc's own keeps what it
// held, for each thread.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Where the API server calls.
const WEBHOOK_PORT: u16 = 8443;
/// Probes and metrics.
const ADMIN_PORT: u16 = 8080;
/// How long calls are still taken after SIGTERM: until every node knows that this pod is no
/// endpoint any more.
const LINGER: Duration = Duration::from_secs(5);
/// How long open connections may take to end after that.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("weft-injector {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let settings = match Settings::read(EnvReader::from_env()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("weft-injector: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = run(settings);
    log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-injector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    log::init(&settings.log, log::Format::Json, acts_upon)?;
    // Before anything is opened: each connection is a file.
    files::raise();
    // One thread for what waits; what is read and judged has threads of its own.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(serve(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    // First of all, so that no SIGTERM is lost.
    let mut ended = Box::pin(stop::signal().context("no signal handler")?);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let ready = Ready::new();
    let hold = ready.hold("caBundle where the API server looks for it");
    let same = ready.hold("controllers of the same trust domain");
    let admin = Admin::bind(listen::everywhere(ADMIN_PORT))
        .await
        .context("admin port")?;
    let listener = TcpListener::bind(listen::everywhere(WEBHOOK_PORT))
        .await
        .context("webhook port")?;
    let registry = Arc::new(Mutex::new(registry));
    task::spawn("admin", admin.run(ready, registry, admin::nothing_more));

    let client = Client::try_default().await.context("no API server")?;
    let agreed = trust_domain::agreed(
        client.clone(),
        &settings.namespace,
        &settings.inject.trust_domain,
    );
    tokio::select! {
        () = agreed => same.release(),
        signal = &mut ended => {
            info!(signal, "injector ends");
            return Ok(());
        }
    }
    let serving = ServingHandle::empty();
    let own = settings.namespace.as_str();
    let reconciler = Reconciler::new(&client, own, serving.clone(), metrics.clone());
    task::spawn("reconciler", reconciler.run(hold));

    let version = &settings.inject.version;
    info!(
        namespace = settings.namespace,
        pod = settings.pod_name,
        version,
        "injector started"
    );
    let obstacles = Obstacles::new(client.clone(), settings.pod_name.clone());
    let mutator = Mutator::new(client, settings.inject).gating(settings.releases);
    let cluster = Cluster {
        domain: settings.cluster_domain.into(),
        mesh_namespace: settings.namespace.as_str().into(),
    };
    let webhooks = Webhooks::new(mutator, cluster, metrics).reporting(obstacles);
    let webhooks = Arc::new(webhooks);
    let stop = async {
        let signal = ended.await;
        info!(signal, "injector ends");
        tokio::time::sleep(LINGER).await;
    };
    let tls = webhook_server_config(&serving);
    server::serve(listener, tls, webhooks, stop, GRACE).await;
    Ok(())
}
