//! What releases and FaultExperiments have on the stream: early reports, as the workload wants them,
//! and grants.

use super::*;

const RUN: &str = "shop/slow";

async fn send_workload(bench: &Bench, early_reports: bool) {
    let own = v1::Workload {
        identity: id("shop", "web").as_str().to_owned(),
        early_reports,
        ..v1::Workload::default()
    };
    let own = wire::version::stamp(v1::Resource {
        name: wire::names::WORKLOAD.to_owned(),
        version: String::new(),
        content: Some(v1::resource::Content::Workload(own)),
    });
    let batch = v1::Batch {
        id: 1,
        set: vec![own],
        ..v1::Batch::default()
    };
    bench
        .send_message(v1::to_proxy::Message::Batch(batch))
        .await;
}

fn epochs(bench: &Bench) -> Vec<u64> {
    let messages = bench.stand_in.messages.lock();
    let epoch = |message: &v1::FromProxy| match &message.message {
        Some(v1::from_proxy::Message::EarlyReport(report)) => Some(report.epoch),
        _ => None,
    };
    messages.iter().filter_map(epoch).collect()
}

#[tokio::test]
async fn every_stream_begins_with_an_early_report_while_wanted() {
    let bench = Bench::start(&Ca::new()).await;
    send_workload(&bench, false).await;
    bench
        .until(|bench| bench.control.config.is_configured())
        .await;
    assert!(!bench.control.config.telemetry.early.is_wanted());
    send_workload(&bench, true).await;
    bench.until(|bench| epochs(bench).len() == 1).await;
    // Another controller has none yet, and the sums go on.
    let streams = bench.streams();
    bench.connections.lock().abort_all();
    bench.until(|bench| bench.streams() > streams).await;
    bench.until(|bench| epochs(bench).len() == 2).await;
    let epochs = epochs(&bench);
    assert_eq!(epochs[0], epochs[1]);
    send_workload(&bench, false).await;
    bench
        .until(|bench| !bench.control.config.telemetry.early.is_wanted())
        .await;
}

async fn send_grant(bench: &Bench, seed: u64) {
    let grant = v1::Grant {
        experiment: RUN.to_owned(),
        seed,
        holds: 3000,
        left: 60_000,
    };
    let grants = v1::Grants {
        grants: vec![grant],
    };
    bench
        .send_message(v1::to_proxy::Message::Grants(grants))
        .await;
}

fn is_granted(bench: &Bench, seed: u64) -> bool {
    bench.control.config.grants.until(RUN, seed).is_some()
}

#[tokio::test]
async fn grants_on_the_stream_replace_those_before() {
    let bench = Bench::start(&Ca::new()).await;
    assert!(!is_granted(&bench, 1));
    send_grant(&bench, 1).await;
    bench.until(|bench| is_granted(bench, 1)).await;
    send_grant(&bench, 2).await;
    bench.until(|bench| is_granted(bench, 2)).await;
    assert!(!is_granted(&bench, 1));
}
