//! What proxies say of themselves.
//!
//! Claims: observe-104

use model::PodId;

use super::*;
use crate::observe::reports::INTERVAL;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn proxy_self_reported_status_accompanies_acknowledgements() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    let status = v1::ProxyStatus {
        memory: 9 << 20,
        draining: true,
        ..v1::ProxyStatus::default()
    };
    proxy.send_message(Message::Status(status.clone())).await;
    let deadline = Instant::now() + PATIENCE;
    let reported = loop {
        let proxies = bench.observed.proxy(&PodId::new("shop", "client"));
        let proxies = proxies.filter(|(_, state)| state.status.is_some());
        if let Some((connected, state)) = proxies {
            assert!(connected);
            break state;
        }
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(reported.status, Some(status));
    assert_eq!(reported.version, "test");
    assert!(
        reported.clock_ahead < -1_000_000_000,
        "its clock stood at 1970"
    );
    // One that names nothing is older than the names.
    let lacks = |name: &str| reported.lacks.iter().any(|lacked| lacked == name);
    assert!(
        lacks("telemetry") && !lacks("extended-rule"),
        "{reported:?}"
    );
    // Nothing else changes for it.
    bench.publish(&with_split(10));
    assert_eq!(weight(&proxy.batch().await, 0), 10);
}

#[tokio::test]
async fn calls_from_wrong_clocks_keep_their_actual_time() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[])).await;
    proxy.batch().await;
    let now = SystemTime::now();
    let slots_ahead = || {
        let proxies = bench.observed.proxy(&PodId::new("shop", "client"));
        proxies.map(|(_, state)| state.slots_ahead)
    };
    // An hour is more than is kept, and ahead of all that is.
    for (process, intervals) in [(1, 720), (2, -720), (3, 0)] {
        let clock = |time: SystemTime| match intervals {
            720 => time + HOUR,
            -720 => time - HOUR,
            _ => time,
        };
        let deadline = Instant::now() + PATIENCE;
        // One that looks late must do so for a while.
        while slots_ahead() != Some(intervals) {
            assert!(Instant::now() < deadline, "{intervals} slots");
            let theirs = clock(SystemTime::now());
            let since = theirs.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let status = v1::ProxyStatus {
                now: u64::try_from(since.as_millis()).unwrap(),
                ..v1::ProxyStatus::default()
            };
            proxy.send_message(Message::Status(status)).await;
            sleep(Duration::from_millis(20)).await;
        }
        let report = v1::Report {
            process,
            slot: interval_of(clock(now)) * INTERVAL,
            edges: vec![v1::Edge {
                success: 1,
                ..v1::Edge::default()
            }],
            ..v1::Report::default()
        };
        proxy.send_message(Message::Report(report)).await;
    }
    let calls = || {
        let (mut calls, right) = (0, interval_of(now));
        bench
            .reports
            .each(right, right + 1, |_, edge| calls += edge.success);
        calls
    };
    let deadline = Instant::now() + PATIENCE;
    while calls() < 3 {
        assert!(Instant::now() < deadline, "{} calls", calls());
        sleep(Duration::from_millis(5)).await;
    }
}
