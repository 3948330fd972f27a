//! An attempt to open a connection, which may outlive the call that started it.
//!
//! A caller over HTTP/2 can reset its requests again and again. If each attempt ended with its
//! call, each would leave a dead connection in the queue of the server. So an attempt is kept when
//! its call is cancelled in its first moments, and the next call uses it: many short calls share
//! one attempt, as long ones do.
//!
//! An attempt is not kept when its call has waited for longer: its server may hang, and gets a new
//! attempt.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::http2::client::RequestSender;

/// Opens one connection of HTTP/2, for all that share its streams.
pub(super) type Connect =
    dyn Fn() -> BoxFuture<'static, Result<RequestSender, Failure>> + Send + Sync;

/// An attempt is kept when its call leaves after less than this.
const LEFT_SOON: Duration = Duration::from_millis(100);
/// For how long after its start: its server may end a connection that is silent.
const RESTS_FOR: Duration = Duration::from_secs(1);

struct Attempt {
    began: Instant,
    outcome: BoxFuture<'static, Result<RequestSender, Failure>>,
}

/// Attempts at one server, held by the connecting callers.
#[derive(Default)]
pub(super) struct Attempts {
    /// How many have ended.
    pub(super) ended: u64,
    /// How the last one failed, if it did.
    pub(super) failed: Option<Failure>,
    under_way: Option<Attempt>,
}

impl Attempts {
    /// Goes on with the kept attempt, or starts one by `connect`.
    ///
    /// # Errors
    /// When no connection comes of it.
    pub(super) async fn go_on(&mut self, connect: &Connect) -> Result<RequestSender, Failure> {
        self.forget_old();
        let caller = WaitingCaller {
            attempts: self,
            since: Instant::now(),
        };
        let under_way = &mut caller.attempts.under_way;
        let attempt = under_way.get_or_insert_with(|| Attempt {
            began: caller.since,
            outcome: connect(),
        });
        let outcome = attempt.outcome.as_mut().await;
        *under_way = None;
        outcome
    }

    /// Ends an attempt that no caller has gone on with in time.
    pub(super) fn forget_old(&mut self) {
        let under_way = self.under_way.as_ref();
        if under_way.is_some_and(|attempt| attempt.began.elapsed() >= RESTS_FOR) {
            self.under_way = None;
        }
    }
}

/// A caller that waits for the attempt under way, until it leaves or has its outcome.
struct WaitingCaller<'a> {
    attempts: &'a mut Attempts,
    since: Instant,
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        if self.since.elapsed() >= LEFT_SOON {
            self.attempts.under_way = None;
        }
    }
}
