//! Proxies that are older than what they should be sent.
//!
//! Claims: calls-36

use policy::name::Kind;
use serde_json::json;

use super::*;
use crate::testing::cluster::{self, Cluster};

/// The client's pod is protected by a target that needs what not every proxy knows.
fn limited() -> Cluster {
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let target = cluster::target("limited", "web", &["api"], rules);
    cluster::shop()
        .with(cluster::tcp_route("ports", &[8080]))
        .with(cluster::set(target, "/spec/destination/port", json!(8080)))
}

fn target() -> ObjectRef {
    ObjectRef::new(Kind::TrafficTarget, "shop", "limited")
}

#[tokio::test]
async fn unsupported_rule_is_withheld_and_reported_on_target() {
    let bench = Bench::start(&limited()).await;
    let mut proxy = bench
        .client(v1::Hello {
            capabilities: vec!["something-else".to_owned()],
            ..hello_for(&[API])
        })
        .await;
    let batch = proxy.batch().await;
    let sent = names(&batch);
    assert!(sent.contains(&"workload") && sent.contains(&"service/shop/api:80"));
    assert!(!sent.contains(&"extended-rule/shop/limited"), "{sent:?}");
    proxy.ack(&batch).await;
    let deadline = Instant::now() + PATIENCE;
    while bench.tally_now(&target()).too_old != ["shop/client"] {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.tally_now(&target()).acknowledged, 0);

    // The pod's proxy is renewed; one that says nothing has what the first ones had.
    let mut proxy = bench.client(hello_for(&[API])).await;
    let batch = proxy.batch().await;
    assert!(names(&batch).contains(&"extended-rule/shop/limited"));
    proxy.ack(&batch).await;
    bench.tally(&target(), 1).await;
    assert!(bench.tally_now(&target()).too_old.is_empty());
}

/// What callers of `api` are sent of policies about it.
const POLICY: &str = "policy/shop/api:80";

async fn with_policy(spec: serde_json::Value) -> (Bench, ObjectRef) {
    let cluster = cluster::shop().with(cluster::traffic_policy("p", spec));
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    (Bench::start(&cluster).await, policy)
}

/// As a proxy of this version says hello.
fn of_this_version() -> v1::Hello {
    v1::Hello {
        capabilities: wire::capability::Capabilities::of_this_version(),
        ..hello_for(&[API])
    }
}

#[tokio::test]
async fn policy_is_sent_only_to_proxies_supporting_it() {
    let (bench, policy) = with_policy(
        json!({"targetRef": {"kind": "Service", "name": "api"}, "retry": {"attempts": 2}}),
    )
    .await;
    let mut proxy = bench
        .client(v1::Hello {
            capabilities: vec!["extended-rule".to_owned()],
            ..hello_for(&[API])
        })
        .await;
    let batch = proxy.batch().await;
    let sent = names(&batch);
    assert!(sent.contains(&"service/shop/api:80"), "{sent:?}");
    assert!(!sent.contains(&POLICY), "{sent:?}");
    proxy.ack(&batch).await;
    let deadline = Instant::now() + PATIENCE;
    while bench.tally_now(&policy).too_old != ["shop/client"] {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
    assert!(bench.tally_now(&policy).lacks.contains("retry"));

    let mut proxy = bench.client(of_this_version()).await;
    let batch = proxy.batch().await;
    assert!(names(&batch).contains(&POLICY), "{:?}", names(&batch));
    proxy.ack(&batch).await;
    bench.tally(&policy, 1).await;
    assert!(bench.tally_now(&policy).too_old.is_empty());
}

#[tokio::test]
async fn proxy_gets_whole_policy_and_status_names_unsupported_parts() {
    let (bench, policy) = with_policy(json!({
        "targetRef": {"kind": "Service", "name": "api"},
        "retry": {"attempts": 2}, "overrides": [{"to": ["api"]}], "balance": {"warmup": "3s", "subset": -1},
    }))
    .await;
    let mut hello = of_this_version();
    let lacks = ["traffic-policy/overrides", "traffic-policy/subset"];
    hello.capabilities.retain(|one| !lacks.contains(&&**one));
    let mut proxy = bench.client(hello).await;
    let batch = proxy.batch().await;
    let resources = batch.set.iter();
    let sent = resources.filter(|resource| resource.name == POLICY);
    let sent: Vec<&v1::Resource> = sent.collect();
    let [resource] = sent[..] else {
        panic!("{:?}", names(&batch))
    };
    let Some(v1::resource::Content::Policy(message)) = &resource.content else {
        panic!("{resource:?}")
    };
    let converted = wire::convert::traffic(message).unwrap();
    assert_eq!(converted.retry.rules.len(), 1);
    // What the proxy does not know it ignores.
    assert_eq!(converted.overrides.rules.len(), 1, "{converted:?}");
    let balance = converted.balance.rules[0].then.unwrap();
    assert_eq!(balance.warmup, Duration::from_secs(3));
    proxy.ack(&batch).await;
    let deadline = Instant::now() + PATIENCE;
    while bench.tally_now(&policy).lacks.len() < 2 {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
    let lacks: Vec<String> = bench.tally_now(&policy).lacks.into_iter().collect();
    assert_eq!(lacks, ["balance.subset", "overrides"]);
}
