//! One layer tries again: what failed here in its last attempt is not tried again by those
//! above, nor what they try again already by those below.

use std::sync::atomic::Ordering::Relaxed;

use policy::deadline::{Deadline, DeadlineSource};
use policy::reason::Reason;
use policy::retry::{self, Attempted};

use super::Attempts;
use super::failed::Failed;
use crate::failure::Failure;
use crate::http::deadline;
use crate::outbound::attempt_outcome::AttemptOutcome;
use crate::outbound::send::Outgoing;
use crate::outbound::serving::TrailerListener;
use crate::proxy::Proxy;

impl Attempts<'_> {
    /// A failed attempt, as far as it decides what follows.
    pub(super) fn attempted<'b>(&self, failed: &Failed<'b>) -> Attempted<'b> {
        let outgoing = failed.outgoing;
        Attempted {
            method: &outgoing.parts.method,
            grpc: outgoing.grpc,
            ended: failed.ended,
            retries: self.retries,
            moved: self.failovers.found_overload(),
            body_kept: outgoing.replay.is_kept(),
            spent: failed.spent || outgoing.is_for_retry(),
            late: outgoing.late.load(Relaxed)
                && deadline::reached(outgoing.deadline) != Some(DeadlineSource::Context),
            requested_wait: failed.requested_wait,
            deadline: outgoing.deadline,
        }
    }

    /// Notes what the last response leaves to the caller of this call.
    pub(super) fn note_answer(&self, failed: Option<&Failed<'_>>, outgoing: &Outgoing) {
        // A peer counts the same time, and may be the first to report that it is over.
        let passed = retry::Ended::Refused(Reason::Deadline);
        if failed.is_some_and(|failed| failed.ended == passed) {
            outgoing.late.store(true, Relaxed);
        }
        self.note(failed, outgoing);
    }

    fn note(&self, failed: Option<&Failed<'_>>, outgoing: &Outgoing) {
        let marks = |failed| self.attempted(failed).marks_spent(self.retry());
        outgoing.note_spent(failed.is_some_and(marks));
    }

    /// Gets the result of a gRPC call that has it in its trailers, or has no time for them, where
    /// a failure would mark it.
    pub(super) fn trailer_listener(
        &self,
        proxy: &Proxy,
        outgoing: &Outgoing,
    ) -> Option<Box<TrailerListener>> {
        let (any, deadline) = (outgoing.is_for_retry(), outgoing.deadline);
        let ends = deadline != Deadline::NONE || self.timeouts().idle.is_some();
        if !any && !ends && self.retry().grpc_codes.is_empty() {
            return None;
        }
        let asker = outgoing.asker()?;
        let contexts = proxy.contexts.clone();
        Some(Box::new(TrailerListener {
            contexts,
            asker,
            any,
            deadline,
        }))
    }

    /// The same of an attempt without an answer.
    pub(super) fn note_failure(
        &self,
        failure: &Failure,
        outcome: Option<AttemptOutcome>,
        outgoing: &Outgoing,
    ) {
        let ended = match outcome {
            Some(AttemptOutcome::Ended(ended)) => ended,
            _ => retry::Ended::Refused(failure.reason()),
        };
        self.note(Some(&Failed::new(outgoing, ended)), outgoing);
    }
}
