//! Registers each metric with its name and help text.

use prometheus_client::registry::Registry;

use super::{
    ApiMetrics, AuthorityMetrics, CertifyMetrics, ConnectionMetrics, GraphMetrics,
    LiveQueryMetrics, Metrics, NameMetrics, ObserveMetrics, ObservedMetrics, ReportMetrics,
    StorageMetrics, StreamMetrics, WorldMetrics,
};

impl Metrics {
    /// Puts everything under `weft_controller_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        runtime::metrics::register(registry);
        registry.register_collector(Box::new(metrics.service_graph.clone()));
        metrics.automation.register(registry);
        metrics.certificates.register(registry);
        let registry = registry.sub_registry_with_prefix("weft_controller");
        certify(&metrics.certify, registry);
        stream(&metrics.stream, registry);
        authority(&metrics.authority, registry);
        connections(&metrics.connections, registry);
        world(&metrics.world, registry);
        storage(&metrics.storage, registry);
        observed(&metrics.observed, registry);
        metrics.register_written(registry);
        reports(&metrics.reports, registry);
        api(&metrics.api, registry);
        graph(&metrics.graph, registry);
        observe(&metrics.observe, registry);
        live_queries(&metrics.live_queries, registry);
        metrics.automation.register_failures(registry);
        names(&metrics.names, registry);
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
            "gateway_objects_written",
            "ServiceAccounts, Deployments and Services of Gateways written",
            self.gateway_objects.clone(),
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

fn names(metrics: &NameMetrics, registry: &mut Registry) {
    registry.register(
        "names",
        "Hosts outside the mesh whose addresses are looked up",
        metrics.hosts.clone(),
    );
    registry.register(
        "name_lookups",
        "Lookups of hosts outside the mesh",
        metrics.lookups.clone(),
    );
    registry.register(
        "name_lookups_failed",
        "Lookups of hosts outside the mesh that failed; the addresses of the last answer stay",
        metrics.failed.clone(),
    );
}

fn certify(metrics: &CertifyMetrics, registry: &mut Registry) {
    registry.register(
        "certify_answers",
        "Requests for a certificate by outcome",
        metrics.answers.clone(),
    );
}

fn stream(metrics: &StreamMetrics, registry: &mut Registry) {
    registry.register("streams", "Open streams to proxies", metrics.open.clone());
    registry.register(
        "batches",
        "Batches sent to proxies",
        metrics.batches.clone(),
    );
    registry.register(
        "resources",
        "Resources sent to proxies",
        metrics.resources.clone(),
    );
    registry.register(
        "nacks",
        "Resources that a proxy could not use",
        metrics.nacks.clone(),
    );
    registry.register(
        "destinations_skipped",
        "Destinations that exceeded the bound of one proxy, or whose names are none",
        metrics.left_out.clone(),
    );
    registry.register(
        "answer_seconds",
        "Time from sending a batch to its answer",
        metrics.answer_seconds.clone(),
    );
}

fn authority(metrics: &AuthorityMetrics, registry: &mut Registry) {
    registry.register(
        "root_remaining_seconds",
        "Remaining life of the root",
        metrics.root_seconds.clone(),
    );
    registry.register(
        "issuer_remaining_seconds",
        "Remaining life of the issuer, 0 while none can be used",
        metrics.issuer_seconds.clone(),
    );
    registry.register(
        "serving_remaining_seconds",
        "Remaining life of this replica's own certificate",
        metrics.serving_seconds.clone(),
    );
    registry.register(
        "authority_reverts",
        "Contents of Secret weft-ca that were not taken: without a root in use, of an earlier step, or unusable",
        metrics.reverts.clone(),
    );
    registry.register(
        "rotation_phase",
        "Phase of the root's rotation, by the holder of the Lease: 0 Steady, 1 Preparing, 2 Activating, 3 Retiring",
        metrics.rotation_phase.clone(),
    );
    registry.register(
        "proxies_trust",
        "Proxies that trust the first root, by the holder of the Lease",
        metrics.proxies_trust.clone(),
    );
}

fn connections(metrics: &ConnectionMetrics, registry: &mut Registry) {
    registry.register(
        "connections",
        "Open connections to the gRPC port",
        metrics.open.clone(),
    );
    registry.register(
        "handshakes_failed",
        "TLS handshakes that failed or took too long",
        metrics.handshakes_failed.clone(),
    );
    registry.register(
        "connections_rejected",
        "Connections turned away or closed because too many were open or came",
        metrics.turned_away.clone(),
    );
}

fn world(metrics: &WorldMetrics, registry: &mut Registry) {
    registry.register(
        "objects_skipped",
        "Times that an object of this kind was listed or changed and could not be read",
        metrics.unreadable.clone(),
    );
    registry.register(
        "skipped_ports",
        "Inbound ports that reach applications past their proxies, added up over the pods of a namespace",
        metrics.skipped_ports.clone(),
    );
    registry.register(
        "watch_failing_seconds",
        "Time for which lists and watches of this kind have kept failing, 0 while they do not",
        metrics.failing.clone(),
    );
}

fn storage(metrics: &StorageMetrics, registry: &mut Registry) {
    registry.register(
        "objects_rewritten",
        "SMI objects written anew so that none is stored in an older version",
        metrics.rewritten.clone(),
    );
    registry.register(
        "object_rewrites_failed",
        "Failed tries to write an SMI object anew",
        metrics.failed.clone(),
    );
}

fn observed(metrics: &ObservedMetrics, registry: &mut Registry) {
    registry.register(
        "proxies_disconnected",
        "Proxies without a stream whose pods are there",
        metrics.away.clone(),
    );
    registry.register(
        "disconnected_proxies_forgotten",
        "Proxies without a stream whose last state did not fit",
        metrics.away_forgotten.clone(),
    );
    registry.register(
        "persisted_destinations",
        "Destinations that workloads used and are retained",
        metrics.destinations.clone(),
    );
    registry.register(
        "persisted_destinations_forgotten",
        "Remembered destinations that went because there were too many",
        metrics.destinations_forgotten.clone(),
    );
}

fn reports(metrics: &ReportMetrics, registry: &mut Registry) {
    registry.register(
        "reports",
        "Reports of proxies, own and sent by other replicas, by what became of them",
        metrics.taken.clone(),
    );
    registry.register(
        "report_edges",
        "Edges of the last minutes that are held",
        metrics.edges.clone(),
    );
    registry.register(
        "report_intervals_dropped",
        "Slots of a pod that were forgotten early because it held most and all together too much",
        metrics.intervals_dropped.clone(),
    );
    registry.register(
        "report_bytes",
        "Bytes that the held edges take at most",
        metrics.bytes.clone(),
    );
}

fn graph(metrics: &GraphMetrics, registry: &mut Registry) {
    registry.register(
        "clock_sets",
        "Times that the clock of this controller's node was set by more than 10 s while it ran",
        metrics.clock_sets.clone(),
    );
    registry.register(
        "graph_edges",
        "Edges of the service graph that are known",
        metrics.edges.clone(),
    );
    registry.register(
        "graph_persisted_edges",
        "Edges that are persisted with first and last seen",
        metrics.persisted.clone(),
    );
    registry.register(
        "graph_bytes",
        "Bytes of what the graph has counted",
        metrics.bytes.clone(),
    );
    registry.register(
        "graph_fold_seconds",
        "Seconds of computing that folding reports into the graph took",
        metrics.fold_seconds.clone(),
    );
    registry.register(
        "graph_dropped",
        "What the graph let go for want of room: edges, stretches of time, persisted edges, edges that were not written down, exported calls",
        metrics.dropped.clone(),
    );
}

fn observe(metrics: &ObserveMetrics, registry: &mut Registry) {
    registry.register(
        "observe_answers",
        "Answers of the read API by resource and HTTP status",
        metrics.answers.clone(),
    );
    registry.register(
        "observe_lists_cut",
        "Lists of the read API that did not fit into one answer; the answer names where the rest begins",
        metrics.lists_cut.clone(),
    );
    registry.register(
        "observe_streams",
        "Streams of the read API that are open",
        metrics.streams.clone(),
    );
}

fn live_queries(metrics: &LiveQueryMetrics, registry: &mut Registry) {
    registry.register(
        "live_queries",
        "Questions to live proxies that are open, with those of other replicas",
        metrics.open.clone(),
    );
    registry.register(
        "live_query_responses_dropped",
        "Answers of proxies that found no room where they wait for their reader",
        metrics.answers_dropped.clone(),
    );
    registry.register(
        "live_query_commands_dropped",
        "Questions, and ends of questions, that found no room on their way to a proxy or replica",
        metrics.orders_dropped.clone(),
    );
}

fn api(metrics: &ApiMetrics, registry: &mut Registry) {
    registry.register(
        "metrics_api_answers",
        "Answers of the metrics API by HTTP status",
        metrics.answers.clone(),
    );
    registry.register(
        "metrics_api_rejected",
        "Connections to the metrics API that were closed because too many were open",
        metrics.turned_away.clone(),
    );
    registry.register(
        "metrics_api_unlisted_kinds",
        "Kinds of objects that the metrics API waits for",
        metrics.unlisted.clone(),
    );
}
