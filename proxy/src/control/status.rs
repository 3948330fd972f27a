//! Status reports of the proxy to its controller: its certificate, the roots in use, memory,
//! whether it drains, and its clock.
//!
//! A proxy sends one first on every new stream, because the controller dates reports by the proxy's
//! clock, and then on change. Memory and clock always differ a little: a difference too small to
//! act upon is no change. A clock that was set is reported twice: the controller believes one that
//! looks late the second time, because a message may have waited on its way.
//!
//! Claims: observe-103, observe-104

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;
use wire::v1;

use crate::control::Control;
use crate::telemetry::metrics::resident;
use crate::telemetry::report::{CLOCK_SET, INTERVAL};

/// Between two looks for changes. From when the clock is set until its controller knows, reports
/// are dated as before, and may be too far off to be taken: one interval's at most.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(INTERVAL);
/// Without a change as well, so that a clock that drifts is noticed.
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// Memory has changed when it differs by one part of so many, and not more often than this.
const MEMORY_PART: u64 = 8;
const MEMORY_EVERY: Duration = Duration::from_secs(30);

/// What was reported on one stream.
#[derive(Debug, Default)]
pub(super) struct LastSent {
    last_sent: Option<(v1::ProxyStatus, Instant)>,
    /// The clock had been set before, and is to be reported once more.
    clock_set: bool,
}

impl LastSent {
    /// Takes a look; the message, if there is something to report.
    pub(super) fn next(&mut self, now: v1::ProxyStatus, at: Instant) -> Option<v1::ProxyStatus> {
        let again = std::mem::take(&mut self.clock_set);
        if let Some((last_sent, since)) = &self.last_sent {
            let passed = at.saturating_duration_since(*since);
            self.clock_set = was_set(last_sent, &now, passed);
            let is_due = again || self.clock_set || passed >= REPORT_EVERY;
            if !is_due && !is_news(last_sent, &now, passed) {
                return None;
            }
        }
        self.last_sent = Some((now.clone(), at));
        Some(now)
    }

    /// Whether the deletion of the pod was reported.
    pub(super) fn is_draining(&self) -> bool {
        self.last_sent
            .as_ref()
            .is_some_and(|(last_sent, _)| last_sent.draining)
    }
}

fn is_news(last_sent: &v1::ProxyStatus, now: &v1::ProxyStatus, passed: Duration) -> bool {
    let memory = last_sent.memory.abs_diff(now.memory) > last_sent.memory / MEMORY_PART;
    last_sent.certificate != now.certificate
        || last_sent.trusts != now.trusts
        || last_sent.draining != now.draining
        || (memory && passed >= MEMORY_EVERY)
}

/// Whether the clock shows something else than it would after this time.
fn was_set(last_sent: &v1::ProxyStatus, now: &v1::ProxyStatus, passed: Duration) -> bool {
    let expected = Duration::from_millis(last_sent.now) + passed;
    Duration::from_millis(now.now).abs_diff(expected) > CLOCK_SET
}

/// Returns when the pod is being deleted.
pub(super) async fn deleted(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        // The sender has ended.
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
            not_before: since(leaf.not_before()).as_secs(),
            authority: leaf.authority().as_bytes().to_vec(),
        });
        let trusts = self.roots.ids();
        v1::ProxyStatus {
            certificate,
            memory: resident().unwrap_or_default(),
            draining: *self.draining.borrow(),
            now: u64::try_from(since(self.clock.now()).as_millis()).unwrap_or(u64::MAX),
            trusts: trusts.iter().map(|root| root.as_bytes().to_vec()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_sent_only_on_change_or_periodic_time() {
        let (mut last_sent, start) = (LastSent::default(), Instant::now());
        let status = |memory: u64, draining: bool, seconds: u64| v1::ProxyStatus {
            certificate: None,
            memory,
            draining,
            now: seconds * 1000,
            trusts: Vec::new(),
        };
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(
            last_sent.next(status(800, false, 0), after(0)).is_some(),
            "the first"
        );
        assert!(
            last_sent.next(status(1600, false, 25), after(25)).is_none(),
            "it comes and goes"
        );
        assert!(
            last_sent.next(status(900, false, 30), after(30)).is_none(),
            "an eighth"
        );
        assert!(
            last_sent.next(status(901, false, 60), after(60)).is_some(),
            "more"
        );
        assert!(
            last_sent
                .next(status(901, false, 359), after(359))
                .is_none()
        );
        assert!(
            last_sent
                .next(status(901, false, 360), after(360))
                .is_some(),
            "the time"
        );
        assert!(!last_sent.is_draining());
        assert!(last_sent.next(status(901, true, 361), after(361)).is_some());
        assert!(last_sent.is_draining());
    }

    #[test]
    fn a_clock_that_was_set_is_news_twice() {
        let (mut last_sent, start) = (LastSent::default(), Instant::now());
        let mut is_reported = |seconds: u64, after: u64| {
            let status = v1::ProxyStatus {
                now: seconds * 1000,
                ..v1::ProxyStatus::default()
            };
            let at = start + Duration::from_secs(after);
            last_sent.next(status, at).is_some()
        };
        assert!(is_reported(10_000, 0), "the first");
        assert!(!is_reported(10_035, 30), "five seconds are none");
        assert!(is_reported(10_066, 60), "set forward");
        assert!(is_reported(10_096, 90), "the second time");
        assert!(!is_reported(10_126, 120), "it runs on from there");
        assert!(is_reported(4_000, 150), "set back");
        assert!(is_reported(4_030, 180), "the second time");
        assert!(!is_reported(4_060, 210));
    }
}
