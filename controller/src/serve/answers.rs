//! What one proxy answers to the queries on its stream.
//!
//! Read as fast as it may come: a proxy that sends more is slowed down, and then keeps or drops at
//! its own end what it has to send. No reader is waited for.

use std::sync::Arc;

use runtime::stop;
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use wire::v1;

use super::stream::Streams;

/// Takes the answers of this pod's proxy until it, or the process, ends.
pub(super) async fn take(streams: &Streams, uid: &str, mut answers: Streaming<v1::Answered>) {
    let pod: Arc<str> = uid.into();
    let taking = async {
        while let Ok(Some(answered)) = answers.message().await {
            while let Err(wait) = streams.asks.may_answer(&pod, Instant::now()) {
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
