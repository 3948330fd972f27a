//! What the proxy tells its controller of itself: its certificate, memory, whether it
//! drains, and the time that it has.
//!
//! On every new stream, and then when there is news. Memory is always a little different,
//! and the clock always is: what has changed by less than somebody would act upon is none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;
use wire::v1;

use crate::control::Control;
use crate::telemetry::memory;

/// Between two looks for news.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Without news as well, so that a clock that drifts is noticed.
const TELL_EVERY: Duration = Duration::from_secs(300);
/// Memory is news when it changed by one part of so many.
const MEMORY_PART: u64 = 8;

/// What was told on one stream.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(v1::ProxyStatus, Instant)>);

impl Told {
    /// Takes a look; the message, if there is something to tell.
    pub(super) fn next(&mut self, now: v1::ProxyStatus, at: Instant) -> Option<v1::ProxyStatus> {
        let silent = self
            .0
            .as_ref()
            .is_some_and(|(told, since)| !is_news(told, &now) && at < *since + TELL_EVERY);
        if silent {
            return None;
        }
        self.0 = Some((now.clone(), at));
        Some(now)
    }

    /// Whether it was told that the pod is being deleted.
    pub(super) fn is_draining(&self) -> bool {
        self.0.as_ref().is_some_and(|(told, _)| told.draining)
    }
}

fn is_news(told: &v1::ProxyStatus, now: &v1::ProxyStatus) -> bool {
    told.certificate != now.certificate
        || told.draining != now.draining
        || told.memory.abs_diff(now.memory) > told.memory / MEMORY_PART
}

/// Returns when the pod is being deleted.
pub(super) async fn deleted(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        // Whoever would say so has ended.
        std::future::pending::<()>().await;
    }
}

impl Control {
    /// How things are now.
    pub(super) fn status(&self) -> v1::ProxyStatus {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let certificate = self.certs.current().map(|leaf| v1::Certificate {
            serial: leaf.serial().to_owned(),
            issuer: leaf.issuer().to_owned(),
            not_after: since(leaf.not_after()).as_secs(),
        });
        v1::ProxyStatus {
            certificate,
            memory: memory::resident().unwrap_or_default(),
            draining: *self.draining.borrow(),
            now: u64::try_from(since(self.clock.now()).as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_told_and_now_and_then_the_time() {
        let (mut told, start) = (Told::default(), Instant::now());
        let status = |memory: u64, draining: bool, now: u64| v1::ProxyStatus {
            certificate: None,
            memory,
            draining,
            now,
        };
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(
            told.next(status(800, false, 1), after(0)).is_some(),
            "the first"
        );
        assert!(
            told.next(status(900, false, 2), after(30)).is_none(),
            "an eighth"
        );
        assert!(
            told.next(status(901, false, 3), after(60)).is_some(),
            "more"
        );
        assert!(told.next(status(901, false, 4), after(359)).is_none());
        assert!(
            told.next(status(901, false, 5), after(360)).is_some(),
            "the time"
        );
        assert!(!told.is_draining());
        assert!(told.next(status(901, true, 6), after(361)).is_some());
        assert!(told.is_draining());
    }
}
