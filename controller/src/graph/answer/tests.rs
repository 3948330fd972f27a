//! What of the graph each reader is shown, and what a stream sends.
//!
//! Claims: observe-141, observe-145

use super::*;
use crate::graph::fold::Fold;
use crate::graph::window::Incomplete;
use crate::graph::workloads::{Owners, Workload};
use crate::graph::written::{LastShown, Written};
use crate::inventory::InventoryObject;
use crate::inventory::kind::MetricsKind;
use crate::observe::reports::{Reporter, Reports};
use crate::testing::topology::{
    INTERVAL_NOW, call, inventory, key, now, report, reports, seen_by_client, seen_by_server,
};

mod crowded;
mod gone;

struct Town {
    history: History,
    memory: Memory,
    inventory: RwLock<Inventory>,
    workloads: Workloads,
}

impl Town {
    fn of(reports: &Reports) -> Self {
        Self::with(inventory(), reports)
    }

    fn with(inventory: Inventory, reports: &Reports) -> Self {
        let mut town = Self {
            history: History::default(),
            memory: Memory::default(),
            inventory: RwLock::default(),
            workloads: Workloads::new(),
        };
        let owners = Owners {
            inventory: &inventory,
            model: None,
        };
        let mut fold = Fold::default();
        for interval in &reports.of_interval(INTERVAL_NOW) {
            fold.add(owners, interval, &mut town.history.edges);
        }
        town.history.take(INTERVAL_NOW, 1, fold.done());
        *town.inventory.write() = inventory;
        town
    }

    fn graph(&self, extent: &Extent) -> Graph {
        let window =
            self.history
                .window((INTERVAL_NOW - 11, INTERVAL_NOW + 1), INTERVAL_NOW + 1, 0);
        self.answer(&window, extent)
    }

    fn answer(&self, window: &Window, extent: &Extent) -> Graph {
        as_object(|to| write(&self.sources(window), extent, to))
    }

    fn sources<'a>(&'a self, window: &'a Window) -> Sources<'a> {
        Sources {
            window,
            history: &self.history,
            memory: &self.memory,
            workloads: &self.workloads,
            inventory: &self.inventory,
            trust_domain: "cluster.local",
            as_it_was: false,
        }
    }
}

fn of(namespace: &str) -> Extent {
    Extent {
        namespace: Some(namespace.to_owned()),
        routes: true,
        ..Extent::default()
    }
}

fn busy() -> Reports {
    let reports = reports();
    call(&reports, "shop/web", "shop/api", 7, 2);
    call(&reports, "bank/web", "shop/api", 1, 0);
    call(&reports, "bank/web", "bank/web", 1, 0);
    let by_rule = wire::v1::Edge {
        rules: vec!["shop/read".to_owned()],
        audit: 3,
        ..seen_by_server("bank/web", 1, 0)
    };
    report(&reports, "shop/api", vec![by_rule]);
    reports
}

// Claims: observability-10
#[test]
fn namespace_graph_shows_own_edges_and_minimal_foreign_ends() {
    let town = Town::of(&busy());
    let shop = town.graph(&of("shop"));
    let ends: Vec<(&str, &str)> = shop
        .edges
        .iter()
        .map(|edge| (edge.from.as_str(), edge.to.as_str()))
        .collect();
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(ends.contains(&("bank/Deployment/web", "shop/Deployment/api")));
    let called = shop.edges.iter().find(|edge| edge.from.starts_with("bank"));
    let called = called.unwrap();
    assert_eq!(called.allowed_by, ["shop/read"]);
    assert_eq!((called.audit, called.server.is_some()), (3, true));
    assert_eq!(called.backend, "shop/api");
    // Seen from the caller's namespace, the callee's rules and counts are not shown, nor how its
    // Service is split.
    let bank = town.graph(&of("bank"));
    let calls = bank.edges.iter().find(|edge| edge.to.starts_with("shop"));
    let calls = calls.unwrap();
    assert!(calls.allowed_by.is_empty() && calls.server.is_none() && calls.audit == 0);
    assert_eq!((calls.requests, calls.service.as_str()), (1, "shop/api"));
    assert_eq!((calls.backend.as_str(), calls.split.as_str()), ("", ""));
    let foreign = bank
        .nodes
        .iter()
        .find(|node| node.namespace == "shop")
        .unwrap();
    assert_eq!(
        (foreign.pods, &foreign.access, foreign.services.len()),
        (None, &None, 0)
    );
    assert!(
        !bank
            .nodes
            .iter()
            .any(|node| node.id == "shop/Deployment/web")
    );
    assert_eq!(town.graph(&Extent::default()).edges.len(), 3);
}

