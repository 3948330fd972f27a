//! Tracks how long lists and watches of one kind have been failing: for the log, a metric, and
//! `/ready`.
//!
//! A watch that works sends nothing while nothing changes, and the watcher does not report that it
//! has opened one. So an outage ends with a change that a watch sends, or when no error has come
//! for longer than two tries lie apart. Lists alone do not end it: a watch that is answered with
//! 410 each time has one before each try.

use std::{error::Error, sync::Arc, time::Duration};

use kube::{core::Status, runtime::watcher};
use parking_lot::Mutex;
use runtime::ready::Ready;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::metrics::WorldMetrics;

/// No error for so long ends an outage. The watcher waits for a minute at most before it
/// tries again, and a call takes half a minute at most.
const QUIET: Duration = Duration::from_secs(120);
/// A shorter outage is not logged: an API server that restarts, a connection that is cut.
const FIRST_LINE: Duration = Duration::from_secs(60);
/// The next line comes when the outage has lasted twice as long as at the one before, or
/// after this.
const LINES_APART: Duration = Duration::from_secs(60 * 60);
/// Characters of a reason: what answers in place of the API server may send a whole page.
const LONGEST_REASON: usize = 300;
/// What `/ready` says beside its answer.
const NOTE: &str = "lists or watches of the API server keep failing, so the configuration of proxies \
                    may be out of date; the log names the kinds and the way out";

/// The outages of all kinds. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Outages {
    pub(super) metrics: WorldMetrics,
    ready: Ready,
    /// Kinds whose outages have been logged and are not over.
    logged: Arc<Mutex<usize>>,
}

impl Outages {
    pub(super) fn new(metrics: WorldMetrics, ready: Ready) -> Self {
        Self {
            metrics,
            ready,
            logged: Arc::default(),
        }
    }

    /// Of one kind, of which nothing has failed yet.
    pub(super) fn of<'a>(&'a self, kind: &'a str) -> Outage<'a> {
        self.metrics.set_failing(kind, Duration::ZERO);
        Outage {
            kind,
            all: self,
            failing: None,
        }
    }

    /// One more kind. The process stays ready: proxies are better served with what is known
    /// than not at all, and mostly all replicas are cut off alike.
    fn note_failing(&self) {
        let mut logged = self.logged.lock();
        *logged += 1;
        self.ready.note(Some(NOTE));
    }

    fn ended(&self) {
        let mut logged = self.logged.lock();
        *logged = logged.saturating_sub(1);
        if *logged == 0 {
            self.ready.note(None);
        }
    }
}

/// Whether one kind can be listed and watched.
#[derive(Debug)]
pub(super) struct Outage<'a> {
    kind: &'a str,
    all: &'a Outages,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    /// How long it has lasted when it is logged next.
    next_line: Duration,
    logged: bool,
}

impl Outage<'_> {
    /// A list or a watch has failed. `listed`: there was a whole list before.
    pub(super) fn failed(&mut self, error: &watcher::Error, listed: bool) {
        let now = Instant::now();
        let failing = self.failing.get_or_insert(Failing {
            since: now,
            last: now,
            // Before the first list no proxy is served, so the log has the error at once.
            next_line: if listed { FIRST_LINE } else { Duration::ZERO },
            logged: false,
        });
        failing.last = now;
        let lasts = now.duration_since(failing.since);
        self.all.metrics.set_failing(self.kind, lasts);
        if lasts < failing.next_line {
            return;
        }
        failing.next_line = lasts + lasts.clamp(FIRST_LINE, LINES_APART);
        if !std::mem::replace(&mut failing.logged, true) {
            self.all.note_failing();
        }
        let (kind, seconds) = (self.kind, lasts.as_secs());
        let (reason, way_out) = (reason(error), way_out(error));
        if listed {
            warn!(
                kind,
                seconds,
                reason,
                way_out,
                "lists or watches keep failing; what is known of this kind stays in force and may be out of date"
            );
        } else {
            warn!(
                kind,
                seconds, reason, way_out, "this kind cannot be listed; not ready until it can"
            );
        }
    }

    /// Returns when an outage has ended because nothing fails any more.
    pub(super) async fn end_when_quiet(&mut self) {
        match &self.failing {
            Some(failing) => sleep_until(failing.last + QUIET).await,
            None => std::future::pending().await,
        }
        self.over();
    }

    /// The API server has answered for this kind as it should.
    pub(super) fn over(&mut self) {
        let Some(failing) = self.failing.take() else {
            return;
        };
        self.all.metrics.set_failing(self.kind, Duration::ZERO);
        if failing.logged {
            self.all.ended();
            let (kind, seconds) = (self.kind, failing.since.elapsed().as_secs());
            info!(kind, seconds, "the API server answers for this kind again");
        }
    }
}

