//! What replicas tell each other.

use prost::Message as _;

use super::*;
use crate::inventory::kind;
use crate::observe::early::Group;
use crate::observe::exchange::MAX_RECEIVED as LARGEST_MESSAGE;
use crate::observe::reports::Reporter;
use crate::testing::topology;

/// Another replica's, which keeps here what it receives.
fn listener(bench: &Bench, observed: Observed, reports: Reports) -> Listener {
    Listener {
        client: crate::testing::api_server::FakeApi::default().client(),
        namespace: "weft-system".to_owned(),
        service: "weft-controller".to_owned(),
        own: "127.0.0.2".parse().unwrap(),
        observed,
        reports,
        early: EarlyCounts::new(Counter::default()),
        live_queries: LiveQueries::default(),
        fleet: bench.other_fleet(),
        share_registry: ShareRegistry::default(),
        inventory: Arc::default(),
        roots: bench.roots.clone(),
        certificate: bench.certificate.clone(),
        identity: bench.identity.clone(),
        peers: prometheus_client::metrics::gauge::Gauge::default(),
    }
}

#[tokio::test]
async fn replica_receives_observations_and_changes_of_another() {
    let bench = Bench::start(&with_split(10)).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    bench.tally(&canary(), 1).await;

    let other = Observed::default();
    let reports = Reports::new(ReportMetrics::default());
    let listener = listener(&bench, other.clone(), reports);
    let addr = bench.addr;
    let listening = tokio::spawn(async move { listener.listen(addr).await });
    let mut changes = other.changes();
    let deadline = Instant::now() + PATIENCE;
    while bench.tally_of(&other, &canary()).acknowledged != 1 {
        tokio::time::timeout_at(deadline, changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(other.retained("shop", "web"), [API]);
    drop(proxy);
    while other.counts() != (0, 0) {
        tokio::time::timeout_at(deadline, changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
    let tally = bench.tally_of(&other, &canary());
    assert_eq!(
        (tally.acknowledged, tally.needed),
        (1, 1),
        "its pod is there"
    );
    listening.abort();
}

#[tokio::test]
async fn only_a_controller_may_ask_what_was_observed() {
    let bench = Bench::start(&cluster::shop()).await;
    for channel in [
        bench.bootstrap_channel().await,
        bench
            .mesh_channel(&account("shop", "web"), Some("uid-client"))
            .await,
    ] {
        let refused = ReplicaClient::new(channel)
            .observe(v1::ObserveRequest {})
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }
}

#[tokio::test]
async fn report_counts_for_certificate_pod_and_reaches_replicas() {
    let bench = Bench::start(&with_split(10)).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
    proxy.batch().await;
    let interval = interval_of(SystemTime::now());
    let edge = v1::Edge {
        side: v1::Side::Server.into(),
        caller: "uid-of-another".to_owned(),
        success: 7,
        ..v1::Edge::default()
    };
    let report = v1::Report {
        process: 1,
        slot: interval * 5,
        edges: vec![edge],
        ..v1::Report::default()
    };
    // Sent twice, as on two streams: counts once.
    for _ in 0..2 {
        proxy.send_message(Message::Report(report.clone())).await;
    }
    let other = Reports::new(ReportMetrics::default());
    let listener = listener(&bench, Observed::default(), other.clone());
    let addr = bench.addr;
    let listening = tokio::spawn(async move { listener.listen(addr).await });
    let deadline = Instant::now() + PATIENCE;
    for reports in [&bench.reports, &other] {
        loop {
            let mut seen = Vec::new();
            reports.each(interval, interval + 1, |reporter, edge| {
                seen.push((
                    reporter.uid.to_string(),
                    reporter.pod.to_string(),
                    edge.success,
                ));
            });
            if !seen.is_empty() {
                assert_eq!(
                    seen,
                    [("uid-client".to_owned(), "shop/client".to_owned(), 7)]
                );
                break;
            }
            assert!(Instant::now() < deadline, "the report did not arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    listening.abort();
}

fn early_report(number: u64, calls: u64) -> v1::EarlyReport {
    let row = v1::EarlySums {
        port: 8080,
        calls,
        ..v1::EarlySums::default()
    };
    v1::EarlyReport {
        epoch: 1,
        number,
        sums: vec![row],
    }
}

#[tokio::test]
async fn early_reports_reach_replicas_without_own_streams() {
    let bench = Bench::start(&cluster::shop()).await;
    let uid: Arc<str> = "uid-client".into();
    bench.early.take(&uid, early_report(1, 7), Instant::now());
    let other = EarlyCounts::new(Counter::default());
    let listener = Listener {
        early: other.clone(),
        ..listener(
            &bench,
            Observed::default(),
            Reports::new(ReportMetrics::default()),
        )
    };
    let addr = bench.addr;
    let listening = tokio::spawn(async move { listener.listen(addr).await });
    let deadline = Instant::now() + PATIENCE;
    let until = async |calls: u64| {
        let seen = || {
            let pod = other.get(&uid, Instant::now())?;
            Some(pod.of(Group::None, |port| port == 8080).calls)
        };
        while seen() != Some(calls) {
            assert!(Instant::now() < deadline, "{:?} arrived", seen());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(7).await;
    // A proxy sends the next one a second later.
    let later = Instant::now() + Duration::from_secs(1);
    bench.early.take(&uid, early_report(2, 9), later);
    until(9).await;
    listening.abort();
}

#[tokio::test]
async fn early_report_of_unwatched_pod_is_not_received() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[])).await;
    let batch = proxy.batch().await;
    proxy
        .send_message(Message::EarlyReport(early_report(1, 7)))
        .await;
    proxy.ack(&batch).await;
    proxy
        .send_message(Message::Subscribe(v1::Subscribe {
            add: vec![API.to_owned()],
            remove: Vec::new(),
        }))
        .await;
    proxy.batch().await;
    assert!(bench.early.get("uid-client", Instant::now()).is_none());
}

/// Nearly as much as one report may be, unlike that of any other `pod`.
fn large_report(pod: usize, now: SystemTime) -> v1::Report {
    let edge = |edge: usize| {
        let object = |what: char| {
            let namespace = what.to_string().repeat(63);
            format!("{namespace}/{:0>253}", pod * 1000 + edge)
        };
        v1::Edge {
            pod: object('p'),
            identity: object('i'),
            service: object('s'),
            backend: object('b'),
            split: object('t'),
            success: 1,
            ..v1::Edge::default()
        }
    };
    v1::Report {
        process: 1,
        slot: interval_of(now) * 5,
        edges: (0..280).map(edge).collect(),
        ..v1::Report::default()
    }
}

/// In one message it would never arrive, and the exchange would begin anew for ever.
// Claims: B7, attack-84
#[tokio::test]
async fn replica_receives_reports_exceeding_one_message_and_later_ones() {
    const PODS: usize = 160;
    const CALLS: u64 = 280 * PODS as u64;
    let bench = Bench::start(&cluster::shop()).await;
    let take = |pod: usize, report: v1::Report, now: SystemTime| {
        let reporter = Reporter {
            uid: format!("uid-{pod}").into(),
            pod: topology::key("shop", &format!("pod-{pod}")),
            account: None,
        };
        bench.reports.take(&reporter, report, true, now);
    };
    let calls = |reports: &Reports| {
        let mut calls = 0;
        reports.each(0, u64::MAX, |_, edge| calls += edge.success);
        calls
    };
    let mut bytes = 0;
    for pod in 0..PODS {
        let now = SystemTime::now();
        let report = large_report(pod, now);
        bytes += report.encoded_len();
        take(pod, report, now);
    }
    assert!(bytes > LARGEST_MESSAGE, "{bytes} fit into one");
    assert_eq!(calls(&bench.reports), CALLS, "all of it is kept");
    let other = Reports::new(ReportMetrics::default());
    let listener = listener(&bench, Observed::default(), other.clone());
    let addr = bench.addr;
    let listening = tokio::spawn(async move { listener.listen(addr).await });
    for more in 0..2 {
        let deadline = Instant::now() + 12 * PATIENCE;
        while calls(&other) < CALLS + more {
            assert!(Instant::now() < deadline, "heard of {}", calls(&other));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let now = SystemTime::now();
        let mut small = large_report(PODS, now);
        small.edges.truncate(1);
        take(PODS, small, now);
    }
    listening.abort();
}

/// The receiver folds a report as it comes.
#[tokio::test]
async fn terminated_pods_reach_replicas_before_their_reports() {
    let bench = Bench::start(&cluster::shop()).await;
    *bench.inventory.write() = topology::inventory();
    let end = |name: &str| {
        let pod = topology::key("shop", name);
        let mut inventory = bench.inventory.write();
        inventory.end(kind::MetricsKind::Pod, &pod, Instant::now());
    };
    let report = |(uid, name): (&str, &str), edge: v1::Edge| {
        let reporter = Reporter {
            uid: uid.into(),
            pod: topology::key("shop", name),
            account: None,
        };
        let now = SystemTime::now();
        let report = v1::Report {
            process: 1,
            slot: interval_of(now) * 5,
            edges: vec![edge],
            ..v1::Report::default()
        };
        bench.reports.take(&reporter, report, true, now);
    };
    end("web-1");
    let served = topology::seen_by_server("shop/web", 1, 0);
    report(("shop-api", "api-1"), served);
    let channel = bench.mesh_channel(&bench.identity, None).await;
    let stream = ReplicaClient::new(channel)
        .reports(v1::ReportsRequest {})
        .await;
    let mut stream = stream.unwrap().into_inner();
    // Names of pods that have ended, and how many reports came.
    let mut next = async || {
        let news = timeout(PATIENCE, stream.message()).await;
        let news = news.unwrap().unwrap().unwrap();
        let ended = news.ended.into_iter().map(|pod| pod.pod);
        (ended.collect::<Vec<_>>(), news.reports.len())
    };
    assert_eq!(next().await, (vec!["web-1".to_owned()], 0));
    assert_eq!(next().await, (Vec::new(), 1));
    // And later each as it ends.
    end("api-1");
    let called = topology::seen_by_client("shop/api", 1, 0);
    report(("shop-bare", "bare"), called);
    assert_eq!(next().await, (vec!["api-1".to_owned()], 0));
    assert_eq!(next().await, (Vec::new(), 1));
}

#[tokio::test]
async fn proxy_may_not_ask_what_others_reported() {
    let bench = Bench::start(&cluster::shop()).await;
    let web = account("shop", "web");
    let channel = bench.mesh_channel(&web, Some("uid-client")).await;
    let observing = ReplicaClient::new(channel)
        .reports(v1::ReportsRequest {})
        .await;
    assert_eq!(observing.unwrap_err().code(), tonic::Code::PermissionDenied);
}
