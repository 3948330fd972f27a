//! What proxies say of themselves.

use super::*;
use crate::model::PodId;

#[tokio::test]
async fn what_a_proxy_says_of_itself_stands_beside_what_it_acknowledged() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(asks(&[API])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    let status = v1::ProxyStatus {
        memory: 9 << 20,
        draining: true,
        ..v1::ProxyStatus::default()
    };
    proxy.say(Message::Status(status.clone())).await;
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let held = bench.observed.proxy(&PodId::new("shop", "client"));
        let held = held.filter(|(_, state)| state.status.is_some());
        if let Some((connected, state)) = held {
            assert!(connected);
            break state;
        }
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(told.status, Some(status));
    assert_eq!(told.version, "test");
    assert!(told.clock_ahead < -1_000_000_000, "its clock stood at 1970");
    // One that names nothing is older than the names.
    let lacks = |name: &str| told.lacks.iter().any(|lacked| lacked == name);
    assert!(lacks("telemetry") && !lacks("extended-rule"), "{told:?}");
    // Nothing else changes for it.
    bench.publish(&with_split(10));
    assert_eq!(weight(&proxy.batch().await, 0), 10);
}
