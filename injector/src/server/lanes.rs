//! Parses and evaluates reviews on two threads, one at a time on each, beside the thread of the
//! connections.
//!
//! There are two lanes with a thread each, because a large review, or one of patterns that are
//! compiled, may take as long as hundreds of usual ones, and one that has started is not
//! interrupted. In either lane addresses take turns: a review waits for one review of each other
//! address at most, and for those of its own. The memory of one review is bounded, so the process
//! holds two at most, however many a client sends.
//!
//! Turns by number, not by time: reviews of the quick lane take some milliseconds at most, and in
//! the other one none is urgent.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::thread;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use runtime::keyed_semaphore::KeyedSemaphore;
use runtime::limit::Reached;
use tokio::sync::oneshot;

use super::outcome::{ReviewOutcome, refused};
use crate::review;

/// What one review may take once it is read, in the lane for long ones. The largest
/// object that etcd takes, with its former state, has about 60 MiB.
pub(super) const MAX_COST: usize = 60 * 1024 * 1024;
/// What a review of the quick lane takes at most, with the copies that are made of a pod.
const SMALL_COST: usize = 8 * 1024 * 1024;
/// Bytes of its body: one that is longer is not even looked at by the connections' thread.
const SMALL_BODY: usize = 256 * 1024;
/// Reviews of one address that wait in one lane. An API server has 200 writes under way by default.
/// How many addresses there are is bounded by the connections.
const WAITING: usize = 256;

/// One lane for usual reviews, and one for those that may take long.
pub(super) struct Lanes {
    quick: Lane,
    long: Lane,
}

impl Lanes {
    pub(super) fn new(limits: &Reached) -> Self {
        let lane = || Lane::new(limits.counter("waiting"));
        Self {
            quick: lane(),
            long: lane(),
        }
    }

    /// The lane for a body. Validation compiles patterns, so what it takes does not show in its
    /// size.
    pub(super) fn of(&self, path: &str, body: &[u8]) -> &Lane {
        let copies = crate::mutate::COPIES;
        let quick = path != "validate"
            && body.len() <= SMALL_BODY
            && copies * review::cost(body).whole <= SMALL_COST;
        if quick { &self.quick } else { &self.long }
    }
}

/// A thread, and the calls that wait for it.
pub(super) struct Lane {
    /// One at a time, of one address and of all.
    turns: KeyedSemaphore<IpAddr>,
    /// Reviews that could not wait.
    full: Counter<u64, AtomicU64>,
    jobs: mpsc::SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Lane {
    fn new(full: Counter<u64, AtomicU64>) -> Self {
        let (jobs, taken) = mpsc::sync_channel::<Job>(1);
        thread::spawn(move || {
            for job in taken {
                // As a task would: a panic costs its own call and no other.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        });
        Self {
            turns: KeyedSemaphore::new(1, 1),
            full,
            jobs,
        }
    }

    /// Does `work` when it is the turn of `source`. What has started goes on to its end when this
    /// is dropped, and keeps its turn until then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        source: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Box<ReviewOutcome>> {
        // One of them is at work.
        if self.turns.callers_of(&source) > WAITING {
            self.full.inc();
            return Err(refused(
                StatusCode::TOO_MANY_REQUESTS,
                "waiting",
                "too many reviews of this address wait, try again",
            ));
        }
        let permit = self.turns.acquire(source).await;
        let (sender, done) = oneshot::channel();
        let job = move || {
            let result = work();
            drop(permit);
            let _ = sender.send(result);
        };
        // The permit makes this the only job, so nothing queues here.
        let _ = self.jobs.send(Box::new(job));
        done.await.map_err(|_| {
            refused(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the review could not be evaluated",
            )
        })
    }
}
