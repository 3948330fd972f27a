//! What a call of the application is made for, and what it takes over of that.

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use policy::deadline::DeadlineSource;
use policy::traffic::guard::Priority;
use policy::traffic::set::is_safe;
use tokio::time::sleep;

use crate::failure::Failure;
use crate::http::context::{Asker, Contexts, ParentRequest, ServedRequest};
use crate::http::deadline::{self, Left, StopConditions};
use crate::http::received::Received;
use crate::http::upload::Upload;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::labels::ContextLabels;

/// What a call is made for, from its headers.
pub(super) fn of_call(proxy: &Proxy, received: &Received) -> ParentRequest {
    let (named, map) = (received.context, &received.parts.headers);
    let made_for = proxy.contexts.of_call(named, map);
    if let Some(how) = made_for.how() {
        let metrics = &proxy.telemetry.metrics;
        metrics.contexts.at(&ContextLabels { how }).inc();
    }
    made_for
}

/// The class that a call may have at most. A raise is ignored.
pub(super) fn priority(
    configured: Option<Priority>,
    made_for: Option<&ServedRequest>,
) -> Option<Priority> {
    let inherited = made_for.and_then(|request| request.inherited().priority);
    let inherited = inherited.filter(|class| *class == Priority::Sheddable);
    let configured = configured.filter(|class| *class != Priority::Critical);
    inherited.or(configured)
}

impl Outgoing {
    /// # Errors
    /// When no time is left for it, or no caller waits any more for what it is made for.
    pub(super) fn check(&self) -> Result<(), Failure> {
        deadline::check(self.deadline)?;
        if self.is_left() {
            return Err(deadline::left());
        }
        Ok(())
    }

    /// Whether no caller waits any more for what it is made for.
    pub(super) fn is_left(&self) -> bool {
        let request = self.made_for.as_ref();
        request.is_some_and(|request| request.has_left())
    }

    /// What ends it under way when no caller waits any more for what it is made for. What may be
    /// half done goes on.
    pub(super) fn leaving(&self) -> Option<Left> {
        let request = self.made_for.as_ref()?;
        is_safe(&self.parts.method).then(|| request.leaving())
    }

    /// Waits before the next attempt, no longer than a caller waits for what it is made for.
    pub(super) async fn pause(&self, wait: Duration, upload: &Upload) {
        if wait.is_zero() {
            return;
        }
        let left = StopConditions::new(None, None, upload, self.leaving());
        // A caller that has left is noticed before the next attempt.
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

    /// The request to report its failure to.
    pub(super) fn asker(&self) -> Option<Asker> {
        Asker::of(self.made_for.as_ref(), &self.parts.headers)
    }
}

/// A call without an end. Dropped before that is over, its caller has left: at the end of the
/// call's own time that is the failure that this proxy would have reported a moment later.
pub(super) struct CancelGuard<'a> {
    contexts: &'a Contexts,
    outgoing: &'a Outgoing,
    over: bool,
}

impl<'a> CancelGuard<'a> {
    pub(super) const fn new(contexts: &'a Contexts, outgoing: &'a Outgoing) -> Self {
        Self {
            contexts,
            outgoing,
            over: false,
        }
    }

    /// The call has come to this.
    pub(super) fn over<T>(mut self, sent: T) -> T {
        self.over = true;
        sent
    }
}

impl Drop for CancelGuard<'_> {
    fn drop(&mut self) {
        if self.over || deadline::reached(self.outgoing.deadline) != Some(DeadlineSource::Own) {
            return;
        }
        if let Some(asker) = self.outgoing.asker() {
            self.contexts.spend(&asker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::{HeaderMap, HeaderName, HeaderValue, Request};
    use policy::deadline::{Deadline, RequestedTimeout};
    use tokio::time::advance;

    use super::*;
    use crate::http::body::empty;
    use crate::http::context::OpenRequest;
    use crate::http::replay::Replay;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn outgoing(deadline: Deadline, map: &HeaderMap) -> Outgoing {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers = map.clone();
        let called = SocketAddr::from(([10, 0, 0, 1], 80));
        Outgoing {
            grpc: true,
            deadline,
            ..Outgoing::by_itself(parts, Replay::new(empty()), called)
        }
    }

    /// Whether a call with so many milliseconds of its own, and of what it is made for, marks
    /// that when its caller leaves after `after`, or it has come to an end before.
    async fn marks(own: Option<u64>, rest: Option<u64>, after: u64, over: bool) -> bool {
        let name = HeaderName::from_static("traceparent");
        let map = HeaderMap::from_iter([(name, HeaderValue::from_static(PARENT))]);
        let contexts = Contexts::default();
        let requested = RequestedTimeout {
            grpc: own.map(Duration::from_millis),
            rest: rest.map(Duration::from_millis),
            ..RequestedTimeout::default()
        };
        let call = outgoing(Deadline::arrived(deadline::now(), requested, None), &map);
        let unsettled = CancelGuard::new(&contexts, &call);
        advance(Duration::from_millis(after)).await;
        if over {
            unsettled.over(());
        } else {
            drop(unsettled);
        }
        contexts.is_spent(&OpenRequest::default(), &map)
    }

    // Claims: calls-46
    #[tokio::test(start_paused = true)]
    async fn call_abandoned_at_own_deadline_marks_parent_request() {
        let cases = [
            (Some(300), None, 300, false, true),
            // By a clock that began a moment earlier.
            (Some(300), None, 299, false, true),
            (Some(300), Some(200), 299, false, true),
            // For a reason of its own.
            (Some(300), None, 100, false, false),
            (None, None, 300, false, false),
            // No caller waits any more.
            (None, Some(300), 300, false, false),
            (Some(900), Some(300), 300, false, false),
            // Others report what it came to.
            (Some(300), None, 300, true, false),
        ];
        for (own, rest, after, over, marked) in cases {
            let marks = marks(own, rest, after, over).await;
            assert_eq!(marks, marked, "{own:?} {rest:?} after {after} ms, {over}");
        }
    }

    #[test]
    fn what_would_raise_a_class_says_nothing() {
        use Priority::{Critical, Normal, Sheddable};
        for (configured, class) in [
            (None, None),
            (Some(Critical), None),
            (Some(Normal), Some(Normal)),
            (Some(Sheddable), Some(Sheddable)),
        ] {
            assert_eq!(priority(configured, None), class);
        }
    }
}
