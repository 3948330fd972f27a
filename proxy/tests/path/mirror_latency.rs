//! Latency of mirrored requests: their callers notice nothing of the copies.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::answers::{App, LATER, SILENCE, ask, served_by};
use super::mirrors::{Shop, mirror};
use crate::support::Pod;

/// Rounds with copies and rounds without, in turns, so that whatever else the machine does
/// comes to both.
const ROUNDS: u32 = 7;
const REQUESTS: u32 = 12;
/// Between two requests of a round, which else would wait for each other's work.
const APART: Duration = Duration::from_millis(15);
/// Copies that a proxy has under way at most: those beyond are not made.
const IN_FLIGHT: u32 = 64;
/// How much longer calls may take beside copies: of answers after a second, 50 ms, which is more
/// than a busy machine adds to the one half of the rounds alone.
const UNNOTICED: f64 = 1.05;

/// What the slowest of a round took, which is its 99th percentile.
async fn slowest(client: &Pod) -> Duration {
    let calls = (0..REQUESTS).map(|nth| async move {
        tokio::time::sleep(APART * nth).await;
        let started = Instant::now();
        let (status, answer) = ask(client, "GET", "", "").await;
        assert_eq!(status, 200, "{answer}");
        started.elapsed()
    });
    join_all(calls).await.into_iter().max().unwrap()
}

// Claims: calls-54
#[tokio::test]
async fn hanging_mirrors_slow_slowest_call_under_five_percent() {
    let shop = Shop::new(SILENCE).await;
    let api = App::new(shop.server.ip, LATER).await;
    served_by(&shop.client, &shop.server, &[&api]);
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        shop.mirrors(Vec::new());
        let calm = slowest(&shop.client).await;
        shop.mirrors(vec![mirror()]);
        let copied = slowest(&shop.client).await;
        ratios.push(copied.as_secs_f64() / calm.as_secs_f64());
    }
    // Until then all were made and hung.
    let unmade = f64::from(ROUNDS * REQUESTS - IN_FLIGHT);
    shop.until("full", unmade).await;
    assert_eq!(api.request_count(), (2 * ROUNDS * REQUESTS) as usize);
    ratios.sort_by(f64::total_cmp);
    println!("the slowest call beside copies: {ratios:.3?} times");
    let middle = ratios[ratios.len() / 2];
    assert!(middle <= UNNOTICED, "{ratios:?}");
}

/// Of so many fast calls in a row the slowest but one is the 99th percentile.
const FAST: u32 = 100;
/// What fast calls may take at least, in a moment in which the machine is busy.
const BUSY: Duration = Duration::from_millis(5);

async fn percentile_of_fast(client: &Pod) -> Duration {
    let mut took = Vec::new();
    for _ in 0..FAST {
        let started = Instant::now();
        let (status, answer) = ask(client, "GET", "", "").await;
        assert_eq!(status, 200, "{answer}");
        took.push(started.elapsed());
    }
    took.sort();
    took[took.len() - 2]
}

// Claims: calls-54
#[tokio::test]
async fn beside_copies_that_hang_fast_calls_stay_fast() {
    let shop = Shop::new(SILENCE).await;
    let (mut calm, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        shop.mirrors(Vec::new());
        calm.push(percentile_of_fast(&shop.client).await);
        shop.mirrors(vec![mirror()]);
        copied.push(percentile_of_fast(&shop.client).await);
    }
    shop.until("full", f64::from(ROUNDS * FAST - IN_FLIGHT))
        .await;
    println!("fast calls: {calm:?}, beside copies {copied:?}");
    calm.sort();
    copied.sort();
    let middle = ROUNDS as usize / 2;
    let most = BUSY.max(2 * calm[middle]);
    assert!(copied[middle] <= most, "{copied:?}, and calm {calm:?}");
}