#[test]
fn edge_identity_belongs_to_caller_not_current_pods() {
    let reports = reports();
    let reporter = Reporter {
        uid: "shop-web".into(),
        pod: key("shop", "web-1"),
        account: Some(key("shop", "before")),
    };
    let report = wire::v1::Report {
        process: 1,
        slot: INTERVAL_NOW * INTERVAL,
        edges: vec![seen_by_client("shop/api", 1, 0)],
        ..wire::v1::Report::default()
    };
    reports.take(&reporter, report, true, now());
    // Of the other one no proxy reports the account.
    call(&reports, "bank/web", "bank/web", 1, 0);
    let mut town = Town::of(&reports);
    let id =
        |namespace: &str, name: &str| format!("spiffe://cluster.local/ns/{namespace}/sa/{name}");
    for namespace in ["shop", "bank"] {
        let node = NodeKey::parse(&format!("{namespace}/Deployment/web")).unwrap();
        let workload = Workload {
            identities: [id(namespace, "now")].into(),
            ..Workload::default()
        };
        town.workloads.insert(node, workload);
    }
    let graph = town.graph(&Extent::default());
    let of = |from: &str| {
        let mut edges = graph.edges.iter().filter(|edge| edge.from == from);
        edges.next().unwrap().identities.clone()
    };
    assert_eq!(of("shop/Deployment/web"), [id("shop", "before")]);
    assert_eq!(of("bank/Deployment/web"), [id("bank", "now")]);
}

/// Two runs of CronJob `report` in `shop`, each by a Job and a pod of its own, and a Job that
/// nothing owns.
#[test]
fn cronjob_runs_form_one_node_until_last_job_ends() {
    let mut inventory = inventory();
    let mut put = |kind, name: &str, uid: &str, owner: Option<(MetricsKind, &str)>| {
        let thing = InventoryObject {
            uid: uid.into(),
            owner: owner.map(|(kind, name)| (kind, name.into())),
            ..InventoryObject::default()
        };
        inventory.put(kind, key("shop", name), thing.into());
    };
    for (job, owner) in [
        ("report-29387460", Some((MetricsKind::CronJob, "report"))),
        ("report-29387520", Some((MetricsKind::CronJob, "report"))),
        ("once", None),
    ] {
        put(MetricsKind::Job, job, "", owner);
        let (pod, uid) = (format!("{job}-1"), format!("shop-{job}"));
        put(MetricsKind::Pod, &pod, &uid, Some((MetricsKind::Job, job)));
    }
    let reports = reports();
    for (job, calls) in [("report-29387460", 2), ("report-29387520", 3), ("once", 4)] {
        let edge = seen_by_client("shop/api", calls, 0);
        report(&reports, &format!("shop/{job}"), vec![edge]);
    }
    let town = Town::with(inventory, &reports);
    let listed = |town: &Town| {
        let graph = town.graph(&Extent::default());
        let requests = |id: &str| -> u64 {
            let edges = graph.edges.iter().filter(|edge| edge.from == id);
            edges.map(|edge| edge.requests).sum()
        };
        let callers = graph.nodes.iter().filter(|node| node.name != "api");
        let mut callers: Vec<(String, u64, bool)> = callers
            .map(|node| (node.id.clone(), requests(&node.id), node.gone))
            .collect();
        callers.sort();
        callers
    };
    let node = |id: &str, calls: u64, gone: bool| (id.to_owned(), calls, gone);
    let once = node("shop/Job/once", 4, false);
    let report = |gone| node("shop/CronJob/report", 5, gone);
    assert_eq!(listed(&town), [report(false), once.clone()]);
    let end = |job: &str| {
        let mut inventory = town.inventory.write();
        let now = tokio::time::Instant::now();
        inventory.end(MetricsKind::Job, &key("shop", job), now);
    };
    end("report-29387460");
    assert_eq!(listed(&town), [report(false), once.clone()]);
    end("report-29387520");
    assert_eq!(listed(&town), [report(true), once]);
}

#[test]
fn graph_states_end_and_length_of_window() {
    let graph = Town::of(&busy()).graph(&Extent::default());
    assert_eq!(graph.metadata.end, timestamp((INTERVAL_NOW + 1) * INTERVAL));
    assert_eq!(graph.metadata.window_seconds, 60);
    assert!(graph.metadata.complete);
    assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
}

