//! What the graph reports after the clock that numbers its intervals was set.
//!
//! Claims: observe-11

use super::*;
use crate::graph::follow::state::SHORTEST_MEMORY;
use crate::graph::wall_clock::{ClockStep, WallClock};

/// What a graph shows of five calls, and three in the same interval once more, which came again when
/// the clock was set back; or which came late, where it was not.
async fn said(is_set: bool) -> (u64, crds::observe::GraphMetadata, Graph) {
    let by = Duration::from_secs(120);
    let reports = reports();
    let graph = graph(&reports);
    call(&reports, "shop/web", "shop/api", 5, 0);
    graph.look(now(), true).await;
    graph.tidy(now() + by);
    if is_set {
        let again = UNIX_EPOCH + Duration::from_secs(topology::INTERVAL_NOW * INTERVAL);
        graph.clock_was_set(ClockStep::Back(by), again);
    }
    call(&reports, "shop/web", "shop/api", 3, 0);
    graph.look(now(), true).await;
    let answer = graph.answer(&window_of(Extent::default()), now());
    let requests = answer.edges.iter().map(|edge| edge.requests).sum();
    (requests, answer.metadata, graph)
}

// Claims: observability-3
#[tokio::test]
async fn clock_set_back_counts_immediately_and_marks_windows() {
    let (requests, metadata, graph) = said(true).await;
    assert_eq!(requests, 3);
    assert_eq!(metadata.incomplete.as_deref(), Some(CLOCK_SET));
    assert!(!metadata.complete && !metadata.unsettled);
    assert_eq!(graph.inner.metrics.clock_sets.get(), 1);
    // A window that began after that is as any other, unless it has minutes before.
    let later = now() + Duration::from_secs(20 * INTERVAL);
    let mut window = window_of(Extent::default());
    assert!(graph.answer(&window, later).metadata.unsettled);
    window.extent.history = Some(0);
    let metadata = graph.answer(&window, later).metadata;
    assert_eq!(metadata.incomplete.as_deref(), Some(CLOCK_SET));
}

/// It is looked at every two seconds.
#[tokio::test]
async fn windows_report_set_clock_before_next_look() {
    let by = Duration::from_secs(120);
    let at = std::time::Instant::now;
    let now = SystemTime::now;
    for (shown, is_set) in [(now() - by, true), (now() + by, true), (now(), false)] {
        let graph = graph(&reports());
        let says_so = || {
            let answer = graph.answer(&window_of(Extent::default()), now());
            answer.metadata.incomplete.as_deref() == Some(CLOCK_SET)
        };
        assert!(!says_so(), "no look has run");
        graph.inner.state.lock().clock = Some(WallClock::new(shown, at()));
        assert_eq!(says_so(), is_set);
        assert_eq!(graph.inner.metrics.clock_sets.get(), 0);
        graph.look_at_clock(now(), at());
        assert_eq!(says_so(), is_set, "from then on");
        assert_eq!(graph.inner.metrics.clock_sets.get(), u64::from(is_set));
    }
}

#[tokio::test]
async fn window_keeps_counts_while_clock_is_not_set() {
    let (requests, metadata, graph) = said(false).await;
    assert_eq!(requests, 5);
    assert!(metadata.unsettled);
    assert_eq!(graph.inner.metrics.clock_sets.get(), 0);
}

#[tokio::test]
async fn clock_set_ahead_expires_known_edges_after_one_hour() {
    let by = 2 * MONTH;
    let later = now() + by;
    for (is_set, persisted) in [(true, 1), (false, 0)] {
        let reports = reports();
        let graph = graph(&reports);
        call(&reports, "shop/web", "shop/api", 1, 0);
        graph.look(now(), true).await;
        if is_set {
            graph.clock_was_set(ClockStep::Ahead(by), later);
        }
        let left = |at| {
            graph.tidy(at);
            graph.with_memory(|memory, _| memory.len())
        };
        assert_eq!(left(later), persisted, "set: {is_set}");
        let metadata = graph.answer(&window_of(Extent::default()), later).metadata;
        assert_eq!(metadata.unsettled, !is_set, "{metadata:?}");
        let an_hour = SHORTEST_MEMORY + Duration::from_secs(INTERVAL);
        assert_eq!(left(later + an_hour), 0);
    }
}
