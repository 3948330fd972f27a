//! Grants of FaultExperiments as they come on the stream.

use super::*;

const RUN: &str = "shop/slow";

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
