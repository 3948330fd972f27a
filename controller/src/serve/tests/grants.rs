//! Grants of FaultExperiments on streams.

use std::collections::BTreeSet;

use serde_json::json;
use wire::capability::Capabilities;

use super::*;
use crate::grants::GrantedRun;

const RUN: &str = "shop/slow";

/// A policy stands for the rule: what was sent is known by the name of the resource.
fn with_policy() -> Cluster {
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "retry": {}});
    cluster::shop().with(cluster::traffic_policy("p", spec))
}

fn run(seed: u64) -> GrantedRun {
    let policy = wire::names::policy("shop", "api", 80);
    GrantedRun {
        experiment: RUN.into(),
        seed,
        ends: Instant::now() + Duration::from_secs(60),
        policies: Arc::new(BTreeSet::from([policy])),
    }
}

async fn ready(bench: &Bench, account_name: &str, uid: &str, hello: v1::Hello) -> Proxy {
    let channel = bench
        .mesh_channel(&account("shop", account_name), Some(uid))
        .await;
    let mut proxy = Proxy::open(channel, hello).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    proxy
}

fn hello(destinations: &[&str]) -> v1::Hello {
    v1::Hello {
        capabilities: Capabilities::of_this_version(),
        ..hello_for(destinations)
    }
}

/// Seeds of the runs that the next message grants.
async fn granted(proxy: &mut Proxy) -> Vec<u64> {
    let message = timeout(PATIENCE, proxy.inbox.message()).await;
    match message.unwrap().unwrap().unwrap().message {
        Some(v1::to_proxy::Message::Grants(sent)) => {
            for grant in &sent.grants {
                assert_eq!((&*grant.experiment, grant.holds), (RUN, 3000));
                assert!((1..=60_000).contains(&grant.left), "{}", grant.left);
            }
            sent.grants.iter().map(|grant| grant.seed).collect()
        }
        other => panic!("no grants: {other:?}"),
    }
}

#[tokio::test]
async fn each_setting_reaches_proxies_that_have_the_rule() {
    let bench = Bench::start(&with_policy()).await;
    let mut caller = ready(&bench, "web", "uid-client", hello(&[API])).await;
    let mut other = ready(&bench, "api", "uid-api-1", hello(&[])).await;
    let mut older = hello(&[API]);
    older.capabilities.retain(|name| name != "faults");
    let mut older = ready(&bench, "api", "uid-api-2", older).await;
    // The same again is a renewal.
    for _ in 0..2 {
        bench.grants.set(vec![run(1)]);
        assert_eq!(granted(&mut caller).await, [1]);
    }
    // One that is not named is withdrawn, and nothing follows where nothing is left.
    bench.grants.set(vec![run(2)]);
    assert_eq!(granted(&mut caller).await, [2]);
    bench.grants.withdraw_all();
    assert!(granted(&mut caller).await.is_empty());
    bench.grants.withdraw_all();
    let moment = Duration::from_millis(300);
    for (proxy, case) in [
        (&mut caller, "it knows"),
        (&mut other, "it has no rule"),
        (&mut older, "it is older than grants"),
    ] {
        assert!(proxy.is_silent_for(moment).await, "{case}");
    }
}

#[tokio::test]
async fn proxy_that_connects_during_a_run_gets_its_grant() {
    let bench = Bench::start(&with_policy()).await;
    bench.grants.set(vec![run(1)]);
    let mut caller = ready(&bench, "web", "uid-client", hello(&[API])).await;
    assert_eq!(granted(&mut caller).await, [1]);
}

#[tokio::test]
async fn run_that_is_over_is_not_granted() {
    let bench = Bench::start(&with_policy()).await;
    let mut caller = ready(&bench, "web", "uid-client", hello(&[API])).await;
    let over = GrantedRun {
        ends: Instant::now(),
        ..run(1)
    };
    bench.grants.set(vec![over, run(2)]);
    assert_eq!(granted(&mut caller).await, [2]);
}
