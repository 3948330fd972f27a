//! Finds out from hyper when an HTTP/1.1 connection waits for the head of its next request.
//!
//! hyper does not report when a request's body has been read to its end. But it starts the timer of
//! the head exactly when it begins to wait for one, and by then the remaining exchange before has
//! been read and written. The timer itself never ends here: it would count the idle time between
//! two requests as part of the head.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1::Builder;

/// Calls its function each time hyper begins to wait for a head.
#[derive(Clone, Debug)]
struct HeadTimer<F>(F);

/// Makes connections of `builder` call `waits` each time they begin to wait for
/// a head. None of them has a time limit for one any more.
pub fn watch_heads<F>(builder: &mut Builder, waits: F)
where
    F: Fn() + Send + Sync + 'static,
{
    builder.timer(HeadTimer(waits)).header_read_timeout(A_YEAR);
}

/// Long enough to never matter, short enough to be added to any instant.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sleep for Never {}

impl<F: Fn()> Timer for HeadTimer<F> {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        (self.0)();
        Box::pin(Never)
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(Duration::ZERO)
    }
}
