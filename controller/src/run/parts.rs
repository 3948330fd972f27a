//! Starts each part of a replica with what it needs.
//!
//! One function for each part, so that `run` reads as the order in which they start. What only the
//! Lease holder does is started anew with each Lease. `apis` starts the aggregated APIs.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use crds::labels;
use identity::{CertHandle, Roots};
use model::{Defaults, compiled::Compiled, revoked::RevocationContext, world::ObjectKey};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use runtime::admin::Admin;
use runtime::clock::Clock;
use runtime::ready::{Hold, Ready};
use runtime::stop;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::context::{Context, NAME};
use crate::{
    apiserver::{
        events::Writer,
        lease::{LeaderElector, Leadership},
    },
    authority::{
        certify::{Certifier, KubeCluster},
        own_certificate,
        reconciler::Reconciler,
        rotation::{Watched, follow_others},
        secret::CaError,
    },
    automation::{
        context::Releases,
        experiments::{self, Experiments},
        followed::Followed,
        granting::Granting,
        releases,
    },
    ca_bundles, latest_model, names, network_policy,
    observe::{
        exchange::{Answerer, Listener},
        propagation::Acks,
    },
    serve::{
        Services,
        allowances::Allowances,
        stream::{self, Streams},
    },
    settings::Settings,
    status::{StatusWriter, breakers, events, gauges, unexpected},
    storage_migration::Storage,
    trust_bundle::Bundle,
    uninstall::unfinished::Unfinished,
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
pub(super) fn lease(context: &Context, elector: LeaderElector) -> JoinHandle<()> {
    // The injector reads this before it gives pods their trust domain.
    let elector = elector.annotated(labels::TRUST_DOMAIN, &context.settings.trust_domain);
    let stop = stop::requested(context.stopping.clone());
    let lease = elector.run(stop, context.uninstallation.stages());
    let shown = show(context.leadership.clone(), context.metrics.leader.clone());
    runtime::task::spawn("leader gauge", shown);
    runtime::task::spawn("lease", lease)
}

/// What writes Events; ends when what waited at the end has been written, or counted.
pub(super) fn event_writer(context: &Context, writer: Writer) -> JoinHandle<()> {
    let stop = stop::requested(context.stopping.clone());
    runtime::task::spawn("events", writer.run(stop))
}

async fn show(mut leadership: Leadership, gauge: Gauge) {
    loop {
        leadership.acquired().await;
        gauge.set(1);
        leadership.lost().await;
        gauge.set(0);
    }
}

/// From the API server to models, and the names in them. `synced` is released with the first of
/// them, `resolved` with the first answers of DNS; `ready` says beside its answer when they may be
/// out of date.
pub(super) fn models(
    context: &Context,
    publish: watch::Sender<Option<Arc<Compiled>>>,
    (synced, resolved): (Hold, Hold),
    ready: Ready,
) {
    let defaults = defaults(&context.settings);
    let (worlds, feed) = crate::watch::start(
        context.client.clone(),
        Arc::new(context.cluster()),
        context.settings.gateway_api,
        context.metrics.world.clone(),
        ready,
    );
    let signing = context.authority.signing();
    let compile = latest_model::run(worlds, publish, defaults, signing);
    runtime::task::spawn("compile", compile);
    let gauges = gauges::follow(context.latest.clone(), context.metrics.world.clone());
    runtime::task::spawn("gauges", gauges);
    let bundles = ca_bundles::follow(context.client.clone(), context.latest.clone(), feed.clone());
    runtime::task::spawn("authorities of ExternalServices", bundles);
    let names = names::resolve(
        context.latest.clone(),
        context.observed.external_names(),
        feed,
        resolved,
        context.metrics.names.clone(),
    );
    runtime::task::spawn("names", names);
    let mut first = context.latest.clone();
    runtime::task::spawn("first model", async move {
        if first.wait_for(Option::is_some).await.is_ok() {
            synced.release();
        }
    });
}

fn defaults(settings: &Settings) -> Defaults {
    Defaults {
        trust_domain: settings.trust_domain.as_str().into(),
        cluster_domain: settings.cluster_domain.as_str().into(),
        access: settings.access_default,
        mtls: settings.mtls_default,
        access_pods_may_loosen: settings.access_pods_may_loosen,
        mtls_pods_may_loosen: settings.mtls_pods_may_loosen,
        egress: settings.egress_default,
        egress_pods_may_loosen: settings.egress_pods_may_loosen,
        udp_network_policies: settings.udp_network_policies,
        excluded_namespaces: Arc::clone(&settings.excluded_namespaces),
        tracing: settings.tracing.clone(),
        revocation: Arc::new(RevocationContext {
            controller: Some(ObjectKey::new(
                &settings.namespace,
                &settings.service_account,
            )),
            ..RevocationContext::default()
        }),
    }
}

/// The certificate authority's Secret; ends with an error if it is another mesh's.
pub(super) fn authority(context: &Context, ready: Ready) -> JoinHandle<Result<(), CaError>> {
    let followed = follow_others(context.authority.clone(), context.observed.clone(), ready);
    runtime::task::spawn("steps of others", followed);
    let reconciler = Reconciler {
        authority: context.authority.clone(),
        client: context.leading_client("authority"),
        namespace: context.settings.namespace.clone(),
        leadership: context.leadership.clone(),
        metrics: context.metrics.authority.clone(),
        events: context.events.clone(),
        clock: Clock::system(),
        watched: Watched::new(
            context.latest.clone(),
            context.observed.clone(),
            context.bundle_progress.subscribe(),
            context.settings.authority.clone(),
            context.settings.leaf_ttl,
            &context.settings.pod_name,
        ),
    };
    runtime::task::spawn("authority", reconciler.run())
}

/// What authors get: statuses and Events; and NetworkPolicies, which statuses report.
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
        fleet: context.fleet.clone(),
        enforced: udp,
        gateway_api: context.settings.gateway_api,
        events: context.events.clone(),
        written: context.metrics.statuses.clone(),
    };
    context.while_leading("status", move || status.clone().write());
    let reported = events::report(
        context.latest.clone(),
        context.leadership.clone(),
        context.events.clone(),
    );
    runtime::task::spawn("status events", reported);
    let (reports, latest) = (context.reports.clone(), context.latest.clone());
    let events = context.events.clone();
    context.while_leading("protocol events", move || {
        unexpected::report(reports.clone(), latest.clone(), events.clone())
    });
}

