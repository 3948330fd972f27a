//! Calls for which a fallback Service is configured.
//!
//! Claims: calls-46

use policy::traffic::call::{Cause, Causes, Fallback};

use super::*;
use crate::path::fallbacks::to_spare;
use crate::path::limits::{guard, limit, rule};

#[tokio::test]
async fn downstream_retry_still_blocks_upstream_when_fallback_refuses() {
    let chain = Chain::new().await;
    let spare = App::new(chain.next.ip, OK).await;
    let one = vec![rule(limit("one", 1))];
    chain.next.set(vec![guard(spare.port, one)]);
    served_by(&chain.api, &chain.next, &[&spare]);
    assert_eq!(ask(&chain.api, "GET", "", "").await.0, 200, "the only one");
    let next = chain.asks([UNAVAILABLE, UNAVAILABLE]).await;
    let there = endpoint(chain.next.ip, spare.port, Some("api"));
    chain.api.set(vec![endpoints("spare", vec![there])]);
    let fallback = Fallback {
        to: to_spare(),
        on: Causes::of(&[Cause::ServerError]),
    };
    chain.api.set(vec![policy_of(&EffectivePolicy {
        fallback: limited(std::sync::Arc::new(fallback)),
        ..EffectivePolicy::default()
    })]);
    let call = chain.called("GET", PARENT).await;
    let request = chain.request().await;
    let (status, answer) = ask(&chain.api, "GET", PARENT, "").await;
    assert_eq!(status, 503, "as without a fallback: {answer}");
    assert_eq!(next.iter().map(App::request_count).sum::<usize>(), 2);
    let failure = ["outcome=\"failure\""];
    assert_eq!(sum(&chain.api, "weft_fallbacks_total", &failure), 1.0);
    assert_eq!(spare.request_count(), 1, "its limit refused the other one");
    request.answer(UNAVAILABLE).await;
    assert!(chain.is_quiet().await);
    assert_eq!(call.await.unwrap().0, 503);
    assert_eq!(retries(&chain.web, "spent"), 1.0, "{}", chain.web.metrics());
}
