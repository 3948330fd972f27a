//! Requests that wait for memory before they begin.

use std::cell::Cell;

use runtime::occupancy::{InFlight, Reached};

use super::*;
use crate::net::turn::WAIT;

const LIMIT: usize = 64 << 20;
const MUCH: usize = 40 << 20;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static WAITED: Cell<u64> = const { Cell::new(0) };
}

/// A connection of a caller that has a hundred requests in flight on another one.
fn crowded() -> (Served, Arc<Budget>, (Arc<Place>, Vec<InFlight>)) {
    let bounds = Bounds {
        places: 10,
        per_holder: usize::MAX,
        shared: true,
        head_within: HEAD_WITHIN,
        idle_within: Duration::MAX,
    };
    let places = Occupancy::new(bounds, |reached| {
        if reached == Reached::NoMemory {
            WAITED.set(WAITED.get() + 1);
        }
    });
    tokio::spawn(Arc::clone(&places).watch());
    let enter = || {
        let from = Holder::from(std::net::IpAddr::from([10, 0, 0, 1]));
        places.try_admit(&from).unwrap().unwrap()
    };
    let (place, other) = (enter(), enter());
    let requests = (0..100).map(|_| other.begin_request()).collect();
    let budget = Budget::measured(LIMIT, LIMIT, || USED.get());
    let served = Served::within(Arc::clone(&budget), place, 4096, None, path);
    (served, budget, (other, requests))
}

#[tokio::test(start_paused = true)]
async fn a_head_that_waits_for_memory_is_served_when_there_is_some_and_is_not_late() {
    let (mut served, budget, _crowd) = crowded();
    USED.set(MUCH);
    served.say(GET).await;
    // Longer than a head may take.
    sleep(HEAD_WITHIN * 2).await;
    assert!(served.rests(), "nothing was set up for it");
    USED.set(0);
    budget.settle();
    served.hear(&said("/one")).await;
    // The next one on the same connection, whose head is read as ever.
    USED.set(MUCH);
    served.say(GET).await;
    sleep(HEAD_WITHIN * 2).await;
    USED.set(0);
    budget.settle();
    served.hear(&said("/one")).await;
    assert_eq!(WAITED.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_memory_in_time_is_told_so() {
    for begun in [false, true] {
        let (mut served, _, _crowd) = crowded();
        USED.set(0);
        if begun {
            served.say(GET).await;
            served.hear(&said("/one")).await;
        }
        USED.set(MUCH);
        served.say(GET).await;
        sleep(WAIT + Duration::from_secs(1)).await;
        let mut answer = vec![0; 16 * 1024];
        let count = served.client.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{begun}: {answer}");
        assert!(answer.contains("weft-reason: overload"), "{answer}");
        assert!(answer.contains("no memory"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_goes_on_while_others_wait() {
    let (mut served, _, _crowd) = crowded();
    USED.set(0);
    served.say(b"GET /on").await;
    sleep(Duration::from_millis(1)).await;
    USED.set(MUCH);
    served.say(&GET[7..]).await;
    served.hear(&said("/one")).await;
}
