//! How each part is started.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use crds::{labels, smi::judge::Cluster};
use identity::tls::ServingHandle;
use identity::{CertHandle, Roots};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use runtime::admin::Admin;
use runtime::clock::Clock;
use runtime::ready::{Hold, Ready};
use runtime::stop;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::context::{Context, NAME};
use crate::{
    aggregated::{access::Gate, certificate, front_proxy},
    apiserver::lease::{Candidate, Leadership},
    authority::{
        certify::{Certifier, KubeCluster},
        own_certificate,
        reconciler::Reconciler,
        secret::CaError,
    },
    compile,
    inventory::follow::Followed,
    metrics_api::{
        self,
        answer::Sources,
        server::{self, Api},
    },
    model::{Defaults, compiled::Compiled},
    network_policy,
    observe::{
        exchange::{Answerer, Listener},
        propagation::Acks,
    },
    serve::{
        Services,
        stream::{self, Streams},
    },
    settings::Settings,
    status::{StatusWriter, events, gauges},
    storage_migration::Storage,
    trust_bundle::Bundle,
};

/// The loopback pages.
pub(super) async fn admin(
    settings: &Settings,
    ready: Ready,
    registry: Registry,
    acks: &Acks,
) -> anyhow::Result<()> {
    let admin = Admin::bind(settings.admin_addr())
        .await
        .context("admin port")?;
    let pages = acks.clone();
    let registry = Arc::new(Mutex::new(registry));
    let admin = admin.run(ready, registry, move |request, peer| {
        let answer = crate::admin::page(&request, peer.ip(), &pages);
        async move { answer }
    });
    runtime::task::spawn("admin", admin);
    Ok(())
}

/// Standing for election; ends when the Lease has been given back.
pub(super) fn lease(context: &Context, candidate: Candidate) -> JoinHandle<()> {
    // The injector asks this before it gives pods their trust domain.
    let candidate = candidate.annotated(labels::TRUST_DOMAIN, &context.settings.trust_domain);
    let stop = stop::requested(context.stopping.clone());
    let lease = candidate.run(stop, context.departure.stages());
    let shown = show(context.leadership.clone(), context.metrics.leader.clone());
    runtime::task::spawn("leader gauge", shown);
    runtime::task::spawn("lease", lease)
}

async fn show(mut leadership: Leadership, gauge: Gauge) {
    loop {
        leadership.held().await;
        gauge.set(1);
        leadership.lost().await;
        gauge.set(0);
    }
}

/// From the API server to models. `synced` is released with the first of them.
pub(super) fn models(
    context: &Context,
    publish: watch::Sender<Option<Arc<Compiled>>>,
    synced: Hold,
) {
    let defaults = defaults(&context.settings);
    let worlds = crate::watch::start(
        context.client.clone(),
        Arc::new(cluster(&context.settings)),
        context.metrics.world.clone(),
    );
    runtime::task::spawn("compile", compile::run::run(worlds, publish, defaults));
    let gauges = gauges::follow(context.latest.clone(), context.metrics.world.clone());
    runtime::task::spawn("gauges", gauges);
    let mut first = context.latest.clone();
    runtime::task::spawn("first model", async move {
        if first.wait_for(Option::is_some).await.is_ok() {
            synced.release();
        }
    });
}

