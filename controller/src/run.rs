//! Puts the parts of one replica together: in which order they start and end.
//!
//! May import everything; nothing but `main` may import it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use crds::labels;
use identity::CertHandle;
use identity::tls::ServingHandle;
use kube::Client;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use runtime::admin::Admin;
use runtime::clock::Clock;
use runtime::limit::Reached;
use runtime::ready::Ready;
use runtime::stop;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    aggregated::{access::Gate, certificate, front_proxy},
    apiserver::{
        events::EventRecorder,
        lease::{Candidate, Leadership},
    },
    authority::{
        Authority,
        certify::{Certifier, KubeCluster},
        own_certificate,
        reconciler::{self, Reconciler},
    },
    compile,
    inventory::follow::Followed,
    metrics::{ApiMetrics, Metrics},
    metrics_api::{
        self,
        answer::Sources,
        server::{self, Api},
    },
    model::{Defaults, compiled::Latest},
    network_policy,
    observe::{
        acknowledged::Observed,
        exchange::{Answerer, Listener},
        propagation::Acks,
        reports::Reports,
    },
    serve::{
        self, Services,
        stream::{self, Streams},
    },
    settings::Settings,
    status::{StatusWriter, events, gauges},
    storage_migration::Storage,
    trust_bundle::{Bundle, uninstalling::Departure},
};

/// Name of the Lease and of the Service of all replicas.
const NAME: &str = "weft-controller";
/// From the wish to end to the end, for streams and for the Lease; the kubelet
/// is told 5 s in all.
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
    let acks = Acks::default();
    let admin = Admin::bind(settings.admin_addr())
        .await
        .context("admin port")?;
    let pages = acks.clone();
    runtime::task::spawn(
        "admin",
        admin.run(
            ready,
            Arc::new(Mutex::new(registry)),
            move |request, peer| {
                let answer = crate::admin::page(&request, peer.ip(), &pages);
                async move { answer }
            },
        ),
    );
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
    let (candidate, leadership) = Candidate::new(
        client.clone(),
        &settings.namespace,
        NAME,
        &settings.pod_name,
    );
    let departure = Departure::new(client.clone(), &settings.namespace);
    // The injector asks this before it gives pods their trust domain.
    let candidate = candidate.annotated(labels::TRUST_DOMAIN, &settings.trust_domain);
    let lease = runtime::task::spawn(
        "lease",
        candidate.run(stop::requested(stopping.clone()), departure.stages()),
    );
    let (events, notes) = EventRecorder::new(
        leadership.client("events", &client),
        &settings.pod_name,
        metrics.events_dropped.clone(),
    );
    runtime::task::spawn("events", notes.run());

    let (publish, latest) = watch::channel(None);
    let defaults = defaults(&settings);
    let domain = defaults.cluster_domain.clone();
    let worlds = crate::watch::start(client.clone(), domain, metrics.world.clone());
    runtime::task::spawn("compile", compile::run::run(worlds, publish, defaults));
    runtime::task::spawn(
        "gauges",
        gauges::follow(latest.clone(), metrics.world.clone()),
    );
    let mut first = latest.clone();
    runtime::task::spawn("first model", async move {
        if first.wait_for(Option::is_some).await.is_ok() {
            synced.release();
        }
    });

    let authority = Authority::new(&settings.identity);
    let reconciler = Reconciler {
        authority: authority.clone(),
        client: leadership.client("authority", &client),
        namespace: settings.namespace.clone(),
        leadership: leadership.clone(),
        metrics: metrics.authority.clone(),
        events: events.clone(),
        clock: Clock::system(),
    };
    let mut reconciler = runtime::task::spawn("authority", reconciler.run());

    let observed = Observed::new(metrics.observed.clone(), settings.caps.destinations);
    let reports = Reports::holding(metrics.reports.clone(), settings.caps.report_edges);
    runtime::task::spawn("acks", acks.follow(latest.clone(), observed.clone()));
    let (enforced, udp) = watch::channel(None);
    let udp = settings.udp_network_policies.then_some(udp);
    if udp.is_some() {
        let reconciler = network_policy::Reconciler {
            client: leadership.client("network policies", &client),
            latest: latest.clone(),
            events: events.clone(),
            enforced,
            written: metrics.network_policies.clone(),
        };
        let reconciler = move || reconciler.clone().keep();
        while_leading("network policies", &leadership, reconciler);
    }
    let status = StatusWriter {
        client: leadership.client("status", &client),
        latest: latest.clone(),
        observed: observed.clone(),
        enforced: udp,
        written: metrics.statuses.clone(),
    };
    runtime::task::spawn("departure", departure.clone().follow(latest.clone()));
    let bundle = Bundle {
        client: leadership.client("bundle", &client),
        excluded: Arc::clone(&settings.excluded_namespaces),
        roots: authority.roots_pem(),
        departure: departure.clone(),
        events: events.clone(),
        written: metrics.bundles.clone(),
    };
    let telling = latest.clone();
    let telling = move || events::tell(telling.clone(), events.clone());
    while_leading("status", &leadership, move || status.clone().write());
    while_leading("bundle", &leadership, move || bundle.clone().keep());
    while_leading("herald", &leadership, telling);
    let storage = Storage {
        client: leadership.client("storage", &client),
        namespace: settings.namespace.clone(),
        metrics: metrics.storage.clone(),
    };
    while_leading("storage", &leadership, move || storage.clone().keep());
    runtime::task::spawn(
        "leader gauge",
        show(leadership.clone(), metrics.leader.clone()),
    );

    let roots = tokio::select! {
        roots = authority.ready() => roots,
        refused = &mut reconciler => {
            refused.context("certificate authority")??;
            anyhow::bail!("the watch of the certificate authority's Secret ended");
        }
        () = &mut end => {
            stop.send_replace(true);
            let _ = timeout(ENDING, lease).await;
            return Ok(());
        }
    };
    let certificate = CertHandle::empty();
    runtime::task::spawn(
        "own certificate",
        own_certificate::keep_serving(
            authority.clone(),
            settings.identity.clone(),
            settings.leaf_ttl,
            certificate.clone(),
            metrics.authority.clone(),
            Clock::system(),
        ),
    );
    certified.release();
    let peers = Listener {
        client: client.clone(),
        namespace: settings.namespace.clone(),
        service: NAME.to_owned(),
        own: settings.pod_ip,
        observed: observed.clone(),
        reports: reports.clone(),
        roots: roots.clone(),
        certificate: certificate.clone(),
        identity: settings.identity.clone(),
        peers: metrics.peers.clone(),
    };
    runtime::task::spawn("peers", peers.run());

    if settings.metrics_api {
        let trusting = leadership.client("metrics trust", &client);
        let trusting = (authority.clone(), trusting);
        while_leading("metrics trust", &leadership, move || {
            let (authority, client) = trusting.clone();
            certificate::keep_trusted(metrics_api::SERVED, authority, client)
        });
        metrics_api(
            &settings,
            &client,
            &authority,
            (reports.clone(), latest.clone()),
            (metrics.api.clone(), metrics.limits.clone()),
            stopping.clone(),
        )
        .await?;
    }
    let cluster = Arc::new(KubeCluster::new(client.clone(), latest.clone()));
    let services = Services {
        certifier: Certifier::new(
            cluster,
            authority.clone(),
            &settings.trust_domain,
            settings.leaf_ttl,
            metrics.certify.clone(),
        ),
        streams: Streams {
            latest,
            observed: observed.clone(),
            reports: reports.clone(),
            authority: authority.clone(),
            metrics: metrics.stream.clone(),
            stop: stopping.clone(),
            next: Arc::new(AtomicU64::new(1)),
            places: stream::places(&metrics.limits),
            limits: metrics.limits.clone(),
        },
        replica: Answerer {
            observed,
            reports: reports.clone(),
            identity: settings.identity.clone(),
            stop: stopping.clone(),
        },
        connections: settings.caps.connections,
    };
    info!(addr = %settings.serve_addr(), "serving proxies");
    let connections = metrics.connections.clone();
    let served = serve::serve(
        listener,
        &roots,
        &certificate,
        services,
        connections,
        &metrics.limits,
        stopping,
    );
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => anyhow::bail!("the gRPC server has ended"),
        () = &mut end => {}
    }
    info!("ending");
    stop.send_replace(true);
    let (streams, lease) = tokio::join!(timeout(ENDING, served), timeout(ENDING, lease));
    if streams.is_err() || lease.is_err() {
        warn!("ended before everybody had gone");
    }
    Ok(())
}

