//! What this proxy does not even send, because the backend sheds most of such calls.

use std::sync::Arc;

use policy::http_match::RequestFacts;
use policy::path::{PathForms, PathReadings};
use policy::reason::Reason;
use policy::traffic::guard::Priority;

use super::Attempts;
use crate::endpoints::throttle::Admitted;
use crate::failure::Failure;
use crate::http::deadline::now;
use crate::outbound::call_policy;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::labels::ThrottledLabels;

impl Attempts<'_> {
    /// # Errors
    /// When the call is refused here.
    pub(super) fn held_back(&mut self, proxy: &Proxy, outgoing: &Outgoing) -> Result<(), Failure> {
        let Some(set) = self
            .route
            .choice
            .set()
            .filter(|set| set.throttle.is_active())
        else {
            return Ok(());
        };
        let class = self.class(outgoing);
        let admitted = set.throttle.admit(now(), class, rand::random());
        self.counted_by_throttle = admitted == Admitted::Counted;
        if admitted == Admitted::Refused {
            let labels = ThrottledLabels {
                backend: Arc::clone(&self.route.backend),
                priority: class.as_str(),
            };
            proxy.telemetry.metrics.throttled.at(&labels).inc();
            let detail = format!(
                "{} has no room for most calls of class {} now, and this one was not sent",
                self.route.backend,
                class.as_str()
            );
            return Err(Failure::refused(Reason::Overload, detail));
        }
        Ok(())
    }

    /// An answer came; `overloaded`: the application had no room for the request.
    pub(super) fn throttle(&mut self, outgoing: &Outgoing, overloaded: bool) {
        // One attempt is counted when it is sent, and those after it when they are answered.
        let counted = std::mem::take(&mut self.counted_by_throttle);
        let Some(set) = self.route.choice.set() else {
            return;
        };
        if overloaded || set.throttle.is_active() {
            let class = self.class(outgoing);
            set.throttle.record(now(), class, counted, overloaded);
        }
    }

    /// What the called pod's proxy will take it for, as far as it can be known here.
    fn class(&self, outgoing: &Outgoing) -> Priority {
        let parts = &outgoing.parts;
        let of = |path: &str| {
            let facts = RequestFacts {
                method: &parts.method,
                path,
                headers: &parts.headers,
            };
            call_policy::priority(self.route.policy.as_deref(), &facts)
        };
        let sent = parts.uri.path();
        let path = PathForms::of(sent);
        let priority = match path.ways() {
            PathReadings::Several(paths) => Priority::lowest(paths.iter().map(|path| of(path))),
            PathReadings::One | PathReadings::Unknown => of(path.normal(sent).unwrap_or(sent)),
        };
        Priority::of_call(outgoing.priority, priority)
    }
}
