//! What one proxy answers to the questions on its stream.
//!
//! Read as fast as it may come: whoever says more is slowed down, and then keeps or drops
//! at its own end what it has to say. Nobody's reader is waited for.

use runtime::rate::Rate;
use runtime::stop;
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use wire::v1;

use super::stream::Streams;
use crate::observe::asks::ANSWERS;

/// Takes the answers of this pod's proxy until it, or the process, ends.
pub(super) async fn take(streams: &Streams, uid: &str, mut answers: Streaming<v1::Answered>) {
    // Of a pod that nobody can ask here, and that says something all the same.
    let mut unasked = Rate::new(ANSWERS);
    let taking = async {
        while let Ok(Some(answered)) = answers.message().await {
            loop {
                let now = Instant::now();
                let may = streams.asks.may_answer(uid, now);
                let Err(wait) = may.unwrap_or_else(|| unasked.take(now)) else {
                    break;
                };
                streams.limits.counter("ask-answers").inc();
                sleep(wait).await;
            }
            streams.asks.answered(uid, answered);
        }
    };
    tokio::select! {
        () = taking => {}
        () = stop::requested(streams.stop.clone()) => {}
    }
}
