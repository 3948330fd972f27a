//! A request whose caller has left causes no retries.
//!
//! Claims: calls-2

use std::time::Duration;

use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Retry, Timeouts};
use policy::traffic::set::Methods;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::{Chain, crash};
use crate::path::answers::{App, LATER, UNAVAILABLE, ask, limited, policy_of, retries, sum};

/// After that a call is under way, or its retry waits.
const MEANWHILE: Duration = Duration::from_millis(150);

/// A call that `api` makes for a request of `web`, whose caller leaves meanwhile or does not: its
/// status, and the requests that were made of it.
async fn made_for_a_request(
    method: &str,
    answers: [&'static str; 2],
    policy: &EffectivePolicy,
    leaves: bool,
) -> (Chain, u16, usize) {
    let chain = Chain::new().await;
    let next = chain.asks(answers).await;
    chain.api.set(vec![policy_of(policy)]);
    let mut caller = chain.web.call(super::vip()).await;
    let head = b"GET / HTTP/1.1\r\nHost: h\r\nweft-timeout: 60000ms\r\n\r\n";
    caller.write_all(head).await.unwrap();
    let request = chain.request().await;
    let context = request.context();
    let leaving = async {
        sleep(MEANWHILE).await;
        if leaves {
            crash(caller);
            None
        } else {
            Some(caller)
        }
    };
    let ((status, _), _caller) = tokio::join!(ask(&chain.api, method, &context, ""), leaving);
    let made = next.iter().map(App::request_count).sum();
    (chain, status, made)
}

#[tokio::test]
async fn unawaited_write_is_not_cancelled_for_impossible_retry() {
    let policy = EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_secs(30)),
            backend_request: Some(Duration::from_millis(600)),
            ..Timeouts::DEFAULT
        }),
        retry: limited(Retry {
            methods: Methods::Any,
            ..Retry::DEFAULT
        }),
        ..EffectivePolicy::default()
    };
    let (chain, status, made) = made_for_a_request("POST", [LATER, LATER], &policy, true).await;
    let tried = sum(&chain.api, "weft_retries_total", &[]);
    assert_eq!((status, made, tried), (200, 1, 0.0));
    // Control: the caller waits.
    let (chain, status, made) = made_for_a_request("POST", [LATER, LATER], &policy, false).await;
    assert_eq!(
        (status, made, retries(&chain.api, "success")),
        (200, 2, 1.0)
    );
}

#[tokio::test]
async fn retry_abandoned_during_backoff_counts_as_no_failure() {
    let policy = EffectivePolicy {
        retry: limited(Retry {
            backoff: Duration::from_millis(800),
            ..Retry::DEFAULT
        }),
        ..EffectivePolicy::default()
    };
    let answers = [UNAVAILABLE, UNAVAILABLE];
    let (chain, status, made) = made_for_a_request("GET", answers, &policy, true).await;
    let tried = sum(&chain.api, "weft_retries_total", &[]);
    assert_eq!((status, made, tried), (504, 1, 0.0));
    // Control: the caller waits.
    let (chain, status, made) = made_for_a_request("GET", answers, &policy, false).await;
    assert_eq!(
        (status, made, retries(&chain.api, "failure")),
        (503, 2, 1.0)
    );
}
