//! Shares of limits on one proxy's stream: gives the pod what it is to keep, and receives what it
//! has taken.

use std::time::Duration;

use policy::traffic::part::Part;
use tokio::time::Instant;
use wire::v1;

use super::stream::{ProxyStream, StreamEnd};

/// Until the proxy has taken what was sent before.
const AGAIN: Duration = Duration::from_millis(50);

impl ProxyStream<'_> {
    /// Whether the proxy can keep shares.
    pub(super) fn keeps_shares(&self) -> bool {
        self.session.capabilities().parts().has(Part::ServiceLimit)
    }

    /// After a batch there may be shares to send. With other limits all of them are sent again:
    /// what the pod held of one that had gone it has forgotten.
    pub(super) fn share_after(&mut self, batch: &v1::Batch) {
        self.shares_due = true;
        let is_guard = |one: &v1::Resource| one.name == wire::names::GUARD;
        if self.keeps_shares() && batch.set.iter().any(is_guard) {
            self.shared.board.resend(&self.caller.uid);
        }
    }

    /// Sends the proxy what it did not get yet. Returns when to try again, if that has to be.
    pub(super) fn share(&mut self) -> Result<Option<Instant>, StreamEnd> {
        if !self.shares_due || !self.keeps_shares() {
            return Ok(None);
        }
        // Batches need all places but one, and the first message is a batch.
        if self.outbox.capacity() < self.outbox.max_capacity() {
            return Ok(Some(Instant::now() + AGAIN));
        }
        let mut shares = Vec::new();
        // Before the pod knows its limits it could do nothing with shares of them.
        if self.session.was_sent(wire::names::GUARD) {
            self.shares_due = false;
            shares = self.shared.board.send(&self.caller.uid);
        }
        let forget = std::mem::take(&mut self.forget);
        if shares.is_empty() && !forget {
            return Ok(None);
        }
        let shares = v1::Shares { shares, forget };
        let message = v1::ToProxy {
            message: Some(v1::to_proxy::Message::Shares(shares)),
        };
        match self.outbox.try_send(Ok(Box::new(message))) {
            Ok(()) => Ok(None),
            Err(_) => Err(StreamEnd::Over),
        }
    }
}
