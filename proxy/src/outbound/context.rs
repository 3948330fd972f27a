//! What a call of the application is made for, and what it takes over of that.

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use policy::traffic::guard::Priority;
use policy::traffic::set::is_safe;
use tokio::time::sleep;

use crate::failure::Failure;
use crate::http::context::{Asker, MadeFor, ServedRequest};
use crate::http::deadline::{self, Ends, Left};
use crate::http::received::Received;
use crate::http::upload::Upload;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::labels::ContextLabels;

/// What a call is made for, as its headers say.
pub(super) fn of_call(proxy: &Proxy, received: &Received) -> MadeFor {
    let (named, map) = (received.context, &received.parts.headers);
    let made_for = proxy.contexts.of_call(named, map);
    if let Some(how) = made_for.how() {
        let metrics = &proxy.telemetry.metrics;
        metrics.contexts.at(&ContextLabels { how }).inc();
    }
    made_for
}

/// The class that a call may have at most. What would raise it says nothing.
pub(super) fn priority(
    said: Option<Priority>,
    made_for: Option<&ServedRequest>,
) -> Option<Priority> {
    let inherited = made_for.and_then(|request| request.inherited().priority);
    let inherited = inherited.filter(|class| *class == Priority::Sheddable);
    let said = said.filter(|class| *class != Priority::Critical);
    inherited.or(said)
}

impl Outgoing {
    /// # Errors
    /// When no time is left for it, or nobody waits any more for what it is made for.
    pub(super) fn check(&self) -> Result<(), Failure> {
        deadline::check(self.deadline)?;
        match &self.made_for {
            Some(request) if request.has_left() => Err(deadline::left()),
            _ => Ok(()),
        }
    }

    /// What ends it under way when nobody waits any more for what it is made for. What may
    /// be half done goes on.
    pub(super) fn leaving(&self) -> Option<Left> {
        let request = self.made_for.as_ref()?;
        is_safe(&self.parts.method).then(|| request.leaving())
    }

    /// Waits before the next attempt, no longer than somebody waits for what it is made for.
    pub(super) async fn pause(&self, wait: Duration, upload: &Upload) {
        if wait.is_zero() {
            return;
        }
        let left = Ends::new(None, None, upload, self.leaving());
        // Whoever has left is noticed before the next attempt.
        let _ = deadline::until(left, pin!(sleep(wait))).await;
    }

    /// What it is made for is tried again already.
    pub(super) fn is_for_retry(&self) -> bool {
        let request = self.made_for.as_ref();
        request.is_some_and(|request| request.inherited().retry)
    }

    /// Notes whether its last attempt until now is a failure of what it is made for.
    pub(super) fn note_spent(&self, spent: bool) {
        self.spent.store(spent, Relaxed);
    }

    /// What was noted last.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Relaxed)
    }

    /// The call has come to its end as it was noted.
    pub(super) fn settle(&self, proxy: &Proxy) {
        if self.is_spent()
            && let Some(asker) = self.asker()
        {
            proxy.contexts.spend(&asker);
        }
    }

    /// Who learns that it failed.
    pub(super) fn asker(&self) -> Option<Asker> {
        Asker::of(self.made_for.as_ref(), &self.parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_raise_a_class_says_nothing() {
        use Priority::{Critical, Normal, Sheddable};
        for (said, class) in [
            (None, None),
            (Some(Critical), None),
            (Some(Normal), Some(Normal)),
            (Some(Sheddable), Some(Sheddable)),
        ] {
            assert_eq!(priority(said, None), class);
        }
    }
}