fn cluster(settings: &Settings) -> Cluster {
    Cluster {
        domain: settings.cluster_domain.as_str().into(),
        mesh_namespace: settings.namespace.as_str().into(),
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

/// The certificate authority's Secret; ends with an error if it is another mesh's.
pub(super) fn authority(context: &Context) -> JoinHandle<Result<(), CaError>> {
    let reconciler = Reconciler {
        authority: context.authority.clone(),
        client: context.leading_client("authority"),
        namespace: context.settings.namespace.clone(),
        leadership: context.leadership.clone(),
        metrics: context.metrics.authority.clone(),
        events: context.events.clone(),
        clock: Clock::system(),
    };
    runtime::task::spawn("authority", reconciler.run())
}

/// What authors are told: statuses and Events; and NetworkPolicies, which statuses tell of.
pub(super) fn statuses(context: &Context) {
    let (enforced, udp) = watch::channel(None);
    let udp = context.settings.udp_network_policies.then_some(udp);
    if udp.is_some() {
        let reconciler = network_policy::Reconciler {
            client: context.leading_client("network policies"),
            latest: context.latest.clone(),
            events: context.events.clone(),
            enforced,
            written: context.metrics.network_policies.clone(),
        };
        context.while_leading("network policies", move || reconciler.clone().keep());
    }
    let status = StatusWriter {
        client: context.leading_client("status"),
        latest: context.latest.clone(),
        observed: context.observed.clone(),
        enforced: udp,
        written: context.metrics.statuses.clone(),
    };
    context.while_leading("status", move || status.clone().write());
    let (latest, events) = (context.latest.clone(), context.events.clone());
    context.while_leading("herald", move || {
        events::tell(latest.clone(), events.clone())
    });
}

/// The roots in every namespace, and the sign that the mesh goes.
pub(super) fn trust_bundles(context: &Context) {
    let departure = context.departure.clone();
    runtime::task::spawn("departure", departure.follow(context.latest.clone()));
    let bundle = Bundle {
        client: context.leading_client("bundle"),
        excluded: Arc::clone(&context.settings.excluded_namespaces),
        roots: context.authority.roots_pem(),
        departure: context.departure.clone(),
        events: context.events.clone(),
        written: context.metrics.bundles.clone(),
    };
    context.while_leading("bundle", move || bundle.clone().keep());
}

/// Objects in the version that is stored.
pub(super) fn storage(context: &Context) {
    let storage = Storage {
        client: context.leading_client("storage"),
        namespace: context.settings.namespace.clone(),
        metrics: context.metrics.storage.clone(),
    };
    context.while_leading("storage", move || storage.clone().keep());
}

/// The certificate of this replica, kept new.
pub(super) fn own_certificate(context: &Context) -> CertHandle {
    let certificate = CertHandle::empty();
    let kept = own_certificate::keep_serving(
        context.authority.clone(),
        context.settings.identity.clone(),
        context.settings.leaf_ttl,
        certificate.clone(),
        context.metrics.authority.clone(),
        Clock::system(),
    );
    runtime::task::spawn("own certificate", kept);
    certificate
}

/// What other replicas observe.
pub(super) fn peers(context: &Context, roots: &Roots, certificate: &CertHandle) {
    let peers = Listener {
        client: context.client.clone(),
        namespace: context.settings.namespace.clone(),
        service: NAME.to_owned(),
        own: context.settings.pod_ip,
        observed: context.observed.clone(),
        reports: context.reports.clone(),
        roots: roots.clone(),
        certificate: certificate.clone(),
        identity: context.settings.identity.clone(),
        peers: context.metrics.peers.clone(),
    };
    runtime::task::spawn("peers", peers.run());
}

/// The metrics API on its own port.
pub(super) async fn metrics_api(context: &Context) -> anyhow::Result<()> {
    let trusting = (
        context.authority.clone(),
        context.leading_client("metrics trust"),
    );
    context.while_leading("metrics trust", move || {
        let (authority, client) = trusting.clone();
        certificate::keep_trusted(metrics_api::SERVED, authority, client)
    });
    let listener = TcpListener::bind(context.settings.metrics_addr())
        .await
        .context("metrics API port")?;
    let serving = ServingHandle::empty();
    let certificate = certificate::keep_serving(
        metrics_api::SERVED,
        context.authority.clone(),
        context.settings.namespace.clone(),
        serving.clone(),
        Clock::system(),
    );
    runtime::task::spawn("metrics certificate", certificate);
    let (publish, front) = watch::channel(None);
    let keep = front_proxy::keep(context.client.clone(), serving, publish);
    runtime::task::spawn("metrics front", keep);
    let metrics = context.metrics.api.clone();
    let latest = context.latest.clone();
    let followed = Followed::start(&context.client, latest.clone(), metrics.unlisted.clone());
    let api = Api {
        sources: Sources {
            inventory: Arc::clone(&followed.inventory),
            reports: context.reports.clone(),
            latest,
        },
        followed,
        front,
        gate: Gate::new(context.client.clone()),
        metrics,
    };
    let (limits, stop) = (context.metrics.limits.clone(), context.stopping.clone());
    runtime::task::spawn("metrics API", async move {
        server::serve(listener, api, &limits, stop).await;
    });
    Ok(())
}

/// What the gRPC port offers.
pub(super) fn services(context: &Context) -> Services {
    let (settings, metrics) = (&context.settings, &context.metrics);
    let cluster = Arc::new(KubeCluster::new(
        context.client.clone(),
        context.latest.clone(),
    ));
    Services {
        certifier: Certifier::new(
            cluster,
            context.authority.clone(),
            &settings.trust_domain,
            settings.leaf_ttl,
            metrics.certify.clone(),
        ),
        streams: Streams {
            latest: context.latest.clone(),
            observed: context.observed.clone(),
            reports: context.reports.clone(),
            authority: context.authority.clone(),
            metrics: metrics.stream.clone(),
            stop: context.stopping.clone(),
            next: Arc::new(AtomicU64::new(1)),
            places: stream::places(&metrics.limits),
            limits: metrics.limits.clone(),
        },
        replica: Answerer {
            observed: context.observed.clone(),
            reports: context.reports.clone(),
            identity: settings.identity.clone(),
            stop: context.stopping.clone(),
        },
        connections: settings.caps.connections,
    }
}
