//! What this proxy does not even send, because the backend sheds most of such calls.

use policy::http_match::RequestFacts;
use policy::path::{PathForms, PathReadings};
use policy::reason::Reason;
use policy::traffic::guard::Priority;

use super::Attempts;
use crate::failure::Failure;
use crate::http::deadline::now;
use crate::outbound::call_policy;
use crate::outbound::send::Outgoing;

impl Attempts<'_> {
    /// # Errors
    /// When the call is refused here.
    pub(super) fn held_back(&self, outgoing: &Outgoing) -> Result<(), Failure> {
        let Some(set) = self
            .route
            .choice
            .set()
            .filter(|set| set.throttle.is_active())
        else {
            return Ok(());
        };
        let class = self.class(outgoing);
        if set.throttle.refuses(now(), class, rand::random()) {
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
    pub(super) fn throttle(&self, outgoing: &Outgoing, overloaded: bool) {
        let Some(set) = self.route.choice.set() else {
            return;
        };
        if overloaded || set.throttle.is_active() {
            let class = self.class(outgoing);
            set.throttle.record(now(), class, overloaded);
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
