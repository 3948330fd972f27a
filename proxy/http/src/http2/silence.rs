//! Detects by its requests that a server, which gets no pings, has fallen silent.
//!
//! Some servers stop to answer on one connection and go on to serve others. TCP does not show that,
//! and a ping would cost more than it shows: a server that computes answers none, and servers of
//! gRPC end connections with frequent pings. So requests show it: a request was sent completely,
//! and nothing at all was received on the connection since.
//!
//! Anything received after a request excuses it for good, also one that is not answered for hours:
//! its server reads and writes on this connection.
//!
//! Claims: attack-24

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// A server that is silent for so long may compute, or wait for events: another connection to it
/// then costs one handshake. It is long against common answers, and less than what callers wait for
/// them.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(5);
/// In place of a time: nothing is owed.
const NEVER: u64 = u64::MAX;

/// What a server owes on one connection.
#[derive(Debug)]
pub(super) struct SilenceDetector {
    started: Instant,
    /// In milliseconds since then, of the first request that nothing came behind.
    since: AtomicU64,
    /// How often something came.
    received: AtomicU64,
}

impl Default for SilenceDetector {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            since: AtomicU64::new(NEVER),
            received: AtomicU64::new(0),
        }
    }
}

impl SilenceDetector {
    /// Something came.
    pub(super) fn came(&self) {
        self.received.fetch_add(1, Relaxed);
        self.since.store(NEVER, Relaxed);
    }

    /// Whether requests have waited for too long for anything at all to come.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        let since = self.since.load(Relaxed);
        since != NEVER && Duration::from_millis(self.at(now).saturating_sub(since)) >= SILENT_AFTER
    }

    fn at(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.started);
        u64::try_from(passed.as_millis()).unwrap_or(NEVER - 1)
    }
}

/// A request whose head is sent, on a connection that tracks what its server owes.
#[derive(Debug)]
pub(super) struct AwaitedResponse(Option<(Arc<SilenceDetector>, u64)>);

impl AwaitedResponse {
    pub(super) fn on(connection: Option<&Arc<SilenceDetector>>) -> Self {
        Self(connection.map(|owed| (Arc::clone(owed), owed.received.load(Relaxed))))
    }

    /// Nothing more comes of it. Where it is whole its server has what it needs to answer.
    pub(super) fn sent(self, is_whole: bool) {
        let Some((owed, received)) = self.0 else {
            return;
        };
        let came = owed.received.load(Relaxed) != received;
        if is_whole && !came && owed.since.load(Relaxed) == NEVER {
            owed.since.store(owed.at(Instant::now()), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn silent(owed: &SilenceDetector) -> bool {
        owed.is_silent(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn server_is_silent_when_request_long_gets_nothing() {
        let owed = Arc::<SilenceDetector>::default();
        advance(2 * SILENT_AFTER).await;
        assert!(!silent(&owed), "it was asked for nothing");
        AwaitedResponse::on(Some(&owed)).sent(true);
        advance(SILENT_AFTER - MOMENT).await;
        // A later request does not put that off.
        AwaitedResponse::on(Some(&owed)).sent(true);
        assert!(!silent(&owed));
        advance(MOMENT).await;
        assert!(silent(&owed));
        owed.came();
        advance(2 * SILENT_AFTER).await;
        assert!(
            !silent(&owed),
            "it said something behind all that was asked"
        );
    }

    /// Also where it is the rest of a body that comes late.
    #[tokio::test(start_paused = true)]
    async fn complete_request_counts_only_without_data_after_head() {
        for (comes, is_whole) in [(false, true), (true, true), (false, false)] {
            let owed = Arc::<SilenceDetector>::default();
            let awaited = AwaitedResponse::on(Some(&owed));
            advance(2 * SILENT_AFTER).await;
            assert!(!silent(&owed), "it waits for the rest of the request");
            if comes {
                owed.came();
            }
            awaited.sent(is_whole);
            advance(SILENT_AFTER).await;
            let case = format!("something came: {comes}, whole: {is_whole}");
            assert_eq!(silent(&owed), is_whole && !comes, "{case}");
        }
    }
}