#[test]
fn lossless_graph_is_marked_unsettled_only() {
    let town = Town::of(&busy());
    for (incomplete, expected) in [
        (None, (true, false)),
        (Some(Incomplete::Unsettled), (false, true)),
        (Some(Incomplete::Lost("no room")), (false, false)),
    ] {
        let window = Window {
            incomplete,
            ..Window::default()
        };
        let metadata = town.answer(&window, &Extent::default()).metadata;
        assert_eq!((metadata.complete, metadata.unsettled), expected);
        assert_eq!(metadata.incomplete.is_some(), !metadata.complete);
    }
}

fn read(line: &str) -> Graph {
    assert!(!line.contains('\n'));
    serde_json::from_str(line).unwrap()
}

#[test]
fn what_is_written_by_part_is_the_graph() {
    let extent = Extent::default();
    let intervals = (INTERVAL_NOW - 11, INTERVAL_NOW + 1);
    // Edges come in another order each time; here in one that is not that of their ids.
    let towns = (0..64).map(|_| {
        let town = Town::of(&busy());
        let window = town.history.window(intervals, INTERVAL_NOW + 1, 0);
        (town, window)
    });
    let mut unsorted = towns.filter(|(town, window)| {
        let sources = town.sources(window);
        let (chosen, _) = sources.chosen(&extent);
        !chosen.iter().map(|(edge, ..)| edge.id()).is_sorted()
    });
    let (town, window) = unsorted.next().unwrap();
    let mut ids: Vec<&str> = window.edges.keys().map(EdgeRef::id).collect();
    ids.sort_unstable();
    assert_eq!(ids.len(), 3);
    let sources = town.sources(&window);

    let written = Written::of(|to| write(&sources, &extent, to));
    let graph = read(&written.whole());
    let listed: Vec<&str> = graph.edges.iter().map(|edge| edge.id.as_str()).collect();
    assert_eq!(listed, ids);
    assert_eq!(graph, town.answer(&window, &extent));
}

#[test]
fn graph_stream_sends_additions_and_removals_only_once() {
    let whole = Town::of(&busy()).graph(&Extent::default());
    let mut shown = LastShown::default();
    shown.note(&whole.clone().into());
    let same = read(&shown.changes(&whole.clone().into(), false));
    assert!(same.nodes.is_empty() && same.edges.is_empty() && same.removed.is_empty());
    assert!(same.metadata.changes && !same.metadata.last);
    let mut later = whole.clone();
    let gone = later.edges.remove(0);
    later.edges[0].requests += 1;
    let changes = read(&shown.changes(&later.clone().into(), false));
    assert_eq!(changes.edges, [later.edges[0].clone()]);
    assert_eq!((changes.removed, changes.nodes.len()), (vec![gone.id], 0));
    // What came back is new.
    assert_eq!(
        read(&shown.changes(&whole.clone().into(), false))
            .edges
            .len(),
        2
    );
    // A resumed stream is sent all that has calls, and all nodes: their pods may have changed
    // since.
    let again = read(&shown.changes(&whole.clone().into(), true));
    assert_eq!(
        (again.edges, again.nodes),
        (whole.edges.clone(), whole.nodes.clone())
    );
    assert!(read(&LastShown::last(&whole.into(), "x")).metadata.last);
}

