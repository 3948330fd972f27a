//! Proxies that are older than what they should be sent.

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
async fn proxy_that_is_too_old_for_a_rule_is_not_sent_it_and_the_target_knows() {
    let bench = Bench::start(&limited()).await;
    let mut proxy = bench
        .client(v1::Hello {
            capabilities: vec!["something-else".to_owned()],
            ..asks(&[API])
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
    let mut proxy = bench.client(asks(&[API])).await;
    let batch = proxy.batch().await;
    assert!(names(&batch).contains(&"extended-rule/shop/limited"));
    proxy.ack(&batch).await;
    bench.tally(&target(), 1).await;
    assert!(bench.tally_now(&target()).too_old.is_empty());
}

#[tokio::test]
async fn policy_is_sent_to_proxies_that_name_the_capability_and_to_no_other() {
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "retry": {"attempts": 2}});
    let cluster = cluster::shop().with(cluster::traffic_policy("p", spec));
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let bench = Bench::start(&cluster).await;
    // As a proxy of this version says hello.
    let mut proxy = bench
        .client(v1::Hello {
            capabilities: wire::capability::Capabilities::of_this_version(),
            ..asks(&[API])
        })
        .await;
    let batch = proxy.batch().await;
    let sent = names(&batch);
    assert!(sent.contains(&"service/shop/api:80"), "{sent:?}");
    assert!(
        !sent.iter().any(|name| name.starts_with("policy/")),
        "{sent:?}"
    );
    proxy.ack(&batch).await;
    let deadline = Instant::now() + PATIENCE;
    while bench.tally_now(&policy).too_old != ["shop/client"] {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }

    let mut proxy = bench
        .client(v1::Hello {
            capabilities: vec!["traffic-policy".to_owned()],
            ..asks(&[API])
        })
        .await;
    let batch = proxy.batch().await;
    assert!(
        names(&batch).contains(&"policy/shop/api:80"),
        "{:?}",
        names(&batch)
    );
    proxy.ack(&batch).await;
    bench.tally(&policy, 1).await;
}
