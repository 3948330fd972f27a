//! A call that is refused by its head: counted, written down and shown as any other, with as much
//! of the head as could be read. It begins no trace, since nothing of it is sent on.

use http::Response;

use super::Call;
use crate::http::body::Body;
use crate::http::head::Asked;
use crate::http::received::Rejected;
use crate::http::refusal::NotHandled;
use crate::telemetry::cell::CallOutcome;

impl Call {
    /// Notes the request of a head that will be refused, for the access log and taps.
    pub(crate) fn asks_in_vain(&mut self, asked: Asked<'_>) {
        self.note(|| asked, None);
    }

    /// No request could be made out, or there was no room for one. When it came is not
    /// known here, so that counts as no latency.
    pub(crate) fn turned_away(mut self, how: NotHandled, asked: Asked<'_>) {
        self.asks_in_vain(asked);
        let NotHandled::Answered(reason, status) = how else {
            // Dropped, it counts as cancelled.
            return;
        };
        let status = status.as_u16();
        self.settle(false).outcome(CallOutcome {
            status,
            success: false,
            reason: Some(reason),
        });
        self.awaited = false;
        self.leave();
        self.keep_line_of(true);
        let waited = self.started.elapsed();
        self.log(status, reason.as_str(), waited, 0);
        self.show((status, None), reason.as_str(), waited, 0);
    }

    /// Refuses by an answer of this proxy what can be read in two ways, or is not for a proxy
    /// to send on.
    #[must_use]
    pub(crate) fn reject(mut self, rejected: &Rejected) -> Response<Body> {
        let parts = &rejected.parts;
        self.asks_in_vain(Asked::of(parts));
        self.refuse(&rejected.failure, &parts.method, false)
    }
}
