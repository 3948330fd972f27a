//! What a graph reports of itself while it starts up.
//!
//! Claims: observe-10, observe-14

use super::*;

/// Why the window that is settled by now is incomplete.
fn incomplete(graph: &Graph) -> Option<String> {
    let settled = GraphWindow {
        settled: true,
        ..window_of(Extent::default())
    };
    graph
        .answer(&settled, SystemTime::now())
        .metadata
        .incomplete
}

// Claims: observability-3
#[tokio::test(start_paused = true)]
async fn new_graph_is_incomplete_until_every_proxy_could_report() {
    let graph = graph(&reports());
    graph.startup().set_loaded();
    assert_eq!(incomplete(&graph), None, "one that is old");
    let follow = graph.clone().follow(|| true);
    let starting_up = Some(COLLECTING.to_owned());
    assert_eq!(incomplete(&graph), starting_up, "before the first look");
    tokio::spawn(follow);
    tokio::time::sleep(STARTUP_TIME - LOOK_EVERY).await;
    assert_eq!(incomplete(&graph), starting_up);
    tokio::time::sleep(3 * LOOK_EVERY).await;
    assert_eq!(incomplete(&graph), None);
}

#[tokio::test(start_paused = true)]
async fn graph_keeps_collecting_while_pod_owners_are_unknown() {
    let graph = graph(&reports());
    tokio::spawn(graph.clone().follow(|| false));
    tokio::time::sleep(4 * STARTUP_TIME).await;
    assert_eq!(incomplete(&graph), Some(COLLECTING.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn unreadable_persisted_edges_are_awaited_briefly_then_reported() {
    let graph = graph(&reports());
    tokio::spawn(graph.clone().follow(|| true));
    tokio::time::sleep(STARTUP_TIME - LOOK_EVERY).await;
    assert!(graph.startup().awaits_load() && !graph.startup().lacks_loaded());
    tokio::time::sleep(3 * LOOK_EVERY).await;
    assert!(!graph.startup().awaits_load() && graph.startup().lacks_loaded());
    assert_eq!(incomplete(&graph), Some(UNREAD.to_owned()));
    // It could be read all the same.
    graph.startup().set_loaded();
    assert!(!graph.startup().awaits_load() && !graph.startup().lacks_loaded());
    assert_eq!(incomplete(&graph), None);
}

#[tokio::test(start_paused = true)]
async fn history_before_resent_reports_is_marked_unknown() {
    let graph = graph(&reports());
    let ago = |seconds_ago| answer::timestamp(seconds(SystemTime::now()) - seconds_ago);
    let since = |minutes: Option<u64>| {
        let now = SystemTime::now();
        let first = minutes.map(|minutes| seconds(now) / 60 - minutes);
        let extent = Extent {
            history: first,
            ..Extent::default()
        };
        graph.answer(&window_of(extent), now).metadata.history_since
    };
    assert_eq!(since(Some(60)), None, "one that is old");
    tokio::spawn(graph.clone().follow(|| true));
    tokio::time::sleep(STARTUP_TIME).await;
    let known_since = since(Some(60)).unwrap();
    assert!((ago(300)..ago(180)).contains(&known_since), "{known_since}");
    for known in [None, Some(2)] {
        assert_eq!(since(known), None, "{known:?}");
    }
}
