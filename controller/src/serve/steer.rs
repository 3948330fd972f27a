//! Breakers of the complete mesh on one proxy's stream: takes its pulses, and sends it the states
//! of breakers that its calls go by.

use std::time::Duration;

use tokio::time::Instant;
use wire::v1;

use super::stream::{ProxyStream, StreamEnd};

/// Until the proxy has taken what was sent before.
const AGAIN: Duration = Duration::from_millis(50);

impl ProxyStream<'_> {
    /// Takes what the proxy reports of its calls.
    pub(super) fn pulse(&mut self, pulse: v1::Pulse) {
        let now = Instant::now();
        if self.shared.allowances.pulse(&self.caller.uid, now) {
            self.breakers.note_pulse(&pulse);
            self.shared.fleet.take(&self.caller, pulse, now);
        } else {
            self.shared.limits.counter("breaker-pulses").inc();
        }
    }

    /// Sends the proxy what it does not know yet. Returns when to try again, if that has to be.
    pub(super) fn steer(&mut self) -> Result<Option<Instant>, StreamEnd> {
        if !self.breakers.due {
            return Ok(None);
        }
        let now = Instant::now();
        // Batches need all places but one, and the first message is a batch.
        if self.outbox.capacity() < self.outbox.max_capacity() {
            return Ok(Some(now + AGAIN));
        }
        let all = self.shared.fleet.announced();
        let account = &self.caller.account;
        let states = self.breakers.news(&all, &self.session, account, now);
        if states.is_empty() {
            return Ok(None);
        }
        let message = v1::ToProxy {
            message: Some(v1::to_proxy::Message::Steer(v1::Steer { states })),
        };
        match self.outbox.try_send(Ok(Box::new(message))) {
            Ok(()) => Ok(None),
            Err(_) => Err(StreamEnd::Over),
        }
    }
}
