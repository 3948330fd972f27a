//! A small topology for tests: the owners of pods, and the calls between them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::world::ObjectKey;
use wire::v1;

use crate::inventory::kind::MetricsKind;
use crate::inventory::{Inventory, InventoryObject, Labels};
use crate::metrics::ReportMetrics;
use crate::observe::reports::{INTERVAL, Reporter, Reports};

/// The interval that everything happens in, and the time at which it may be queried.
pub(crate) const INTERVAL_NOW: u64 = 1000;

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs((INTERVAL_NOW + 2) * INTERVAL)
}

pub(crate) fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

/// Deployments `web` and `api` in `shop`, and another `web` in `bank`; each has one pod `<name>-1`
/// with uid `<namespace>-<name>`, on node `n1`, through a ReplicaSet `<name>-rs`. Services of the
/// same names. Pod `shop/bare` has no owner.
pub(crate) fn inventory() -> Inventory {
    let mut inventory = Inventory::default();
    let mut put =
        |kind, namespace: &str, name: &str, uid: &str, owner: Option<(MetricsKind, String)>| {
            let labels: Labels =
                [("app".to_owned(), name.trim_end_matches("-1").to_owned())].into();
            let thing = InventoryObject {
                uid: uid.into(),
                labels,
                owner: owner.map(|(kind, name)| (kind, name.into())),
                node: if kind == MetricsKind::Pod { "n1" } else { "" }.into(),
            };
            inventory.put(kind, key(namespace, name), Arc::new(thing));
        };
    for namespace in ["shop", "bank", "empty"] {
        put(MetricsKind::Namespace, "", namespace, namespace, None);
    }
    for node in ["n1", "n2"] {
        put(MetricsKind::Node, "", node, node, None);
    }
    for (namespace, name) in [("shop", "web"), ("shop", "api"), ("bank", "web")] {
        let (set, pod) = (format!("{name}-rs"), format!("{name}-1"));
        put(MetricsKind::Deployment, namespace, name, "", None);
        put(MetricsKind::Service, namespace, name, "", None);
        let owner = Some((MetricsKind::Deployment, name.to_owned()));
        put(MetricsKind::ReplicaSet, namespace, &set, "", owner);
        let uid = format!("{namespace}-{name}");
        put(
            MetricsKind::Pod,
            namespace,
            &pod,
            &uid,
            Some((MetricsKind::ReplicaSet, set)),
        );
    }
    put(MetricsKind::Pod, "shop", "bare", "shop-bare", None);
    inventory
}

pub(crate) fn reports() -> Reports {
    Reports::new(ReportMetrics::default())
}

/// `client` calls `server` (both `namespace/name` of a Deployment above), and both
/// proxies tell of it.
pub(crate) fn call(reports: &Reports, client: &str, server: &str, good: u64, bad: u64) {
    report(reports, client, vec![seen_by_client(server, good, bad)]);
    report(reports, server, vec![seen_by_server(client, good, bad)]);
}

pub(crate) fn seen_by_client(server: &str, good: u64, bad: u64) -> v1::Edge {
    v1::Edge {
        side: v1::Side::Client.into(),
        pod: format!("{server}-1"),
        service: server.to_owned(),
        backend: server.to_owned(),
        port: 80,
        // All in the bucket from 8.8 ms to 14 ms.
        latency: [[0; 7].as_slice(), &[u32::try_from(good + bad).unwrap()]].concat(),
        success: good,
        failure: bad,
        ..v1::Edge::default()
    }
}

pub(crate) fn seen_by_server(client: &str, good: u64, bad: u64) -> v1::Edge {
    v1::Edge {
        side: v1::Side::Server.into(),
        caller: client.replace('/', "-"),
        identity: client.to_owned(),
        service: String::new(),
        backend: String::new(),
        pod: String::new(),
        port: 8080,
        ..seen_by_client("", good, bad)
    }
}

/// One process per report, so that several of one pod and interval add up.
pub(crate) fn report(reports: &Reports, pod: &str, edges: Vec<v1::Edge>) {
    report_in(reports, INTERVAL_NOW, pod, edges);
}

/// The same of another interval.
pub(crate) fn report_in(reports: &Reports, interval: u64, pod: &str, edges: Vec<v1::Edge>) {
    static PROCESS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let process = PROCESS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    report_at(reports, now(), (interval, process), (pod, edges));
}

/// The same of a process that may tell of an interval again, at this time. No other one is 0.
pub(crate) fn report_at(
    reports: &Reports,
    at: SystemTime,
    (interval, process): (u64, u64),
    (pod, edges): (&str, Vec<v1::Edge>),
) {
    let (namespace, name) = pod.split_once('/').unwrap();
    let reporter = Reporter {
        uid: format!("{namespace}-{name}").into(),
        pod: key(namespace, &format!("{name}-1")),
        account: None,
    };
    let report = v1::Report {
        process,
        slot: interval * INTERVAL,
        edges,
        ..v1::Report::default()
    };
    reports.take(&reporter, report, true, at);
}
