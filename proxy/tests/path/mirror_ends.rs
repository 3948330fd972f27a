//! Mirrored requests that end without a response, and receivers that are sent nothing.
//!
//! Claims: calls-53

use std::time::Duration;

use policy::traffic::EffectivePolicy;
use policy::traffic::call::Timeouts;
use policy::traffic::endpoint::{Breaker, BreakerState};

use super::answers::{App, OK, SILENCE, ask, limited, policy_of, served_by, sum, whole};
use super::deadlines::broken_off;
use super::mirrors::{MIRRORED, Shop, mirror};
use crate::support::{raw, resource, vip};

#[tokio::test]
async fn timed_out_request_is_mirrored_whatever_limit_applied() {
    let shop = Shop::new(OK).await;
    let silent = App::new(shop.server.ip, SILENCE).await;
    served_by(&shop.client, &shop.server, &[&silent]);
    let timed = |timeouts: Timeouts| {
        vec![policy_of(&EffectivePolicy {
            mirror: limited(vec![mirror()].into()),
            timeouts: limited(timeouts),
            ..EffectivePolicy::default()
        })]
    };
    let short = Some(Duration::from_secs(2));
    let request = Timeouts {
        request: short,
        ..Timeouts::DEFAULT
    };
    let idle = Timeouts {
        idle: short,
        ..Timeouts::DEFAULT
    };
    let by_header = "weft-timeout: 2000ms\r\n";
    for (copies, (headers, timeouts)) in
        (1..).zip([(by_header, Timeouts::DEFAULT), ("", request), ("", idle)])
    {
        shop.client.set(timed(timeouts));
        let (status, answer) = ask(&shop.client, "GET", headers, "").await;
        assert_eq!(status, 504, "{answer}");
        shop.until("success", f64::from(copies)).await;
    }
    assert_eq!((silent.request_count(), shop.next.request_count()), (3, 3));
    // A request without any time at its start is neither sent nor copied.
    shop.client.set(timed(Timeouts::DEFAULT));
    let (status, answer) = ask(&shop.client, "GET", "weft-timeout: 0ms\r\n", "").await;
    assert_eq!(status, 504, "{answer}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((silent.request_count(), shop.next.request_count()), (3, 3));
}

#[tokio::test]
async fn a_receiver_whose_breaker_is_open_gets_no_copies() {
    let shop = Shop::new(OK).await;
    let with = |state| {
        let breaker = Breaker {
            state,
            ..Breaker::DEFAULT
        };
        let traffic = EffectivePolicy {
            breaker: whole(breaker),
            ..EffectivePolicy::default()
        };
        let message = wire::convert::policy_message(&traffic);
        vec![resource(
            &wire::names::policy("shop", "next", 80),
            wire::v1::resource::Content::Policy(message),
        )]
    };
    shop.client.set(with(BreakerState::Open));
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("circuit-open", 1.0).await;
    assert_eq!(sum(&shop.client, "weft_breaker_state", &[]), 0.0, "no call");
    shop.client.set(with(BreakerState::Auto));
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 1.0).await;
    assert_eq!(shop.next.request_count(), 1);
}

#[tokio::test]
async fn upgrade_request_is_not_mirrored_whatever_its_response() {
    let shop = Shop::new(OK).await;
    let mut stream = shop.client.call(vip()).await;
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = raw(&mut stream, request, Duration::from_millis(500)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(sum(&shop.client, MIRRORED, &[]), 0.0);
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 1.0).await;
    assert_eq!(
        (shop.api.request_count(), shop.next.request_count()),
        (2, 1)
    );
}

/// Far more than what may be on its way.
#[tokio::test]
async fn mirror_response_is_read_up_to_one_mebibyte() {
    const LENGTH: usize = 16 << 20;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
    let answer = head + &"x".repeat(LENGTH);
    let shop = Shop::new(Box::leak(answer.into_boxed_str())).await;
    assert_eq!(ask(&shop.client, "GET", "", "").await.0, 200);
    shop.until("success", 1.0).await;
    broken_off(&shop.next).await;
}
