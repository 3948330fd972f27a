//! What has no room in a response is dropped in order, and the response reports it.
//!
//! Claims: observe-12

use super::*;

#[test]
fn oversized_graph_counts_skipped_parts_and_is_incomplete() {
    let town = Town::of(&busy());
    let intervals = (INTERVAL_NOW - 11, INTERVAL_NOW + 1);
    let window = town.history.window(intervals, INTERVAL_NOW + 1, 0);
    let rendered = |most: usize| {
        let sources = town.sources(&window);
        let written = Written::within(most, |to| write(&sources, &Extent::default(), to));
        let line = written.whole();
        assert!(line.len() <= most + 1_000, "{} bytes", line.len());
        read(&line)
    };
    let whole = rendered(1 << 20);
    assert_eq!(whole, town.graph(&Extent::default()));
    assert_eq!((whole.edges.len(), whole.metadata.left_out), (3, 0));
    let longest = whole
        .edges
        .iter()
        .map(|edge| serde_json::to_string(edge).unwrap().len());
    // Room for one of any, and not for three.
    let cut = rendered((longest.max().unwrap() + 1) * 4 / 3 + 4);
    assert!((1..3).contains(&cut.edges.len()), "{:?}", cut.edges);
    let metadata = &cut.metadata;
    let missing = 3 - cut.edges.len();
    assert!(metadata.left_out >= missing as u64, "{metadata:?}");
    assert!(!metadata.complete && !metadata.unsettled, "{metadata:?}");
    let why = metadata.incomplete.as_deref().unwrap();
    let words = format!("{} edges and nodes had no room in it", metadata.left_out);
    assert!(why.contains(&words), "{why}");
    // A node is there for each end that is shown, as far as there is room, and for no other.
    let ids: BTreeSet<&str> = cut
        .edges
        .iter()
        .flat_map(|edge| [&*edge.from, &*edge.to])
        .collect();
    assert!(cut.nodes.iter().all(|node| ids.contains(&*node.id)));
}

#[test]
fn history_is_dropped_before_edges_and_reported() {
    let reports = busy();
    let mut town = Town::of(&reports);
    let known = inventory();
    let owners = Owners {
        inventory: &known,
        model: None,
    };
    let mut fold = Fold::default();
    for interval in &reports.of_interval(INTERVAL_NOW) {
        fold.add(owners, interval, &mut town.history.edges);
    }
    // The same calls ten minutes before.
    town.history.take(INTERVAL_NOW - 120, 1, fold.done());
    town.history.tidy(INTERVAL_NOW);
    let intervals = (INTERVAL_NOW - 11, INTERVAL_NOW + 1);
    let window = town.history.window(intervals, INTERVAL_NOW + 1, 0);
    let extent = Extent {
        history: Some(0),
        ..Extent::default()
    };
    let rendered = |most: usize| {
        let sources = town.sources(&window);
        read(&Written::within(most, |to| write(&sources, &extent, to)).whole())
    };
    let with_history = |graph: &Graph| {
        let edges = graph.edges.iter();
        edges.filter(|edge| !edge.history.is_empty()).count()
    };
    let whole = rendered(1 << 20);
    assert_eq!((whole.edges.len(), with_history(&whole)), (3, 3));
    assert!(!whole.edges.iter().any(|edge| edge.history_left_out));
    // Three quarters of a response are for its edges.
    let texts = whole.edges.iter();
    let texts = texts.map(|edge| serde_json::to_string(edge).unwrap().len() + 1);
    let room: usize = texts.sum();
    let just_enough = rendered(room.div_ceil(3) * 4);
    assert_eq!(just_enough.edges, whole.edges, "as long as there is room");
    let cut = rendered((room - 1) / 3 * 4);
    assert_eq!(cut.edges.len(), 3);
    assert!((1..3).contains(&with_history(&cut)), "{:?}", cut.edges);
    // A reader can distinguish an edge without earlier calls from one whose history is dropped.
    for edge in &cut.edges {
        assert_eq!(edge.history_left_out, edge.history.is_empty(), "{edge:?}");
    }
    let why = cut.metadata.incomplete.unwrap();
    assert!(why.contains("shown without history or routes"), "{why}");
    assert!(!cut.metadata.complete);
}