/// What the API server answered, where it did.
fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn reason(error: &watcher::Error) -> String {
    let reason = match status(error) {
        Some(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        None => with_cause(error),
    };
    reason.chars().take(LONGEST_REASON).collect()
}

/// An error with its innermost cause, which alone says that a connection was refused.
fn with_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let (text, cause) = (error.to_string(), innermost.to_string());
    if text.contains(&cause) {
        text
    } else {
        format!("{text}: {cause}")
    }
}

/// What an operator can do.
fn way_out(error: &watcher::Error) -> &'static str {
    match status(error).map(|status| status.code) {
        Some(401) => {
            "the API server does not accept the token of ServiceAccount weft-controller: restart this pod"
        }
        Some(403) => {
            "ServiceAccount weft-controller may not list and watch it: helm upgrade restores ClusterRole weft-controller"
        }
        Some(410) => {
            "the API server no longer has the changes since the last list: if that goes on, restart this pod, which lists anew"
        }
        Some(_) => "look at the log of the API server",
        None => {
            "see that the API server runs, and that no NetworkPolicy or proxy keeps this pod from it"
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::testing::warnings::Warnings;

    const SECOND: Duration = Duration::from_secs(1);

    fn answered(code: u16, reason: &str, message: &str) -> watcher::Error {
        let status = Status::failure(message, reason).with_code(code);
        watcher::Error::WatchStartFailed(kube::Error::Api(status.boxed()))
    }

    /// Seconds of an outage of ten minutes in which there is a line.
    async fn lines(outage: &mut Outage<'_>, listed: bool) -> Vec<usize> {
        let (warnings, _counting) = Warnings::counted();
        let mut lines = Vec::new();
        for second in 0..600 {
            outage.failed(&answered(403, "Forbidden", "no"), listed);
            if warnings.count() > lines.len() {
                lines.push(second);
            }
            advance(SECOND).await;
        }
        lines
    }

    // Claims: attack-88
    #[tokio::test(start_paused = true)]
    async fn outage_is_logged_after_minute_then_less_often() {
        let outages = Outages::new(WorldMetrics::default(), Ready::new());
        let mut outage = outages.of("Pod");
        assert_eq!(lines(&mut outage, true).await, [60, 120, 240, 480]);
        outage.over();
        let first = lines(&mut outage, false).await;
        assert_eq!(first, [0, 60, 120, 240, 480], "before the first list");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_is_measured_and_not_logged() {
        let (warnings, _counting) = Warnings::counted();
        let (metrics, ready) = (WorldMetrics::default(), Ready::new());
        let outages = Outages::new(metrics.clone(), ready.clone());
        let mut outage = outages.of("Pod");
        outage.failed(&answered(500, "InternalError", "no"), true);
        advance(30 * SECOND).await;
        outage.failed(&answered(500, "InternalError", "no"), true);
        assert_eq!(metrics.failing_seconds("Pod"), 30);
        let begin = Instant::now();
        outage.end_when_quiet().await;
        assert_eq!(begin.elapsed(), QUIET);
        assert_eq!(metrics.failing_seconds("Pod"), 0);
        assert_eq!((warnings.count(), ready.noted()), (0, None));
    }

    // Claims: attack-88
    #[tokio::test(start_paused = true)]
    async fn readiness_keeps_note_until_all_kinds_recover() {
        let ready = Ready::new();
        let outages = Outages::new(WorldMetrics::default(), ready.clone());
        let (mut pods, mut services) = (outages.of("Pod"), outages.of("Service"));
        for outage in [&mut pods, &mut services] {
            lines(outage, true).await;
        }
        assert!(ready.is_ready());
        assert_eq!(ready.noted(), Some(NOTE));
        pods.over();
        pods.over();
        assert_eq!(ready.noted(), Some(NOTE), "Services are as before");
        services.over();
        assert_eq!(ready.noted(), None);
    }

    // Claims: attack-88
    #[test]
    fn outage_log_quotes_api_server_and_suggests_remedy() {
        let forbidden = answered(403, "Forbidden", "pods is forbidden");
        assert_eq!(reason(&forbidden), "403 Forbidden: pods is forbidden");
        assert!(way_out(&forbidden).contains("ClusterRole"));
        let expired = Status::failure("too old resource version", "Expired").with_code(410);
        let expired = watcher::Error::WatchError(expired.boxed());
        assert_eq!(reason(&expired), "410 Expired: too old resource version");
        assert!(way_out(&expired).contains("restart"));
        let page = answered(503, "ServiceUnavailable", &"<p>".repeat(1_000));
        assert_eq!(reason(&page).len(), LONGEST_REASON);

        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = watcher::Error::WatchFailed(kube::Error::Service(refused.into()));
        let message = reason(&refused);
        assert!(message.contains("connection refused"), "{message}");
        assert!(way_out(&refused).contains("NetworkPolicy"));
    }
}
