//! The two sets of a Service's endpoints during a release: they are backends of the Service, with
//! its policies and each a breaker of its own.

use std::time::{Duration, Instant};

use policy::name::ServiceId;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Downstream, Mirror};
use policy::traffic::endpoint::Breaker;
use policy::traffic::set::Percent;
use tokio::time::sleep;
use wire::v1::Protocol;

use super::answers::{App, OK, UNAVAILABLE, ask, limited, policy_of, sum, whole};
use super::mirrors::{MIRRORED, Shop, echoed, mirror, restrict_to_read_only};
use crate::support::{Pod, endpoint, endpoints, pair, service, split, vip};

const STABLE: &str = "api@stable";
const CANDIDATE: &str = "api@candidate";
const STATE: &str = "weft_breaker_state";
const OPEN: &str = "weft-reason: circuit-open";

/// Opens when all of ten calls have failed.
fn breaker() -> EffectivePolicy {
    EffectivePolicy {
        breaker: whole(Breaker {
            failure_percent: Percent::at_most(100),
            min_requests: 10,
            open_time: Duration::from_secs(60),
            ..Breaker::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

/// Calls to `api` go to both sets alike, of which the candidate fails.
async fn sets() -> (Pod, Pod, [App; 2]) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [OK, UNAVAILABLE].map(|answer| App::new(server.ip, answer));
    let [stable, candidate] = apps;
    let apps = [stable.await, candidate.await];
    for (name, app) in [STABLE, CANDIDATE].into_iter().zip(&apps) {
        let there = endpoint(server.ip, app.port, Some("api"));
        client.set(vec![endpoints(name, vec![there])]);
    }
    share(&client, [1, 1]);
    (client, server, apps)
}

fn share(client: &Pod, [stable, candidate]: [u32; 2]) {
    let both = vec![split("rel", &[(STABLE, stable), (CANDIDATE, candidate)])];
    client.set(service("api", vip().ip(), Protocol::Http1, both));
}

/// How often the breaker refused, of so many calls.
async fn refused(client: &Pod, calls: usize) -> usize {
    let mut refused = 0;
    for _ in 0..calls {
        let (_, answer) = ask(client, "POST", "", "{}").await;
        refused += usize::from(answer.contains(OPEN));
    }
    refused
}

#[tokio::test]
async fn release_sets_share_policy_and_have_breakers_apart() {
    let (client, _server, [stable, candidate]) = sets().await;
    client.set(vec![policy_of(&breaker())]);
    let refused = refused(&client, 100).await;
    assert_eq!(candidate.request_count(), 10);
    assert_eq!(stable.request_count() + refused, 90);
    assert!(refused > 5, "a share stays a share");
    for (set, state) in [(STABLE, 0.0), (CANDIDATE, 2.0)] {
        let backend = format!("backend=\"shop/{set}\"");
        let labels = ["service=\"shop/api\"", &backend];
        assert_eq!(sum(&client, STATE, &labels), state, "{set}");
    }
}

#[tokio::test]
async fn copies_for_candidate_stop_at_its_breaker() {
    let (client, _server, [_, candidate]) = sets().await;
    let copies = Mirror {
        service: ServiceId::new("shop", CANDIDATE),
        downstream: Downstream::Any,
        ..mirror()
    };
    client.set(vec![policy_of(&EffectivePolicy {
        mirror: limited(vec![copies].into()),
        ..breaker()
    })]);
    // Not copied: these change something.
    assert!(refused(&client, 100).await > 5);
    share(&client, [1, 0]);
    let before = candidate.request_count();
    assert_eq!(ask(&client, "GET", "", "").await.0, 200);
    let labels = ["mirror=\"shop/api@candidate\"", "outcome=\"circuit-open\""];
    let started = Instant::now();
    while sum(&client, MIRRORED, &labels) < 1.0 {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{}",
            client.metrics()
        );
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(candidate.request_count(), before);
}

#[tokio::test]
async fn read_only_pods_bytes_go_to_allowed_services_sets() {
    let shop = Shop::new(OK).await;
    let pod = &shop.shadow;
    let echo = super::tcp::echo(&shop.server, "").await;
    let there = endpoint(shop.server.ip, echo, Some("api"));
    let led = vec![split("rel", &[(STABLE, 1)])];
    pod.set(service("api", vip().ip(), Protocol::Opaque, led));
    pod.set(vec![endpoints(STABLE, vec![there])]);
    restrict_to_read_only(pod, &[("other", 80)]);
    assert_eq!(echoed(pod, vip()).await, "");
    restrict_to_read_only(pod, &[("api", 80)]);
    assert_eq!(echoed(pod, vip()).await, "\0binary");
}
