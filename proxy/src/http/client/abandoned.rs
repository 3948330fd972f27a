//! Requests that their callers gave up before an application answered.
//!
//! Over HTTP/1.1 each of them costs its connection, by which nothing else can be asked. The
//! application has to accept that one all the same, and until then it takes a place in its queue
//! of connections, which is short in many servers. Somebody who begins requests and resets them
//! a moment later, again and again, pays next to nothing for that, and would leave no place for
//! others. So what a caller gives up is counted, and beyond an allowance its next requests wait
//! before they are sent: whoever gives those up as well costs the application nothing.

use std::sync::Arc;
use std::time::Duration;

use runtime::rate::{Allowance, Rates};
use tokio::time::Instant;

/// What one caller may give up. Two hundred a second are more than callers with a time limit of
/// their own give up while an application is slow, and less than any server accepts.
const ALLOWANCE: Allowance = Allowance {
    burst: 100,
    every: Duration::from_millis(5),
};
/// No request waits longer: behind an application that hung for a while all of its calls were
/// given up, and it is to be reached again at once.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Callers that are told apart. The one that gave up least is forgotten first.
const CALLERS: usize = 1024;

/// What each caller has given up of late.
#[derive(Debug)]
pub(crate) struct AbandonedRequests(Rates<Arc<str>>);

impl Default for AbandonedRequests {
    fn default() -> Self {
        Self(Rates::new(ALLOWANCE, CALLERS))
    }
}

impl AbandonedRequests {
    /// How long the next request of `caller` has to wait, where it has to.
    pub(crate) fn wait(&self, caller: &Arc<str>) -> Option<Duration> {
        let wait = self.0.wait(caller, Instant::now());
        (!wait.is_zero()).then(|| wait.min(LONGEST_WAIT))
    }

    /// A request of `caller` goes to the application.
    pub(crate) const fn begin<'a>(&'a self, caller: &'a Arc<str>) -> AbandonGuard<'a> {
        AbandonGuard {
            abandoned: self,
            caller,
            ended: false,
        }
    }

    fn note(&self, caller: &Arc<str>) {
        let now = Instant::now();
        // What would make it wait for longer is not kept.
        if self.0.wait(caller, now) < LONGEST_WAIT {
            let _ = self.0.charge(caller, 1, now);
        }
    }
}

/// A request that an application has not answered. Dropped before it has ended, it was given up.
#[derive(Debug)]
pub(crate) struct AbandonGuard<'a> {
    abandoned: &'a AbandonedRequests,
    caller: &'a Arc<str>,
    ended: bool,
}

impl AbandonGuard<'_> {
    /// The head of its answer is there, or there will be none.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.abandoned.note(self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn named(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn give_up(abandoned: &AbandonedRequests, caller: &Arc<str>, many: u32) {
        (0..many).for_each(|_| drop(abandoned.begin(caller)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_more_than_its_allowance_waits_and_no_other_one_does() {
        let (caller, other) = (named("shop/web"), named("shop/cart"));
        let abandoned = AbandonedRequests::default();
        give_up(&abandoned, &caller, ALLOWANCE.burst - 1);
        assert_eq!(abandoned.wait(&caller), None);
        give_up(&abandoned, &caller, 1);
        assert_eq!(abandoned.wait(&caller), Some(ALLOWANCE.every));
        assert_eq!(abandoned.wait(&other), None);
        advance(ALLOWANCE.every).await;
        assert_eq!(abandoned.wait(&caller), None);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_end_count_for_nothing_however_many() {
        let (caller, abandoned) = (named("shop/web"), AbandonedRequests::default());
        for _ in 0..10 * ALLOWANCE.burst {
            abandoned.begin(&caller).end();
        }
        assert_eq!(abandoned.wait(&caller), None);
    }

    /// As all callers do of an application that hangs.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_whatever_was_given_up() {
        let (caller, abandoned) = (named("shop/web"), AbandonedRequests::default());
        give_up(&abandoned, &caller, 100_000);
        assert_eq!(abandoned.wait(&caller), Some(LONGEST_WAIT));
        advance(LONGEST_WAIT + ALLOWANCE.every).await;
        assert_eq!(abandoned.wait(&caller), None);
    }
}
