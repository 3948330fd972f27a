//! Early reports of the pods that are called, beside their reports.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use wire::v1;
use wire::v1::early_sums::Group;

use super::answers::{OK, ask, sum};
use super::counts::reported_edges;
use super::mirrors::Shop;
use crate::support::{Pod, id, resource};

/// Sends the workload of the pod, as of account `api`.
fn watch(pod: &Pod, early_reports: bool) {
    let workload = v1::Workload {
        identity: id("api").as_str().to_owned(),
        enforcement: v1::Enforcement::Open as i32,
        mtls: v1::MtlsMode::Permissive as i32,
        early_reports,
        ..v1::Workload::default()
    };
    pod.set(vec![resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )]);
}

/// Calls that have ended, of no group and copies.
fn calls(pod: &Pod) -> (u64, u64) {
    let report = pod.proxy.telemetry.early.look(Instant::now()).unwrap();
    let of = |group: Group| {
        let rows = report.sums.iter().filter(|row| row.group() == group);
        rows.map(|row| row.calls).sum()
    };
    (of(Group::None), of(Group::Copies))
}

/// Waits until it has counted so many.
async fn until(pod: &Pod, expected: (u64, u64)) {
    let started = Instant::now();
    while calls(pod) != expected {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{:?}",
            calls(pod)
        );
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn early_reports_sum_calls_and_copies_apart_while_wanted() {
    let shop = Shop::new(OK).await;
    let early = |pod: &Pod| pod.proxy.telemetry.early.look(Instant::now());
    // What comes before is in no epoch.
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 1.0).await;
    for pod in [&shop.server, &shop.shadow] {
        while sum(pod, "weft_requests_total", &["direction=\"inbound\""]) < 1.0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    for pod in [&shop.server, &shop.shadow] {
        assert_eq!(early(pod), None);
        watch(pod, true);
        assert_eq!(calls(pod), (0, 0));
    }
    for _ in 0..3 {
        assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    }
    shop.until("success", 4.0).await;
    until(&shop.server, (3, 0)).await;
    until(&shop.shadow, (0, 3)).await;
    let epoch = |pod: &Pod| early(pod).map(|report| report.epoch);
    let before = epoch(&shop.server);
    for wanted in [false, true] {
        watch(&shop.server, wanted);
    }
    assert_ne!(epoch(&shop.server), before);
    assert_eq!(calls(&shop.server), (0, 0));
    // Reports have all of them, and tell no groups apart.
    for pod in [&shop.server, &shop.shadow] {
        let edges = reported_edges(pod).await;
        let served = edges.iter().filter(|edge| edge.side() == v1::Side::Server);
        assert_eq!(served.map(|edge| edge.success).sum::<u64>(), 4, "{edges:?}");
    }
}
