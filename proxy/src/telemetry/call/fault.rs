//! Records on a call that a FaultExperiment harmed it, for its access log line, its span and the
//! response's header; and counts calls to the pod by the experiment's groups.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response};
use policy::fault::Group;

use super::Call;
use super::notes::{Harmed, Notes};
use crate::http::body::Body;
use crate::http::headers::FAULT;
use crate::telemetry::cell::CallGroup;

impl Call {
    /// This experiment harms the attempt that is under way.
    pub(crate) fn harmed(&mut self, experiment: &Arc<str>) {
        self.notes.harmed(experiment);
    }

    /// It is of this group of the experiment that checks the pod, and early reports count it so.
    pub(crate) fn in_group(&mut self, group: Group) {
        if self.telemetry.early.is_wanted() {
            let group = match group {
                Group::Control => CallGroup::Control,
                Group::Harmed => CallGroup::Harmed,
            };
            self.counting.in_group(&self.telemetry, group);
        }
    }

    /// Writes into the head of a response which experiment harmed the attempt that it ends.
    pub(crate) fn mark_fault(&self, map: &mut HeaderMap) {
        let harmed = self.notes.harmed.as_ref();
        if let Some(harmed) = harmed.filter(|harmed| harmed.last)
            && let Ok(experiment) = HeaderValue::from_str(&harmed.experiment)
        {
            map.insert(FAULT, experiment);
        }
    }

    /// The same of a response that the proxy makes itself.
    pub(super) fn with_fault(&self, mut response: Response<Body>) -> Response<Body> {
        self.mark_fault(response.headers_mut());
        response
    }
}

impl Notes {
    fn harmed(&mut self, experiment: &Arc<str>) {
        if let Some(span) = self.span() {
            span.harmed(experiment);
        }
        self.harmed = Some(Box::new(Harmed {
            experiment: Arc::clone(experiment),
            last: true,
        }));
    }

    /// Another attempt begins, or something else answers.
    pub(super) fn leaves_fault(&mut self) {
        if let Some(harmed) = &mut self.harmed {
            harmed.last = false;
        }
    }

    /// The experiment that harmed an attempt, if any.
    pub(super) fn fault(&self) -> Option<&str> {
        self.harmed.as_ref().map(|harmed| &*harmed.experiment)
    }
}