#[test]
fn application_tls_is_reported_despite_opaque_server_side() {
    use wire::v1::{Edge, Protocol, Security, Side};

    let spoken = |protocol: Protocol, edge| Edge {
        protocol: protocol.into(),
        ..edge
    };
    let outside = Edge {
        side: Side::Client.into(),
        success: 2,
        port: 443,
        remote: "api.example.com".to_owned(),
        security: Security::Plaintext.into(),
        ..Edge::default()
    };
    let called = vec![
        spoken(Protocol::Tls, outside.clone()),
        spoken(Protocol::Opaque, outside),
        spoken(Protocol::Tls, seen_by_client("shop/api", 3, 0)),
    ];
    let served = spoken(Protocol::Opaque, seen_by_server("shop/web", 3, 0));
    let reports = reports();
    report(&reports, "shop/web", called);
    report(&reports, "shop/api", vec![served]);
    let graph = Town::of(&reports).graph(&Extent::default());
    let listed = graph.edges.iter().map(|edge| {
        let no_mtls = edge.mtls.map(|share| share == 0.0);
        let protocol = edge.protocol.as_str();
        (edge.to.as_str(), protocol, edge.requests, no_mtls)
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort_unstable();
    let expected = [
        ("External/api.example.com", "tcp", 2, Some(true)),
        ("External/api.example.com", "tls", 2, Some(true)),
        // One call, whatever the other end takes it for.
        ("shop/Deployment/api", "tls", 3, None),
    ];
    assert_eq!(listed, expected);
}

/// A caller can report calls, and routes, that no called side served.
// Claims: observe-7
#[test]
fn called_side_reports_routes_and_refusals() {
    let reports = reports();
    let by_route = |route: &str, edge: wire::v1::Edge| wire::v1::Edge {
        routes: vec![wire::v1::EdgeRoute {
            route: route.to_owned(),
            requests: 3,
        }],
        ..edge
    };
    let called = by_route("cart/admin", seen_by_client("shop/api", 3, 0));
    report(&reports, "shop/web", vec![called]);
    let graph = Town::of(&reports).graph(&of("shop"));
    let edge = &graph.edges[0];
    assert_eq!((edge.requests, edge.routes.len()), (3, 0));
    assert!(edge.server.is_none() && !edge.caller_silent);

    let served = wire::v1::Edge {
        reasons: vec![wire::v1::ReasonCalls {
            reason: "not-allowed".to_owned(),
            calls: 2,
        }],
        ..by_route("cart/read", seen_by_server("shop/web", 1, 2))
    };
    report(&reports, "shop/api", vec![served]);
    let graph = Town::of(&reports).graph(&of("shop"));
    let [edge] = &graph.edges[..] else {
        panic!("{:?}", graph.edges)
    };
    let routes: Vec<&str> = edge.routes.iter().map(|one| one.route.as_str()).collect();
    assert_eq!(routes, ["cart/read"]);
    let server = edge.server.as_ref().unwrap();
    assert_eq!((server.requests, server.failure), (3, 2));
    let refused = BTreeMap::from([("not-allowed".to_owned(), 2)]);
    assert_eq!(server.refused, refused);
    // Of a Service of which no controller knows where it leads.
    assert!(server.port_unknown && !edge.caller_silent);
}

#[test]
fn silent_callers_are_reported_on_called_side_only() {
    let reports = reports();
    report(&reports, "shop/api", vec![seen_by_server("bank/web", 1, 0)]);
    let town = Town::of(&reports);
    for (namespace, is_silent) in [("shop", true), ("bank", false)] {
        let graph = town.graph(&of(namespace));
        assert_eq!(graph.edges.len(), 1, "{namespace}");
        assert_eq!(graph.edges[0].caller_silent, is_silent, "{namespace}");
    }
}

#[test]
fn shared_server_sums_are_marked_and_hidden_from_callers() {
    let reports = reports();
    let by = |port, good| wire::v1::Edge {
        port,
        ..seen_by_client("shop/api", good, 0)
    };
    report(&reports, "bank/web", vec![by(80, 3), by(81, 4)]);
    let served = wire::v1::Edge {
        audit: 2,
        ..seen_by_server("bank/web", 7, 0)
    };
    report(&reports, "shop/api", vec![served]);
    let town = Town::of(&reports);
    let shop = town.graph(&of("shop"));
    assert_eq!(shop.edges.len(), 2, "{:?}", shop.edges);
    // They stand in the order of their ids.
    let group = shop.edges[0].id.clone();
    for edge in &shop.edges {
        let shared = edge.server_shared.as_ref().unwrap();
        assert_eq!((shared.group == group, shared.edges), (true, 2));
        assert_eq!((shared.sums.requests, edge.audit), (7, 2));
        assert!(edge.server.is_none() && !edge.caller_silent);
    }
    for edge in &town.graph(&of("bank")).edges {
        assert!(edge.server_shared.is_none() && edge.audit == 0, "{edge:?}");
    }
    // Control: calls by one edge are its own.
    let reports = self::reports();
    report(&reports, "bank/web", vec![by(80, 7)]);
    report(&reports, "shop/api", vec![seen_by_server("bank/web", 7, 0)]);
    let shop = Town::of(&reports).graph(&of("shop"));
    let edge = &shop.edges[0];
    assert_eq!(edge.server.as_ref().map(|one| one.requests), Some(7));
    assert!(edge.server_shared.is_none());
}

#[test]
fn route_of_calls_is_shown_to_the_called_side() {
    let reports = reports();
    let edge = wire::v1::Edge {
        rule: "HTTPRoute shop/api".to_owned(),
        ..seen_by_client("shop/api", 3, 0)
    };
    report(&reports, "bank/web", vec![edge]);
    let town = Town::of(&reports);
    let rules = |namespace: &str| -> Vec<String> {
        let edges = town.graph(&of(namespace)).edges.into_iter();
        edges.map(|edge| edge.rule).collect()
    };
    assert_eq!(rules("shop"), ["HTTPRoute shop/api"]);
    assert_eq!(rules("bank"), [""]);
}
