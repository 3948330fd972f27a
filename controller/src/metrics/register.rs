//! Under which name each metric is shown, and what is said about it.

use prometheus_client::registry::Registry;

use super::{
    ApiMetrics, AskMetrics, AuthorityMetrics, CertifyMetrics, ConnectionMetrics, GraphMetrics,
    Metrics, ObserveMetrics, ObservedMetrics, ReportMetrics, StorageMetrics, StreamMetrics,
    WorldMetrics,
};

impl Metrics {
    /// Puts everything under `weft_controller_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        runtime::metrics::register(registry);
        registry.register_collector(Box::new(metrics.service_graph.clone()));
        let registry = registry.sub_registry_with_prefix("weft_controller");
        metrics.certify.register(registry);
        metrics.stream.register(registry);
        metrics.authority.register(registry);
        metrics.connections.register(registry);
        metrics.world.register(registry);
        metrics.storage.register(registry);
        metrics.observed.register(registry);
        metrics.register_written(registry);
        metrics.reports.register(registry);
        metrics.api.register(registry);
        metrics.graph.register(registry);
        metrics.observe.register(registry);
        metrics.asks.register(registry);
        metrics.limits.register(registry);
        metrics
    }

    /// What this replica wrote and is.
    fn register_written(&self, registry: &mut Registry) {
        registry.register(
            "statuses_written",
            "Object statuses written",
            self.statuses.clone(),
        );
        registry.register(
            "bundles_written",
            "Trust bundles written",
            self.bundles.clone(),
        );
        registry.register(
            "network_policies_written",
            "NetworkPolicies for UDP written and withdrawn",
            self.network_policies.clone(),
        );
        registry.register(
            "events_dropped",
            "Events that did not fit into the queue, were refused, or could not be written in time",
            self.events_dropped.clone(),
        );
        registry.register(
            "lease_held",
            "1 while this replica holds the lease",
            self.leader.clone(),
        );
        registry.register(
            "peers",
            "Other replicas that this one receives reports from",
            self.peers.clone(),
        );
    }
}

impl CertifyMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "certify_answers",
            "Requests for a certificate by outcome",
            self.answers.clone(),
        );
    }
}

impl StreamMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("streams", "Open streams to proxies", self.open.clone());
        registry.register("batches", "Batches sent to proxies", self.batches.clone());
        registry.register(
            "resources",
            "Resources sent to proxies",
            self.resources.clone(),
        );
        registry.register(
            "nacks",
            "Resources that a proxy could not use",
            self.nacks.clone(),
        );
        registry.register(
            "destinations_skipped",
            "Destinations that exceeded the bound of one proxy, or whose names are none",
            self.left_out.clone(),
        );
        registry.register(
            "answer_seconds",
            "Time from sending a batch to its answer",
            self.answer_seconds.clone(),
        );
    }
}

impl AuthorityMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "root_remaining_seconds",
            "Remaining life of the root",
            self.root_seconds.clone(),
        );
        registry.register(
            "issuer_remaining_seconds",
            "Remaining life of the issuer, 0 while none can be used",
            self.issuer_seconds.clone(),
        );
        registry.register(
            "serving_remaining_seconds",
            "Remaining life of this replica's own certificate",
            self.serving_seconds.clone(),
        );
    }
}

impl ConnectionMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections",
            "Open connections to the gRPC port",
            self.open.clone(),
        );
        registry.register(
            "handshakes_failed",
            "TLS handshakes that failed or took too long",
            self.handshakes_failed.clone(),
        );
        registry.register(
            "connections_rejected",
            "Connections turned away or closed because too many were open or came",
            self.turned_away.clone(),
        );
    }
}

impl WorldMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "objects_skipped",
            "Times that an object of this kind was listed or changed and could not be read",
            self.unreadable.clone(),
        );
        registry.register(
            "skipped_ports",
            "Inbound ports that reach applications past their proxies, added up over the pods of a namespace",
            self.skipped_ports.clone(),
        );
        registry.register(
            "watch_failing_seconds",
            "Time for which lists and watches of this kind have kept failing, 0 while they do not",
            self.failing.clone(),
        );
    }
}

impl StorageMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "objects_rewritten",
            "SMI objects written anew so that none is stored in an older version",
            self.rewritten.clone(),
        );
        registry.register(
            "object_rewrites_failed",
            "Failed tries to write an SMI object anew",
            self.failed.clone(),
        );
    }
}

impl ObservedMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "proxies_disconnected",
            "Proxies without a stream whose pods are there",
            self.away.clone(),
        );
        registry.register(
            "disconnected_proxies_forgotten",
            "Proxies without a stream whose last state did not fit",
            self.away_forgotten.clone(),
        );
        registry.register(
            "persisted_destinations",
            "Destinations that workloads used and are retained",
            self.destinations.clone(),
        );
        registry.register(
            "persisted_destinations_forgotten",
            "Remembered destinations that went because there were too many",
            self.destinations_forgotten.clone(),
        );
    }
}

impl ReportMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "reports",
            "Reports of proxies, own and sent by other replicas, by what became of them",
            self.taken.clone(),
        );
        registry.register(
            "report_edges",
            "Edges of the last minutes that are held",
            self.edges.clone(),
        );
        registry.register(
            "report_intervals_dropped",
            "Slots of a pod that were forgotten early because it held most and all together too much",
            self.slots_dropped.clone(),
        );
        registry.register(
            "report_bytes",
            "Bytes that the held edges take at most",
            self.bytes.clone(),
        );
    }
}

impl GraphMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "clock_sets",
            "Times that the clock of this controller's node was set by more than 10 s while it ran",
            self.clock_sets.clone(),
        );
        registry.register(
            "graph_edges",
            "Edges of the service graph that are known",
            self.edges.clone(),
        );
        registry.register(
            "graph_persisted_edges",
            "Edges that are persisted with first and last seen",
            self.remembered.clone(),
        );
        registry.register(
            "graph_bytes",
            "Bytes of what the graph has counted",
            self.bytes.clone(),
        );
        registry.register(
            "graph_fold_seconds",
            "Seconds of computing that folding reports into the graph took",
            self.fold_seconds.clone(),
        );
        registry.register(
            "graph_dropped",
            "What the graph let go for want of room: edges, stretches of time, persisted edges, edges that were not written down, exported calls",
            self.dropped.clone(),
        );
    }
}

impl ObserveMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "observe_answers",
            "Answers of the read API by resource and HTTP status",
            self.answers.clone(),
        );
        registry.register(
            "observe_lists_cut",
            "Lists of the read API that did not fit into one answer; the answer names where the rest begins",
            self.lists_cut.clone(),
        );
        registry.register(
            "observe_streams",
            "Streams of the read API that are open",
            self.streams.clone(),
        );
    }
}

impl AskMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "live_queries",
            "Questions to live proxies that are open, with those of other replicas",
            self.open.clone(),
        );
        registry.register(
            "live_query_responses_dropped",
            "Answers of proxies that found no room where they wait for their reader",
            self.answers_dropped.clone(),
        );
        registry.register(
            "live_query_commands_dropped",
            "Questions, and ends of questions, that found no room on their way to a proxy or replica",
            self.orders_dropped.clone(),
        );
    }
}

impl ApiMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "metrics_api_answers",
            "Answers of the metrics API by HTTP status",
            self.answers.clone(),
        );
        registry.register(
            "metrics_api_rejected",
            "Connections to the metrics API that were closed because too many were open",
            self.turned_away.clone(),
        );
        registry.register(
            "metrics_api_unlisted_kinds",
            "Kinds of objects that the metrics API waits for",
            self.unlisted.clone(),
        );
    }
}