/// Releases and experiments.
pub(super) fn automation(context: &Context) {
    experiments(context);
    let parts = Releases {
        client: context.leading_client("releases"),
        enabled: context.settings.releases,
        latest: context.latest.clone(),
        observed: context.observed.clone(),
        early: context.early.clone(),
        fleet: context.fleet.clone(),
        events: context.events.clone(),
        metrics: context.metrics.automation.clone(),
        clock: Clock::system(),
    };
    context.while_leading("releases", move || releases::drive(parts.clone()));
}

/// Experiments: their driver, and on every replica what is granted.
fn experiments(context: &Context) {
    let settings = &context.settings;
    let namespace: Arc<str> = settings.namespace.as_str().into();
    if settings.faults {
        let granting = Granting {
            latest: context.latest.clone(),
            followed: Followed::start(context.client.clone()),
            grants: context.grants.clone(),
            namespace: Arc::clone(&namespace),
        };
        runtime::task::spawn("grants", granting.run());
    }
    let parts = Experiments {
        client: context.leading_client("experiments"),
        enabled: settings.faults,
        latest: context.latest.clone(),
        observed: context.observed.clone(),
        early: context.early.clone(),
        reports: context.reports.clone(),
        events: context.events.clone(),
        namespace,
        clock: Clock::system(),
    };
    context.while_leading("experiments", move || experiments::drive(parts.clone()));
}

/// Breakers of the whole mesh.
pub(super) fn breakers(context: &Context) {
    runtime::task::spawn("breakers", context.fleet.clone().run());
    let (fleet, latest) = (context.fleet.clone(), context.latest.clone());
    let events = context.events.clone();
    context.while_leading("breaker events", move || {
        breakers::report(fleet.clone(), latest.clone(), events.clone())
    });
}

/// Limits that all pods of a Service keep together.
pub(super) fn shares(context: &Context) {
    runtime::task::spawn(
        "shares",
        context.share_registry.clone().keep(context.latest.clone()),
    );
    let (share_registry, latest) = (context.share_registry.clone(), context.latest.clone());
    context.while_leading("shares", move || {
        crate::shares::lead(share_registry.clone(), latest.clone())
    });
}

/// The roots in every namespace, and the sign that the mesh goes.
pub(super) fn trust_bundles(context: &Context) {
    let uninstallation = context.uninstallation.clone();
    runtime::task::spawn(
        "uninstallation",
        uninstallation.follow(context.latest.clone()),
    );
    let bundle = Bundle {
        client: context.leading_client("bundle"),
        excluded: Arc::clone(&context.settings.excluded_namespaces),
        roots: context.authority.roots_pem(),
        uninstallation: context.uninstallation.clone(),
        events: context.events.clone(),
        written: context.metrics.bundles.clone(),
        progress: context.bundle_progress.clone(),
    };
    context.while_leading("bundle", move || bundle.clone().keep());
    let unfinished = Unfinished {
        client: context.leading_client("unfinished uninstall"),
        namespace: context.settings.namespace.clone(),
        events: context.events.clone(),
        stayed: context.uninstallation.stayed(),
    };
    context.while_leading("unfinished uninstall", move || unfinished.clone().report());
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
        early: context.early.clone(),
        inventory: Arc::clone(&context.inventory),
        live_queries: context.live_queries.clone(),
        fleet: context.fleet.clone(),
        share_registry: context.share_registry.clone(),
        roots: roots.clone(),
        certificate: certificate.clone(),
        identity: context.settings.identity.clone(),
        peers: context.metrics.peers.clone(),
    };
    runtime::task::spawn("peers", peers.run());
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
            early: context.early.clone(),
            live_queries: context.live_queries.clone(),
            fleet: context.fleet.clone(),
            share_registry: context.share_registry.clone(),
            grants: context.grants.clone(),
            authority: context.authority.clone(),
            metrics: metrics.stream.clone(),
            stop: context.stopping.clone(),
            next: Arc::new(AtomicU64::new(1)),
            permits: stream::stream_permits(&metrics.limits),
            allowances: Allowances::default(),
            limits: metrics.limits.clone(),
        },
        replica: Answerer {
            observed: context.observed.clone(),
            reports: context.reports.clone(),
            early: context.early.clone(),
            inventory: Arc::clone(&context.inventory),
            live_queries: context.live_queries.clone(),
            fleet: context.fleet.clone(),
            share_registry: context.share_registry.clone(),
            identity: settings.identity.clone(),
            stop: context.stopping.clone(),
        },
        connections: settings.caps.connections,
    }
}
