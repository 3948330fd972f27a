//! Targets to which a pod that gets copies may open opaque connections.
//!
//! Claims: calls-53

use policy::traffic::call::Causes;
use wire::v1::Protocol;

use super::answers::{OK, policy_of};
use super::fallbacks::{fallback, to_spare};
use super::mirrors::{Shop, echoed, restrict_to_read_only};
use crate::support::{endpoint, endpoints, service, split, vip};

#[tokio::test]
async fn read_only_pod_sends_bytes_only_where_mirrors_allow() {
    for protocol in [Protocol::Opaque, Protocol::Detect] {
        let shop = Shop::new(OK).await;
        let pod = &shop.shadow;
        let echo = super::tcp::echo(&shop.server, "").await;
        pod.set(service("api", vip().ip(), protocol, Vec::new()));
        pod.reaches(&shop.server, echo);
        assert_eq!(echoed(pod, vip()).await, "", "{protocol:?}");
        restrict_to_read_only(pod, &[("api", 81), ("other", 80)]);
        assert_eq!(echoed(pod, vip()).await, "", "{protocol:?}");
        restrict_to_read_only(pod, &[("api", 80)]);
        assert_eq!(echoed(pod, vip()).await, "\0binary", "{protocol:?}");
    }
}

/// Neither a split nor a fallback leads such a pod to what no mirror lets it open.
#[tokio::test]
async fn read_only_pods_bytes_are_not_redirected() {
    let shop = Shop::new(OK).await;
    let pod = &shop.shadow;
    let echo = super::tcp::echo(&shop.server, "").await;
    let spare = endpoint(shop.server.ip, echo, Some("api"));
    let called = |splits| service("api", vip().ip(), Protocol::Opaque, splits);
    pod.set(called(Vec::new()));
    pod.set(vec![
        endpoints("api", Vec::new()),
        endpoints("spare", vec![spare.clone()]),
    ]);
    pod.set(vec![policy_of(&fallback(to_spare(), Causes::ALL))]);
    restrict_to_read_only(pod, &[("api", 80)]);
    assert_eq!(echoed(pod, vip()).await, "", "by a fallback");
    restrict_to_read_only(pod, &[("api", 80), ("spare", 80)]);
    assert_eq!(echoed(pod, vip()).await, "\0binary", "by a fallback");

    pod.set(called(vec![split("canary", &[("spare", 1)])]));
    restrict_to_read_only(pod, &[("api", 80)]);
    assert_eq!(echoed(pod, vip()).await, "", "by a split");
    restrict_to_read_only(pod, &[("api", 80), ("spare", 80)]);
    assert_eq!(echoed(pod, vip()).await, "\0binary", "by a split");
    // One without a backend leads nowhere, and the fallback is open to it.
    pod.set(called(vec![split("canary", &[("spare", 0)])]));
    assert_eq!(echoed(pod, vip()).await, "\0binary", "by no backend");
}
