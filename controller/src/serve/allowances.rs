//! Limits how often a pod may open control streams, and how many messages it may send on all of
//! them.
//!
//! Counted by pod, not by stream: a client that closes a stream and opens another is the same
//! proxy, and has used what it has used.
//!
//! Claims: attack-77

use std::sync::Arc;
use std::time::Duration;

use model::PodId;
use prost::Message as _;
use runtime::rate::{Allowance, Rates};
use tokio::time::Instant;
use wire::v1;
use wire::v1::from_proxy::Message;

/// Streams that a pod opens. A proxy has one, and opens the next a moment after its end; a
/// Hello costs as much as its 4 MiB and a look at the whole Model.
pub(super) const OPENINGS: Allowance = Allowance {
    burst: 20,
    every: Duration::from_secs(1),
};
/// Messages of a pod, apart from answers to batches, of which there are as many as batches.
/// A new stream begins with reports of five minutes; after that comes a report in 5 s, and
/// whatever addresses the application calls for the first time.
const MESSAGES: Allowance = Allowance {
    burst: 500,
    every: Duration::from_millis(10),
};
/// Bytes of a message for which it counts once more, answers to batches too: 6 MiB/s, where the
/// reports of a busy proxy come to less than 1 MiB in 5 s.
const COUNTS_AGAIN: usize = 64 * 1024;
/// Breaker reports of a pod: one in a second, and some that were late.
const BREAKER_REPORTS: Allowance = Allowance {
    burst: 4,
    every: Duration::from_millis(900),
};
/// How often the log says the same of a pod. Each time is counted.
const LOG_RATE: Allowance = Allowance {
    burst: 5,
    every: Duration::from_secs(10),
};
/// Pods that are kept at one time, each for as long as it has used something; about 200 bytes each.
/// Twice the streams that there may be.
const MAX_PODS: usize = 16 * 1024;

/// What pods have used. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Allowances {
    used: Arc<Used>,
}

#[derive(Debug)]
struct Used {
    openings: Rates<Arc<str>>,
    messages: Rates<Arc<str>>,
    breaker_reports: Rates<Arc<str>>,
    log_rates: Rates<(PodId, &'static str)>,
}

impl Default for Allowances {
    /// No pod has used anything.
    fn default() -> Self {
        Self {
            used: Arc::new(Used {
                openings: Rates::new(OPENINGS, MAX_PODS),
                messages: Rates::new(MESSAGES, MAX_PODS),
                breaker_reports: Rates::new(BREAKER_REPORTS, MAX_PODS),
                log_rates: Rates::new(LOG_RATE, MAX_PODS),
            }),
        }
    }
}

impl Allowances {
    /// Whether the pod `uid` may open one more stream, or how long it has to wait.
    pub(super) fn open(&self, uid: &Arc<str>, now: Instant) -> Result<(), Duration> {
        self.used.openings.take(uid, now)
    }

    /// The Hello of a stream was read. Returns how long nothing more is to be read of it.
    pub(super) fn hello(&self, uid: &Arc<str>, hello: &v1::Hello, now: Instant) -> Duration {
        self.charge(uid, 1, hello.encoded_len(), now)
    }

    /// Another message was read. Returns how long nothing more is to be read of its stream.
    pub(super) fn message(
        &self,
        uid: &Arc<str>,
        message: &v1::FromProxy,
        now: Instant,
    ) -> Duration {
        let once = u32::from(!matches!(message.message, Some(Message::Ack(_))));
        self.charge(uid, once, message.encoded_len(), now)
    }

    fn charge(&self, uid: &Arc<str>, once: u32, bytes: usize, now: Instant) -> Duration {
        let again = u32::try_from(bytes / COUNTS_AGAIN).unwrap_or(u32::MAX);
        match once.saturating_add(again) {
            // What costs nothing waits for nothing.
            0 => Duration::ZERO,
            uses => self.used.messages.charge(uid, uses, now),
        }
    }

    /// Whether a breaker report of this pod is taken.
    pub(super) fn admits_breaker_report(&self, uid: &Arc<str>, now: Instant) -> bool {
        self.used.breaker_reports.take(uid, now).is_ok()
    }

    /// Whether the log says `what` of this pod once more.
    pub(super) fn may_log(&self, pod: &PodId, what: &'static str, now: Instant) -> bool {
        self.used.log_rates.take(&(pod.clone(), what), now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(bytes: usize) -> v1::FromProxy {
        let add = vec!["x".repeat(bytes)];
        v1::FromProxy {
            message: Some(Message::Subscribe(v1::Subscribe {
                add,
                remove: Vec::new(),
            })),
        }
    }

    #[test]
    fn message_allowance_scales_with_bytes_and_skips_small_answers() {
        let (pods, now) = (Allowances::default(), Instant::now());
        let uid: Arc<str> = "uid-client".into();
        let large = subscribe(4 * 1024 * 1024 - 1024);
        let uses = 1 + u32::try_from(large.encoded_len() / COUNTS_AGAIN).unwrap();
        assert_eq!(uses, 64);
        for _ in 0..MESSAGES.burst / uses {
            assert_eq!(pods.message(&uid, &large, now), Duration::ZERO);
        }
        let wait = pods.message(&uid, &large, now);
        assert!(wait > 10 * MESSAGES.every, "{wait:?}");
        let ack = |reason: usize| {
            let nack = v1::Nack {
                reason: "x".repeat(reason),
                ..v1::Nack::default()
            };
            v1::FromProxy {
                message: Some(Message::Ack(v1::Ack {
                    batch: 1,
                    nacks: vec![nack],
                })),
            }
        };
        assert_eq!(pods.message(&uid, &ack(100), now), Duration::ZERO);
        assert!(pods.message(&uid, &ack(COUNTS_AGAIN), now) > wait);
        let other: Arc<str> = "uid-other".into();
        assert_eq!(pods.message(&other, &subscribe(1), now), Duration::ZERO);
    }
}
