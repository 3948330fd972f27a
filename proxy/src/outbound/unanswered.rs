//! What a caller that leaves shows of the endpoint that it waited for: a response would have
//! taken longer. Without that an endpoint that hangs would never be measured, and one without a
//! measurement is the cheapest.

use std::time::Duration;

use tokio::time::Instant;

use crate::endpoints::endpoint::Endpoint;
use crate::http::replay::Replay;

/// An attempt without a response. Dropped before that is over, it reports that to its endpoint.
pub(super) struct Unanswered<'a> {
    to: &'a Endpoint,
    replay: &'a Replay,
    since: Instant,
    over: bool,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(to: &'a Endpoint, replay: &'a Replay) -> Self {
        Self {
            to,
            replay,
            since: Instant::now(),
            over: false,
        }
    }

    /// The attempt has ended by itself.
    pub(super) fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // What the caller needed to send the request is no time of the endpoint.
        let waited = if self.replay.waits_for_sender() {
            Duration::ZERO
        } else {
            self.since.elapsed()
        };
        self.to.given_up(waited);
    }
}
