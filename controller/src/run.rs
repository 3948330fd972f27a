//! Starts and stops the parts of one replica in order.
//!
//! May import everything; nothing but `main` may import it.

mod apis;
mod context;
mod parts;

use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use kube::Client;
use prometheus_client::registry::Registry;
use runtime::ready::Ready;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use self::context::Context;
use crate::{
    authority::reconciler, metrics::Metrics, observe::propagation::Acks, serve, settings::Settings,
};

/// From the wish to end to the end, for streams, for the Lease and for what is still to be
/// written. Well within what the kubelet gives a pod, of which 3 s go before this begins.
const ENDING: Duration = Duration::from_secs(3);

/// Runs one replica until `end` resolves.
///
/// # Errors
/// When a port cannot be opened or serving fails, or the mesh has another trust domain.
pub async fn run(
    settings: Settings,
    client: Client,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let ready = Ready::new();
    let synced = ready.hold("stores");
    let certified = ready.hold("certificate authority");
    let resolved = ready.hold("names of ExternalServices");
    let acks = Acks::default();
    parts::admin(&settings, ready.clone(), registry, &acks).await?;
    let listener = TcpListener::bind(settings.serve_addr())
        .await
        .context("gRPC port")?;

    tokio::pin!(end);
    // Before the Lease: a mesh of another trust domain is not ours to write to.
    let known = reconciler::same_trust_domain(&client, &settings.namespace, &settings.identity);
    tokio::select! {
        known = known => known?,
        () = &mut end => return Ok(()),
    }

    let (stop, stopping) = watch::channel(false);
    let (publish, latest) = watch::channel(None);
    let (context, elector, writer) =
        Context::new(settings, client, metrics, latest.clone(), stopping.clone());
    let lease = parts::lease(&context, elector);
    let events = parts::event_writer(&context, writer);
    parts::models(&context, publish, (synced, resolved), ready.clone());
    let mut reconciler = parts::authority(&context, ready);
    runtime::task::spawn("acks", acks.follow(latest, context.observed.clone()));
    parts::breakers(&context);
    parts::shares(&context);
    parts::statuses(&context);
    parts::automation(&context);
    parts::trust_bundles(&context);
    parts::storage(&context);

    let roots = tokio::select! {
        roots = context.authority.ready() => roots,
        refused = &mut reconciler => {
            refused.context("certificate authority")??;
            anyhow::bail!("the watch of the certificate authority's Secret ended");
        }
        () = &mut end => {
            stop.send_replace(true);
            let _ = tokio::join!(timeout(ENDING, lease), timeout(ENDING, events));
            return Ok(());
        }
    };
    let certificate = parts::own_certificate(&context);
    certified.release();
    parts::peers(&context, &roots, &certificate);
    let mut writing = apis::aggregated_apis(&context).await?;
    writing.push(events);
    info!(addr = %context.settings.serve_addr(), "serving proxies");
    let served = serve::serve(
        listener,
        &roots,
        &certificate,
        parts::services(&context),
        context.metrics.connections.clone(),
        stopping,
    );
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => anyhow::bail!("the gRPC server has ended"),
        () = &mut end => {}
    }
    info!("ending");
    stop.send_replace(true);
    let (streams, lease, written) = tokio::join!(
        timeout(ENDING, served),
        timeout(ENDING, lease),
        timeout(ENDING, join_all(writing)),
    );
    if streams.is_err() || lease.is_err() || written.is_err() {
        warn!("stopped before all callers had disconnected");
    }
    Ok(())
}