#[test]
fn edge_larger_than_estimated_loses_its_routes() {
    let reports = reports();
    let called = seen_by_client("shop/api", 16, 0);
    report(&reports, "shop/web", vec![called]);
    let routes = (0..16).map(|number| wire::v1::EdgeRoute {
        route: format!("shop/orders/rule-{number}"),
        requests: 1,
    });
    let served = wire::v1::Edge {
        routes: routes.collect(),
        ..seen_by_server("shop/web", 16, 0)
    };
    report(&reports, "shop/api", vec![served]);
    let town = Town::of(&reports);
    let intervals = (INTERVAL_NOW - 11, INTERVAL_NOW + 1);
    let window = town.history.window(intervals, INTERVAL_NOW + 1, 0);
    let rendered = |most: usize| {
        let sources = town.sources(&window);
        read(&Written::within(most, |to| write(&sources, &of("shop"), to)).whole())
    };
    let whole = rendered(1 << 20);
    assert_eq!((whole.edges.len(), whole.edges[0].routes.len()), (1, 16));
    let cut = rendered(900 / 3 * 4);
    assert_eq!((cut.edges.len(), cut.edges[0].routes.len()), (1, 0));
    let why = cut.metadata.incomplete.unwrap();
    assert!(why.contains("shown without history or routes"), "{why}");
}

#[test]
fn edge_that_was_called_last_has_room_before_others() {
    let mut town = Town::of(&busy());
    let intervals = (INTERVAL_NOW - 11, INTERVAL_NOW + 1);
    let window = town.history.window(intervals, INTERVAL_NOW + 1, 0);
    let whole = town.graph(&Extent::default());
    let longest = whole
        .edges
        .iter()
        .map(|edge| serde_json::to_string(edge).unwrap().len());
    // Times take as many bytes whenever they were: room for one of any, and not for two.
    let most = (longest.max().unwrap() + 1) * 4 / 3 + 4;
    for newest in window.edges.keys() {
        town.memory = Memory::default();
        for edge in window.edges.keys() {
            let last = if edge.id() == newest.id() { 7_200 } else { 60 };
            town.memory.see(edge, Seen { first: 0, last });
        }
        let sources = town.sources(&window);
        let written = Written::within(most, |to| write(&sources, &Extent::default(), to));
        let rendered = read(&written.whole()).edges;
        let ids: Vec<&str> = rendered.iter().map(|edge| edge.id.as_str()).collect();
        assert_eq!(ids, [newest.id()]);
    }
}

/// A resumed stream is sent only what changed if its response lacked nothing.
#[test]
fn graph_with_too_many_edges_is_incomplete_and_unresumable() {
    for incomplete in [None, Some(Incomplete::Unsettled)] {
        let window = Window {
            incomplete,
            ..Window::default()
        };
        let rendered = |beyond| {
            let metadata = Overflow::default().metadata(&window, beyond);
            let lacks = Written::of(|_| metadata.clone()).lacks();
            (metadata, lacks)
        };
        let (whole, lacks) = rendered(0);
        assert_eq!((whole.complete, whole.left_out), (incomplete.is_none(), 0));
        assert!(!lacks, "{whole:?}");
        assert!(whole.sides, "{whole:?}");
        let (cut, lacks) = rendered(5);
        assert_eq!((cut.complete, cut.unsettled), (false, false), "{cut:?}");
        assert!(lacks && cut.left_out == 5, "{cut:?}");
        let why = cut.incomplete.unwrap();
        assert!(why.contains("5 edges and nodes had no room in it"), "{why}");
    }
}