/// Starts the metrics API on its own port.
async fn metrics_api(
    settings: &Settings,
    client: &Client,
    authority: &Authority,
    (reports, latest): (Reports, Latest),
    (metrics, limits): (ApiMetrics, Reached),
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.metrics_addr())
        .await
        .context("metrics API port")?;
    let serving = ServingHandle::empty();
    let namespace = settings.namespace.clone();
    runtime::task::spawn(
        "metrics certificate",
        certificate::keep_serving(
            metrics_api::SERVED,
            authority.clone(),
            namespace,
            serving.clone(),
            Clock::system(),
        ),
    );
    let (publish, front) = watch::channel(None);
    runtime::task::spawn(
        "metrics front",
        front_proxy::keep(client.clone(), serving, publish),
    );
    let followed = Followed::start(client, latest.clone(), metrics.unlisted.clone());
    let api = Api {
        sources: Sources {
            inventory: Arc::clone(&followed.inventory),
            reports,
            latest,
        },
        followed,
        front,
        gate: Gate::new(client.clone()),
        metrics,
    };
    runtime::task::spawn("metrics API", async move {
        server::serve(listener, api, &limits, stop).await;
    });
    Ok(())
}

/// Starts what only the Lease holder does.
fn while_leading<F>(
    name: &'static str,
    leadership: &Leadership,
    work: impl FnMut() -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    runtime::task::spawn(name, leadership.clone().while_held(work));
}

async fn show(mut leadership: Leadership, gauge: Gauge) {
    loop {
        leadership.held().await;
        gauge.set(1);
        leadership.lost().await;
        gauge.set(0);
    }
}

fn defaults(settings: &Settings) -> Defaults {
    Defaults {
        trust_domain: settings.trust_domain.as_str().into(),
        cluster_domain: settings.cluster_domain.as_str().into(),
        access: settings.access_default,
        mtls: settings.mtls_default,
        access_pods_may_loosen: settings.access_pods_may_loosen,
        mtls_pods_may_loosen: settings.mtls_pods_may_loosen,
        udp_network_policies: settings.udp_network_policies,
    }
}
