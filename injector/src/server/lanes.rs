//! Parses and evaluates reviews on two threads, one at a time on each, beside the thread of the
//! connections.
//!
//! There are two lanes with a thread each, because a large review may take as long as hundreds of
//! usual ones, and one that has started is not interrupted. In either lane addresses take turns by
//! the time that their reviews took. The memory of one review is bounded, so the process holds two
//! at most, however many a client sends.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use http::StatusCode;
use runtime::fair_queue::{FairQueue, Limits};
use runtime::limit::Reached;
use tokio::sync::oneshot;

use super::outcome::{ReviewOutcome, refused};
use crate::review;

/// What one review may take once it is read, in the lane for large ones. The largest
/// object that etcd takes, with its former state, has about 60 MiB.
pub(super) const MAX_COST: usize = 60 * 1024 * 1024;
/// What a review of the other lane takes at most, with the copies that are made of a pod.
const SMALL_COST: usize = 8 * 1024 * 1024;
/// Bytes of its body: one that is longer is not even looked at by the connections' thread.
const SMALL_BODY: usize = 256 * 1024;
/// Reviews that wait in one lane. An API server has 200 writes under way by default.
const WAITING: Limits = Limits {
    waiting: 1024,
    waiting_of_one: 256,
};

/// One lane for usual reviews, and one for large ones.
pub(super) struct Lanes {
    small: Lane,
    large: Lane,
}

impl Lanes {
    pub(super) fn new(limits: &Reached) -> Self {
        let lane = || Lane::new(FairQueue::new(WAITING, limits.counter("waiting")));
        Self {
            small: lane(),
            large: lane(),
        }
    }

    /// The lane for a body.
    pub(super) fn of(&self, body: &[u8]) -> &Lane {
        let copies = crate::mutate::COPIES;
        let small = body.len() <= SMALL_BODY && copies * review::cost(body).whole <= SMALL_COST;
        if small { &self.small } else { &self.large }
    }
}

/// A thread, and the calls that wait for it.
pub(super) struct Lane {
    queue: FairQueue<IpAddr>,
    jobs: mpsc::SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Lane {
    fn new(queue: FairQueue<IpAddr>) -> Self {
        let (jobs, taken) = mpsc::sync_channel::<Job>(1);
        thread::spawn(move || {
            for job in taken {
                // As a task would: a panic costs its own call and no other.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        });
        Self { queue, jobs }
    }

    /// Does `work` when it is the turn of `source`. What has started goes on to its end when this
    /// is dropped, and keeps its turn until then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        source: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Box<ReviewOutcome>> {
        let permit = self.queue.take(source).await.map_err(|_| {
            refused(
                StatusCode::TOO_MANY_REQUESTS,
                "waiting",
                "too many reviews of this address wait, try again",
            )
        })?;
        let (sender, done) = oneshot::channel();
        let job = move || {
            let began = Instant::now();
            let result = work();
            permit.end(began.elapsed());
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
