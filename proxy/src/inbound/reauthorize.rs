//! Ends what is no longer allowed.
//!
//! Claims: attack-29

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::body;
use crate::inbound::connection::Connection;
use crate::inbound::path::JudgedPath;

/// A request in flight that a change no longer allows may go on for this long.
const IN_FLIGHT_GRACE: Duration = Duration::from_secs(30);

/// Parts of an answer that pass before anybody looks whether it may go on: most
/// answers have fewer, and need no watch.
const FREE_FRAMES: u32 = 32;

/// A call that a change has taken the right to go on away from.
pub(super) fn no_longer_allowed() -> Failure {
    Failure::refused(Reason::NotAllowed, "the call is no longer allowed")
}

/// What `work` comes to, if it does before it was `revoked` and may no longer go on.
pub(super) async fn unless_revoked<T>(
    work: impl Future<Output = T>,
    revoked: impl Future<Output = ()>,
) -> Option<T> {
    let over = async {
        revoked.await;
        tokio::time::sleep(IN_FLIGHT_GRACE).await;
    };
    tokio::select! {
        // An answer that came in time is one, however late that is seen.
        biased;
        done = work => Some(done),
        () = over => None,
    }
}

/// A request that was allowed.
#[derive(Debug)]
pub(crate) struct Allowed {
    pub(super) parts: http::request::Parts,
    /// By the policy of this revision.
    pub(super) as_of: u64,
    /// When it is over.
    pub(super) ends: Option<Instant>,
    /// Its caller's proxy may send it to another endpoint instead.
    pub(super) replaceable: bool,
}

/// An answer that ends early when its request is no longer allowed. The wait is
/// set up only when the body makes its reader wait, which most never do.
pub(crate) struct Revocable<B> {
    pub(super) inner: B,
    pub(super) connection: Arc<Connection>,
    pub(super) allowed: Option<Allowed>,
    pub(super) frames: u32,
    pub(super) over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B> http_body::Body for Revocable<B>
where
    B: http_body::Body<Data = bytes::Bytes, Error = body::BoxError> + Unpin,
{
    type Data = bytes::Bytes;
    type Error = body::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, body::BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        this.frames += 1;
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            this.connection.read_trailers(trailers);
        }
        if (polled.is_pending() || this.frames > FREE_FRAMES)
            && let Some(allowed) = this.allowed.take()
        {
            let connection = Arc::clone(&this.connection);
            this.over = Some(Box::pin(async move {
                connection.revoked_request(&allowed).await;
                tokio::time::sleep(IN_FLIGHT_GRACE).await;
            }));
        }
        let Some(over) = &mut this.over else {
            return polled;
        };
        if over.as_mut().poll(cx).is_pending() {
            return polled;
        }
        this.over = None;
        Poll::Ready(Some(Err(no_longer_allowed().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

impl Connection {
    /// Returns when this plaintext connection is no longer wanted. One that was never wanted
    /// stays, so that each of its requests gets the reason.
    pub(super) async fn plaintext_forbidden(&self) {
        let mut changes = self.proxy.config.policy_changes();
        let config = &self.proxy.config;
        if self.needs_identity(&config.snapshot()) {
            std::future::pending::<()>().await;
        }
        while !self.needs_identity(&config.snapshot()) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when a change of the policy after the revision `as_of` takes away what
    /// that allowed. It may have come while the way to the application was being opened.
    pub(super) async fn revoked(&self, as_of: u64) -> Failure {
        let config = &self.proxy.config;
        let mut changes = config.policy_changes_since(as_of);
        loop {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Err(failure) = self.refuses_bytes(&config.snapshot()) {
                return failure;
            }
        }
    }

    /// Returns when a request that was allowed would be refused by now. Rules that came
    /// since see the same form of its path as those that allowed it, and where its slashes can
    /// be read in several ways they have to let it pass as it was sent on.
    pub(super) async fn revoked_request(&self, allowed: &Allowed) {
        let (config, parts) = (&self.proxy.config, &allowed.parts);
        let mut changes = config.policy_changes_since(allowed.as_of);
        loop {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let path = JudgedPath::of(parts);
            let snapshot = config.snapshot();
            let passes = self
                .judge_request(&snapshot, parts, &path)
                .is_ok_and(|judged| {
                    let stays = judged.replaced.is_none() || !path.forms().has_odd_slashes();
                    judged.verdict.is_allowed() && stays
                });
            if !passes {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::{IN_FLIGHT_GRACE, unless_revoked};

    /// As where the process stood still: both are there when it is looked.
    #[tokio::test(start_paused = true)]
    async fn response_in_time_is_forwarded_even_if_noticed_late() {
        for _ in 0..64 {
            let done = unless_revoked(sleep(IN_FLIGHT_GRACE), ready(())).await;
            assert_eq!(done, Some(()));
        }
        let long = || sleep(IN_FLIGHT_GRACE * 2);
        assert_eq!(unless_revoked(long(), ready(())).await, None);
        assert_eq!(unless_revoked(long(), pending()).await, Some(()));
    }
}
