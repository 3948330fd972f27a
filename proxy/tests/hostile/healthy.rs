//! The control after an attack: an ordinary request is answered soon.

use std::time::{Duration, Instant};

use super::raw_http2::{Outcome, RawHttp2, get};
use super::two_pods::{EntryPoint, TwoPods};

/// After every attack an ordinary request is answered within this time.
const HEALTHY_WITHIN: Duration = Duration::from_secs(1);
/// One of these tries succeeds: a machine that stalls for a moment delays one or two, a proxy that
/// the attack has hurt delays all.
const TRIES: usize = 3;
/// The others are answered too, within this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends requests until a response came soon, and returns their number. `ask` asserts the response.
pub(crate) async fn answers_soon(case: &str, ask: impl AsyncFn()) -> usize {
    let mut took = Vec::new();
    while took.len() < TRIES {
        let started = Instant::now();
        ask().await;
        took.push(started.elapsed());
        if started.elapsed() < HEALTHY_WITHIN {
            return took.len();
        }
    }
    panic!("after {case}: {took:?}");
}

/// A new HTTP/2 caller is served. Returns the number of requests.
pub(crate) async fn works_by_http2(case: &str, pods: &TwoPods, entry: EntryPoint) -> usize {
    let case = format!("{case}, {entry:?}");
    answers_soon(&case, async || {
        let mut other = RawHttp2::new(pods.open(entry).await).await;
        other.request(1, true, &get("/ok")).await;
        let seen = other.outcome(1, PATIENCE).await;
        assert_eq!(seen, Outcome::Status(200), "after {case}");
    })
    .await
}
