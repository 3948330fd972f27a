//! What a graph says of itself that has just begun.

use super::*;

/// Why the window that is settled by now is not whole.
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

#[tokio::test(start_paused = true)]
async fn graph_that_has_just_begun_says_so_until_every_proxy_had_time_to_report() {
    let graph = graph(&reports());
    graph.recalled();
    assert_eq!(incomplete(&graph), None, "one that is old");
    let follow = graph.clone().follow(|| true);
    let young = Some(GATHERS.to_owned());
    assert_eq!(incomplete(&graph), young, "before the first look");
    tokio::spawn(follow);
    tokio::time::sleep(YOUNG - LOOK_EVERY).await;
    assert_eq!(incomplete(&graph), young);
    tokio::time::sleep(3 * LOOK_EVERY).await;
    assert_eq!(incomplete(&graph), None);
}

#[tokio::test(start_paused = true)]
async fn graph_is_young_for_as_long_as_it_is_not_known_who_owns_which_pod() {
    let graph = graph(&reports());
    tokio::spawn(graph.clone().follow(|| false));
    tokio::time::sleep(4 * YOUNG).await;
    assert_eq!(incomplete(&graph), Some(GATHERS.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_for_good_is_awaited_for_a_moment_and_told_from_then_on() {
    let graph = graph(&reports());
    tokio::spawn(graph.clone().follow(|| true));
    tokio::time::sleep(YOUNG - LOOK_EVERY).await;
    assert!(graph.awaits_recall() && !graph.lacks_recall());
    tokio::time::sleep(3 * LOOK_EVERY).await;
    assert!(!graph.awaits_recall() && graph.lacks_recall());
    assert_eq!(incomplete(&graph), Some(UNREAD.to_owned()));
    // It could be read all the same.
    graph.recalled();
    assert!(!graph.awaits_recall() && !graph.lacks_recall());
    assert_eq!(incomplete(&graph), None);
}

#[tokio::test(start_paused = true)]
async fn minutes_before_what_proxies_tell_again_are_told_to_be_unknown() {
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
    tokio::time::sleep(YOUNG).await;
    let told = since(Some(60)).unwrap();
    assert!((ago(300)..ago(180)).contains(&told), "{told}");
    for known in [None, Some(2)] {
        assert_eq!(since(known), None, "{known:?}");
    }
}
