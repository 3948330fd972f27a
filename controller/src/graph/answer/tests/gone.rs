//! What no longer exists: its calls are never skipped, its silence is hidden unless requested.

use super::*;

#[test]
fn gone_workloads_show_calls_but_quiet_edges_on_request() {
    let mut town = Town::of(&busy());
    let now = tokio::time::Instant::now();
    let web = key("shop", "web");
    let mut inventory = town.inventory.write();
    inventory.end(MetricsKind::Deployment, &web, now);
    drop(inventory);
    let extent = |quiet: bool, gone: bool| Extent {
        quiet,
        gone,
        ..Extent::default()
    };
    for gone in [false, true] {
        let graph = town.graph(&extent(false, gone));
        assert_eq!(graph.edges.len(), 3, "calls are lost: {:?}", graph.edges);
        let ends = graph.nodes.iter().filter(|node| node.gone);
        let ends: Vec<&str> = ends.map(|node| node.id.as_str()).collect();
        assert_eq!(ends, ["shop/Deployment/web"], "asked for: {gone}");
    }

    // The same edges while no caller calls.
    let intervals = (INTERVAL_NOW - 11, INTERVAL_NOW + 1);
    let window = town.history.window(intervals, INTERVAL_NOW + 1, 0);
    for edge in window.edges.keys() {
        town.memory.see(edge, Seen { first: 1, last: 2 });
    }
    let silent = Window::default();
    for (quiet, gone, expected) in [
        (false, true, 0),
        (true, false, 2),
        // Control: a query for them shows them.
        (true, true, 3),
    ] {
        let edges = town.answer(&silent, &extent(quiet, gone)).edges;
        assert_eq!(edges.len(), expected, "quiet {quiet}, gone {gone}");
    }
}
