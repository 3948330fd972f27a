//! Sends one proxy its quota shares of the rate limits that the pods of a Service share.

use std::sync::Arc;

use policy::traffic::part::Part;
use tokio::time::Instant;
use wire::capability::Capabilities;
use wire::v1;

use crate::shares::ShareRegistry;

/// See the module header.
#[derive(Debug)]
pub(super) struct QuotaShares {
    /// The proxy can keep shares.
    kept: bool,
    /// There may be shares to send.
    due: bool,
    /// Others may have the shares that it holds, and the pod must learn that.
    forget: bool,
}

impl QuotaShares {
    /// Those of a proxy that understands so much. `is_new`: it held nothing when its stream began,
    /// so no shares either.
    pub(super) fn new(capabilities: &Capabilities, is_new: bool) -> Self {
        Self {
            kept: capabilities.parts().has(Part::ServiceLimit),
            due: true,
            forget: !is_new,
        }
    }

    /// The stream begins.
    pub(super) fn connected(
        &mut self,
        share_registry: &ShareRegistry,
        uid: &Arc<str>,
        stream: u64,
    ) {
        let lost = self.kept && share_registry.connected(uid, stream, Instant::now());
        self.forget &= lost;
    }

    /// The stream has ended.
    pub(super) fn ended(&self, share_registry: &ShareRegistry, uid: &Arc<str>, stream: u64) {
        if self.kept {
            share_registry.ended(uid, stream, Instant::now());
        }
    }

    /// The board has changed.
    pub(super) const fn note_change(&mut self) {
        self.due = true;
    }

    /// After a batch there may be shares to send. With other limits all of them are sent again:
    /// what the pod held of one that had gone it has forgotten.
    pub(super) fn note_batch(
        &mut self,
        batch: &v1::Batch,
        share_registry: &ShareRegistry,
        uid: &Arc<str>,
    ) {
        self.due = true;
        let is_guard = |one: &v1::Resource| one.name == wire::names::GUARD;
        if self.kept && batch.set.iter().any(is_guard) {
            share_registry.resend(uid);
        }
    }

    /// Whether there may be shares to send.
    pub(super) const fn are_due(&self) -> bool {
        self.due && self.kept
    }

    /// What the proxy did not get yet. `has_limits`: it was sent its limits; before that it could do
    /// nothing with shares of them.
    pub(super) fn next(
        &mut self,
        has_limits: bool,
        share_registry: &ShareRegistry,
        uid: &Arc<str>,
    ) -> Option<v1::Shares> {
        let mut shares = Vec::new();
        if has_limits {
            self.due = false;
            shares = share_registry.send(uid);
        }
        let forget = std::mem::take(&mut self.forget);
        (forget || !shares.is_empty()).then_some(v1::Shares { shares, forget })
    }
}
