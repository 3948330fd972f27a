//! Every row by name. A row that is not in this table cannot be recorded, and one that is in
//! it and was not recorded fails `make eyes`.

/// Where a row is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasuredIn {
    /// In the cluster, by the test program `eyes`.
    Cluster,
    /// By this test of the dashboard, which prints what it measured.
    Page(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub id: &'static str,
    /// Under which heading it stands.
    pub part: &'static str,
    /// What is claimed, in the user's words.
    pub claim: &'static str,
    /// What must not be exceeded.
    pub bound: &'static str,
    pub measured_in: MeasuredIn,
}

/// The row with this id.
pub fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id == id)
}

const GRAPH: &str = "The graph, after five minutes of mixed load with one controller killed";
const PAGE: &str = "The dashboard, in a real browser";
const TRACES: &str = "Traces, at a real OpenTelemetry Collector";
const MONITORING: &str = "Rules, alerts and dashboards, in a real Prometheus";

const WITHIN: &str = "within 2 % of the generator's on every edge";

const fn cluster(
    id: &'static str,
    part: &'static str,
    claim: &'static str,
    bound: &'static str,
) -> Row {
    Row {
        id,
        part,
        claim,
        bound,
        measured_in: MeasuredIn::Cluster,
    }
}

const fn page(
    id: &'static str,
    claim: &'static str,
    bound: &'static str,
    test: &'static str,
) -> Row {
    Row {
        id,
        part: PAGE,
        claim,
        bound,
        measured_in: MeasuredIn::Page(test),
    }
}

/// All rows, in the order of the page.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    cluster("requests", GRAPH, "requests of each edge", WITHIN),
    cluster("failures", GRAPH, "failures of each edge, by status and by gRPC status", WITHIN),
    cluster("cancelled", GRAPH, "requests whose caller left before the answer", WITHIN),
    cluster("attempts", GRAPH, "attempts of each edge, retries too, and those of them that failed", "within 2 % of what the generator sent, and where it is sent again of what the applications saw"),
    cluster("open", GRAPH, "connections and streams that are open under load, and afterwards", WITHIN),
    cluster("replicas", GRAPH, "windows of which nothing more comes, as each replica reports them and as `weft stat` shows them", "the same edges with the same numbers"),
    page("page-drawn", "200 workloads with 1 000 calls: first paint, whole graph, work of the main thread for a frame of panning, the median", "200 ms, 2 s, 12 ms",
        "cost::thousand_edge_graph_draws_in_time_with_cheap_frames"),
    page("page-axe", "faults that axe finds on any page and table, by day and by night", "none",
        "reach::axe_finds_no_fault_in_light_or_dark_mode"),
    page("page-searched", "searches among 1 000 workloads: one that is drawn, some that are folded, all, none; the median of each", "300 ms",
        "cost::a_thousand_workloads_are_searched_in_time"),
    page("page-origin", "whom the page asks while hostile text is on every one of its pages, and what its policy has to report", "its own origin, and nothing",
        "safety::text_of_the_cluster_is_text_on_every_page"),
    page("page-foreign", "calls without the key of the start, and another page in the same browser, with the key too", "403, and no answer",
        "safety::other_page_in_browser_can_neither_read_nor_change"),
    page("page-size", "the page that `weft` carries, made anew from its sources", "the same bytes, 900 KB",
        "safety::bundled_dashboard_matches_build_of_its_sources"),
    cluster("chain-w3c", TRACES, "the spans of a call over three services, by `traceparent`", "six in one chain"),
    cluster("chain-b3", TRACES, "the same by `b3`", "six in one chain"),
    cluster("chain-b3multi", TRACES, "the same by `X-B3-*`", "six in one chain"),
    cluster("sampling", TRACES, "of at least 2 000 fresh calls, recorded with `tracing.sampling` at 10", "10 %, within five standard deviations"),
    cluster("parents-off", TRACES, "headers of an application's own span, through three services without a collector", "byte for byte"),
    cluster("parents-unsampled", TRACES, "the same of a trace that is not sampled, with a collector", "byte for byte, and no span"),
    cluster("parents-sampled", TRACES, "the same of a sampled trace: the parent that the next application receives, and whose child that is", "a span at the collector, in one chain from the first application's own"),
    cluster("dashboards", MONITORING, "queries of all dashboards, those of their variables too, after load", "each has an answer, or its reason is listed"),
    cluster("alerts", MONITORING, "queries of all rules and alerts without their thresholds, after load; the health of the rules", "each has an answer, or its reason is listed; all healthy"),
    cluster("exemplars", MONITORING, "exemplars of `weft_request_duration_seconds`", "kept, and their traces are at the collector"),
    cluster("operator", MONITORING, "the chart's PodMonitor, ServiceMonitor and PrometheusRule, judged strictly by the Prometheus Operator's definitions", "accepted"),
];
