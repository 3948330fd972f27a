//! Starts the aggregated APIs: their port, their certificate, and the graph for the read API.
//!
//! Every replica serves both, and each can be switched off. The graph goes with the read API:
//! nothing else reads it.

use std::sync::Arc;

use anyhow::Context as _;
use identity::tls::ServingHandle;
use runtime::clock::Clock;
use runtime::stop;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::context::{Context, NAME};
use crate::{
    aggregated::{
        access::Gate,
        bodies::AnswerBudget,
        certificate, front_proxy,
        server::{self, Apis, Handler},
    },
    apiserver::events::EventRecorder,
    graph::{checkpoint::Checkpointer, exported, follow::Graph, push::Push},
    inventory::follow::Followed,
    metrics_api::{self, answer::Sources, api::Api},
    observe_api::{self, api::ObserveApi, context::ObserveContext},
    settings::gateways::GatewayApi,
};

/// The aggregated APIs on their own port: the metrics API, the read API, or both. Returns
/// what has something left to write when the replica ends.
pub(super) async fn aggregated_apis(context: &Context) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut served = Vec::new();
    if context.settings.metrics_api {
        served.push(metrics_api::SERVED);
    }
    if context.settings.observe {
        served.push(observe_api::SERVED);
    }
    if served.is_empty() {
        return Ok(Vec::new());
    }
    for api in served.clone() {
        let (authority, client) = (
            context.authority.clone(),
            context.leading_client("aggregated trust"),
        );
        context.while_leading("aggregated trust", move || {
            certificate::keep_trusted(api, authority.clone(), client.clone())
        });
    }
    let listener = TcpListener::bind(context.settings.metrics_addr())
        .await
        .context("port of the aggregated APIs")?;
    let serving = ServingHandle::empty();
    let certificate = certificate::keep_serving(
        served,
        context.authority.clone(),
        context.client.clone(),
        context.settings.namespace.clone(),
        serving.clone(),
        Clock::system(),
    );
    runtime::task::spawn("aggregated certificate", certificate);
    let (publish, front) = watch::channel(None);
    let keep = front_proxy::keep(context.client.clone(), serving, publish);
    runtime::task::spawn("aggregated front", keep);
    let answers = AnswerBudget::new(&context.metrics.limits);
    let (handlers, writing) = handlers(context, &answers);
    let apis = Apis {
        handlers,
        front,
        answers,
        turned_away: context.metrics.api.turned_away.clone(),
    };
    let (limits, stop) = (context.metrics.limits.clone(), context.stopping.clone());
    runtime::task::spawn("aggregated APIs", async move {
        server::serve(listener, apis, &limits, stop).await;
    });
    Ok(writing)
}

fn handlers(
    context: &Context,
    answers: &AnswerBudget,
) -> (Vec<Arc<dyn Handler>>, Vec<JoinHandle<()>>) {
    let metrics = &context.metrics;
    let latest = context.latest.clone();
    let unlisted = metrics.api.unlisted.clone();
    let inventory = Arc::clone(&context.inventory);
    let followed = Followed::start(&context.client, latest.clone(), inventory, unlisted);
    let gate = Gate::new(context.client.clone());
    let mut handlers: Vec<Arc<dyn Handler>> = Vec::new();
    if context.settings.metrics_api {
        handlers.push(Arc::new(Api {
            sources: Sources {
                inventory: Arc::clone(&followed.inventory),
                reports: context.reports.clone(),
                latest: latest.clone(),
            },
            followed: followed.clone(),
            gate: gate.clone(),
            answers: answers.clone(),
            metrics: metrics.api.clone(),
        }));
    }
    let mut writing = Vec::new();
    if context.settings.observe {
        let (graph, kept) = graph(context, &followed);
        writing.extend(kept);
        // The replica that serves a tap records its user.
        let (events, writer) = EventRecorder::new(
            context.client.clone(),
            &context.settings.pod_name,
            metrics.events_dropped.clone(),
        );
        let stop = stop::requested(context.stopping.clone());
        writing.push(runtime::task::spawn("tap events", writer.run(stop)));
        handlers.push(Arc::new(ObserveApi::new(ObserveContext {
            graph,
            latest,
            followed,
            observed: context.observed.clone(),
            live_queries: context.live_queries.clone(),
            tap_headers: Arc::clone(&context.settings.tap_headers),
            leaf_ttl: context.settings.leaf_ttl,
            cluster: context.cluster(),
            gateway_api: context.settings.gateway_api != GatewayApi::Off,
            events,
            gate,
            answers: answers.clone(),
            metrics: metrics.observe.clone(),
        })));
    }
    (handlers, writing)
}

/// The service graph, and what keeps it.
fn graph(context: &Context, followed: &Followed) -> (Graph, Option<JoinHandle<()>>) {
    let graph = Graph::new(
        context.reports.clone(),
        Arc::clone(&followed.inventory),
        context.latest.clone(),
        context.settings.retention,
        context.metrics.graph.clone(),
    );
    let (whole, latest) = (followed.clone(), context.latest.clone());
    // Without a model it is not known which ports Services lead to, and what is folded so stays.
    let is_whole = move || whole.is_whole() && latest.borrow().is_some();
    let follow = graph.clone().follow(is_whole);
    runtime::task::spawn("graph", follow);
    if context.settings.service_graph {
        let metrics = context.metrics.clone();
        let graph = graph.clone();
        context.while_leading("service graph", move || {
            let (shown, graph) = (metrics.service_graph.clone(), graph.clone());
            exported::show(graph, shown, metrics.graph.clone())
        });
        push(context);
    }
    let persists = !context.settings.retention.is_zero();
    let kept = persists.then(|| {
        let checkpointer = Checkpointer {
            leading: context.leading_client("graph"),
            client: context.client.clone(),
            namespace: context.settings.namespace.clone(),
            graph: graph.clone(),
            leadership: context.leadership.clone(),
            events: context.events.clone(),
        };
        runtime::task::spawn("graph memory", checkpointer.run(context.stopping.clone()))
    });
    (graph, kept)
}

/// Sends what is shown of the graph to the collector of spans, where there is one.
fn push(context: &Context) {
    let settings = &context.settings;
    let Some(tracing) = &settings.tracing else {
        return;
    };
    let push = Push {
        collector: tracing.collector.clone(),
        pairs: context.metrics.service_graph.clone(),
        resource: vec![
            ("service.name", NAME.to_owned()),
            ("service.namespace", settings.namespace.clone()),
            // The next holder of the Lease begins at zero.
            ("service.instance.id", settings.pod_name.clone()),
            ("k8s.namespace.name", settings.namespace.clone()),
            ("k8s.pod.name", settings.pod_name.clone()),
        ],
    };
    context.while_leading("service graph push", move || push.clone().keep());
}
