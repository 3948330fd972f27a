//! Sends one proxy which runs of FaultExperiments may harm its calls for now: those of which it was
//! sent a rule.
//!
//! Each setting of the grants is sent, since a grant holds for three seconds; where none is left
//! for the proxy, that is sent once.

use tokio::time::Instant;
use wire::capability::{Capabilities, Capability};
use wire::{convert, v1};

use super::session::Session;
use crate::grants::GrantedRun;

/// See the module header.
#[derive(Debug)]
pub(super) struct SentGrants {
    /// The proxy understands them.
    understood: bool,
    /// There may be something to send.
    due: bool,
    /// What was sent last named a run.
    holds: bool,
}

impl SentGrants {
    pub(super) fn new(capabilities: &Capabilities) -> Self {
        Self {
            understood: capabilities.has(Capability::Faults),
            due: true,
            // What another stream granted lapses by itself.
            holds: false,
        }
    }

    /// The grants were set, or the proxy was sent other rules.
    pub(super) const fn note_change(&mut self) {
        self.due = true;
    }

    /// Whether there may be something to send.
    pub(super) const fn are_due(&self) -> bool {
        self.due && self.understood
    }

    /// What is to be sent; `None`: it has none, and knows that.
    pub(super) fn next(
        &mut self,
        runs: &[GrantedRun],
        session: &Session,
        now: Instant,
    ) -> Option<v1::Grants> {
        self.due = false;
        let has_rule =
            |run: &&GrantedRun| run.policies.iter().any(|policy| session.was_sent(policy));
        let granted = runs.iter().filter(has_rule);
        let grants: Vec<_> = granted.filter_map(|run| run.grant(now)).collect();
        let held = std::mem::replace(&mut self.holds, !grants.is_empty());
        (held || self.holds).then(|| convert::grants_message(&grants))
    }
}
