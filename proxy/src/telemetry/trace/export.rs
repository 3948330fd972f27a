//! Exports spans, and lines of the access log, to the collector, on the control thread, through the
//! mesh: the workload's own outbound side serves the connection, so that a collector in the mesh
//! gets mutual TLS, and one that may not be called is not.
//!
//! No request waits for it. While the collector takes nothing, they wait in a bounded
//! queue, and what finds no room is counted. A message that was not taken is lost: what
//! holds it up is not over in the time for which it could be kept.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::trace::Collector;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

use crate::http::body::BoxError;
use crate::telemetry::Telemetry;
use crate::telemetry::trace::send::send;
use crate::telemetry::trace::signal::Signal;

/// Resolving the collector's name, and one message.
const WITHIN: Duration = Duration::from_secs(10);
/// The collector's name is looked up so often, and after every failure.
const RESOLVE_EVERY: Duration = Duration::from_secs(60);
/// After a message that was not taken, doubled each time.
const BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Sends what there is of `signal` for ever, each message over a connection that `connect`
/// makes.
pub async fn export<C, F>(telemetry: Arc<Telemetry>, signal: Signal, connect: C)
where
    C: Fn(SocketAddr) -> F,
    F: Future<Output = io::Result<TcpStream>>,
{
    let (tracer, metrics) = (&telemetry.tracer, &telemetry.metrics);
    let (mut failures, mut addresses) = (0, Addresses::default());
    loop {
        tracer.queue(signal).ready().await;
        let all = tracer.queue(signal).take();
        let count = all.len();
        let Some(config) = tracer.config.load_full() else {
            metrics.telemetry_dropped("off", signal.name(), count);
            continue;
        };
        let sending = async {
            let at = addresses.of(&config.tracing.collector).await?;
            let message = signal.message(&config.resource, all);
            send(
                &config.tracing.collector,
                connect(at).await?,
                signal,
                message,
            )
            .await
        };
        let sent = match timeout(WITHIN, sending).await {
            Ok(sent) => sent,
            Err(_) => Err("the collector did not answer in time".into()),
        };
        match sent {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                if signal == Signal::Spans {
                    metrics.spans_exported(count - rejected);
                }
                metrics.telemetry_dropped("rejected", signal.name(), rejected);
                if failures > 0 {
                    let (collector, what) = (&config.tracing.collector, signal.name());
                    tracing::info!(%collector, what, "the collector takes it again");
                }
                failures = 0;
            }
            Err(error) => {
                metrics.telemetry_dropped("failed", signal.name(), count);
                addresses.forget();
                let (collector, what) = (&config.tracing.collector, signal.name());
                tracing::warn!(%collector, what, count, %error, "could not be sent");
                sleep(backoff(failures)).await;
                failures += 1;
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let factor = 1 << failures.min(5);
    (BACKOFF * factor).min(LONGEST_BACKOFF)
}

/// Where a collector is. Looked up seldom: else every proxy of a mesh would query the cluster's
/// DNS every second.
#[derive(Debug, Default)]
struct Addresses(Option<ResolvedCollector>);

#[derive(Debug)]
struct ResolvedCollector {
    collector: Collector,
    addresses: Vec<SocketAddr>,
    since: Instant,
}

impl Addresses {
    /// One of its addresses.
    async fn of(&mut self, collector: &Collector) -> Result<SocketAddr, BoxError> {
        let known = self.0.take();
        let known = known
            .filter(|known| known.collector == *collector && known.since.elapsed() < RESOLVE_EVERY);
        let known = match known {
            Some(known) => known,
            None => ResolvedCollector::resolve(collector).await?,
        };
        let one = rand::random_range(0..known.addresses.len().max(1));
        let address = known.addresses.get(one).copied();
        self.0 = Some(known);
        address.ok_or_else(|| "its name has no address".into())
    }

    /// It may have moved.
    fn forget(&mut self) {
        self.0 = None;
    }
}

impl ResolvedCollector {
    async fn resolve(collector: &Collector) -> Result<Self, BoxError> {
        let addresses = lookup_host((collector.host(), collector.port())).await;
        let addresses =
            addresses.map_err(|error| format!("{} has no address: {error}", collector.host()))?;
        Ok(Self {
            collector: collector.clone(),
            addresses: addresses.collect(),
            since: Instant::now(),
        })
    }
}
