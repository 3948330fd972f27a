//! How many connections each listener serves, and how one of them is served.
//!
//! The pod's own calls, calls in plaintext and calls of peers never wait for each
//! other: whoever fills one listener leaves the other two as they are.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use runtime::occupancy::{Bounds, Occupancy, Place, Reached};

use crate::http::HEAD_WITHIN;
use crate::metrics::Metrics;

/// Connections that one listener serves at once; more wait in the kernel's queue.
pub const PLACES: usize = 10_000;

/// The places of one listener. `full` is what is counted when all are taken.
#[must_use]
pub fn of_listener(metrics: &Metrics, full: &'static str, shared: bool) -> Arc<Occupancy> {
    let metrics = metrics.clone();
    let bounds = Bounds {
        places: PLACES,
        per_holder: usize::MAX,
        shared,
        head_within: HEAD_WITHIN,
        // Every server has a patience of its own.
        idle_within: Duration::MAX,
    };
    Occupancy::new(bounds, move |reached| {
        metrics.limit(match reached {
            Reached::Full => full,
            Reached::Hoarder => "hoarder",
            Reached::SlowHead => "slow-head",
        });
    })
}

/// Serves a connection for as long as it may keep its place.
pub async fn keep(place: &Place, conversation: impl Future<Output = ()>) {
    tokio::select! {
        () = conversation => {}
        () = place.cut() => {}
    }
}
