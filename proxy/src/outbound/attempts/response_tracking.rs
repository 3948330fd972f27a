//! What is held of a call while its answer is passed on.

use http::{Response, StatusCode};
use http_body::Body as HttpBody;
use policy::health::HealthSignal;
use policy::retry;

use super::Attempts;
use crate::endpoints::endpoint::InFlight;
use crate::http::client::dedicated::ResponseBody;
use crate::http::deadline::StopConditions;
use crate::http::upload::Upload;
use crate::outbound::attempt_outcome::{AtEnd, AttemptOutcome};
use crate::outbound::send::Outgoing;
use crate::outbound::serving::{EndReport, Open, Serving, ServingHeaders};
use crate::proxy::Proxy;

impl Attempts<'_> {
    /// What the end of a response reports behind this head. One that another may replace is
    /// judged by its head, since it may have no reader to its end.
    pub(super) fn at_end(
        &self,
        outcome: AttemptOutcome,
        signal: Option<HealthSignal>,
        head: &Response<ResponseBody>,
    ) -> Option<AtEnd> {
        match outcome {
            AttemptOutcome::Open => Some(AtEnd::Status),
            AttemptOutcome::Ended(ended @ retry::Ended::Status(status)) => {
                let looks_good = signal == Some(HealthSignal::Good) && !status.is_server_error();
                let has_more = status != StatusCode::SWITCHING_PROTOCOLS
                    && !HttpBody::is_end_stream(head.body());
                (looks_good && has_more && !ended.is_failure(self.retry())).then_some(AtEnd::Whole)
            }
            AttemptOutcome::Ended(_) | AttemptOutcome::Mesh(_) => None,
        }
    }

    /// What waits for the end of an answer.
    pub(super) fn open(
        &self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        upload: &Upload,
        at_end: AtEnd,
    ) -> Option<Open> {
        let end_report = match at_end {
            AtEnd::Status => EndReport::Status {
                retried: self.retries > 0,
                listener: self.trailer_listener(proxy, outgoing),
            },
            AtEnd::Whole => EndReport::Whole,
        };
        Some(Open {
            among: self.route.choice.among()?.clone(),
            policy: self.route.policy.clone(),
            ejects: self.route.choice.ejects(),
            recorder: self.recorder.clone(),
            shown: self.shown,
            upload: upload.clone(),
            end_report,
        })
    }

    pub(super) fn served(
        &self,
        in_flight: InFlight,
        open: Option<Open>,
        ends: Option<Box<StopConditions>>,
    ) -> Serving {
        let route = self.route;
        let routed_to = route.overridden.then_some(&*route.backend);
        Serving {
            in_flight,
            open,
            ends,
            marks: ServingHeaders::of(self.route.cookie.as_deref(), routed_to),
        }
    }
}
