//! Short calls to a node that is lost, without long waits to it. docs/resilience.md promises how
//! many fail, by the second in which a user is still there.
//!
//! The readers in `outages.rs` hide one case: their ends eject the endpoint. Of short calls hardly
//! one is in flight at the failure, and fewer than five fail there, so the endpoint is not
//! ejected. Each time that its cost has decayed, a caller's next call to it would take a second to
//! find out.
//!
//! Claims: calls-4

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Retry, Timeouts};
use policy::traffic::set::{GrpcCode, GrpcCodes};

use super::fleet::{Fleet, Served, Speaks};
use super::grpc::unary;
use super::outages::{LOSE_ALL, until};
use super::standstill::Standstills;
use crate::answers::{limited, policy_of};
use crate::support::{get_within, vip};

/// A call begins so often.
const EVERY: Duration = Duration::from_millis(20);
/// Each of three gets calls by then, also where its first answer waited for a handshake.
const SETTLED: Duration = Duration::from_secs(16);
/// So long is looked: a call found out anew 16 s after the fall.
const WATCHED: Duration = Duration::from_secs(24);
/// Longer than any call may take.
const PATIENCE: Duration = Duration::from_secs(16);
/// A user leaves after a longer wait.
const GOOD_WITHIN: Duration = Duration::from_secs(1);
/// What waited for a lost peer has ended by then.
const ABANDONED_WITHIN: Duration = Duration::from_secs(13);

/// What is kept of a lost node.
#[derive(Clone, Copy, Debug)]
struct Promise {
    /// What begins so long after the fall is good.
    good_after: Duration,
    /// What a call takes that finds out anew, or nearly.
    finds_out: Duration,
}

/// With what there is without any object: a connection in vain takes a second.
const NODE_LOST: Promise = Promise {
    good_after: Duration::from_secs(8),
    finds_out: Duration::from_millis(800),
};
/// With attempts of 500 ms.
const BLACK_HOLE: Promise = Promise {
    good_after: Duration::from_secs(3),
    finds_out: Duration::from_millis(400),
};

#[test]
fn lost_idle_node_costs_gets_under_second_once_noticed() {
    let fleet = Fleet::new("quiet", Speaks::Http1);
    let calls = Arc::<Calls>::default();
    let client = Arc::clone(&fleet.client);
    let get = move || {
        let client = Arc::clone(&client);
        async move {
            let stream = client.call(vip()).await;
            get_within(stream, "/", "", PATIENCE).await.0 == 200
        }
    };
    fleet.spawn(Arc::clone(&calls).make_steadily(get));
    let lost = lose_one(fleet, &calls);
    lost.keeps(NODE_LOST);
    lost.is_over_by(ABANDONED_WITHIN);
}

#[test]
fn lost_idle_node_costs_grpc_under_second_once_noticed() {
    let (fleet, calls) = under_grpc("quietgrpc", Timeouts::DEFAULT);
    let lost = lose_one(fleet, &calls);
    lost.keeps(NODE_LOST);
    lost.is_over_by(ABANDONED_WITHIN);
}

#[test]
fn black_hole_spares_grpc_after_3s_with_500ms_attempts() {
    let attempts = Timeouts {
        backend_request: Some(Duration::from_millis(500)),
        ..Timeouts::DEFAULT
    };
    let (fleet, calls) = under_grpc("holegrpc", attempts);
    let lost = lose_one(fleet, &calls);
    let (bad, all) = (lost.bad(BLACK_HOLE).count(), lost.calls.len());
    assert!(100 * bad <= all, "{bad} of {all}");
    lost.keeps(BLACK_HOLE);
}

/// Calls of gRPC on one connection of their caller, which may be sent again where a server
/// was not available.
fn under_grpc(name: &str, timeouts: Timeouts) -> (Fleet, Arc<Calls>) {
    let fleet = Fleet::new(name, Speaks::Grpc);
    let retry = Retry {
        grpc_codes: GrpcCodes::of(&[GrpcCode::Unavailable]),
        ..Retry::DEFAULT
    };
    fleet.client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(retry),
        timeouts: limited(timeouts),
        ..EffectivePolicy::default()
    })]);
    let calls = Arc::<Calls>::default();
    let (client, made) = (Arc::clone(&fleet.client), Arc::clone(&calls));
    fleet.spawn(async move {
        let stream = TokioIo::new(client.call(vip()).await);
        let (sender, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        made.make_steadily(move || unary(sender.clone())).await;
    });
    (fleet, calls)
}

/// A call that is over.
#[derive(Clone, Copy, Debug)]
struct Ended {
    started: Instant,
    took: Duration,
    good: bool,
}

#[derive(Default)]
struct Calls {
    started: AtomicUsize,
    ended: Mutex<Vec<Ended>>,
    stopped: AtomicBool,
}

impl Calls {
    async fn make(self: Arc<Self>, call: impl Future<Output = bool>) {
        let started = Instant::now();
        let good = call.await;
        self.ended.lock().push(Ended {
            started,
            took: started.elapsed(),
            good,
        });
    }

    /// One after the other, whatever becomes of those before.
    async fn make_steadily<F>(self: Arc<Self>, call: impl Fn() -> F)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let mut ticks = tokio::time::interval(EVERY);
        while !self.stopped.load(Relaxed) {
            ticks.tick().await;
            self.started.fetch_add(1, Relaxed);
            tokio::spawn(Arc::clone(&self).make(call()));
        }
    }

    /// No more are made, and all are over.
    fn all(&self) -> Vec<Ended> {
        self.stopped.store(true, Relaxed);
        // One may be about to begin.
        sleep(5 * EVERY);
        until("every call ends", PATIENCE, || {
            self.ended.lock().len() >= self.started.load(Relaxed)
        });
        std::mem::take(&mut *self.ended.lock())
    }
}

/// Of two seconds, how many calls each endpoint gets.
fn shares(fleet: &Fleet) -> Vec<usize> {
    let request_counts = || fleet.endpoints.iter().map(Served::request_count);
    let before: Vec<usize> = request_counts().collect();
    sleep(100 * EVERY);
    request_counts()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect()
}

/// All endpoints are healthy for a while; then the endpoint with the most calls loses all its
/// packets, without any notification.
#[track_caller]
fn lose_one(fleet: Fleet, calls: &Calls) -> Lost {
    let standstills = Arc::<Standstills>::default();
    fleet.spawn(Arc::clone(&standstills).watch());
    until("each gets calls", SETTLED, || {
        shares(&fleet).iter().all(|got| *got > 10)
    });
    let got = shares(&fleet);
    let bad = (0..got.len()).max_by_key(|at| got[*at]).unwrap();
    fleet.endpoints[bad].namespace.nft(LOSE_ALL);
    let since = Instant::now();
    sleep(WATCHED);
    let mut calls = calls.all();
    calls.retain(|call| call.started >= since);
    calls.sort_by_key(|call| call.started);
    // It is taken off what calls waited, and a proxy that blocks the thread must be seen.
    let stood = standstills.within(since, since.elapsed());
    let control = "control: the caller's thread stood still";
    assert!(stood < WATCHED / 10, "{control} for {stood:?}");
    Lost {
        calls,
        since,
        standstills,
        _fleet: fleet,
    }
}

/// What came of the calls that began after the fall.
struct Lost {
    calls: Vec<Ended>,
    since: Instant,
    /// Of the caller's thread.
    standstills: Arc<Standstills>,
    _fleet: Fleet,
}

impl Lost {
    /// Those that failed, or waited for the lost endpoint, with when they began.
    fn bad(&self, promise: Promise) -> impl Iterator<Item = (Duration, Ended)> {
        let numbers = 0..self.calls.len();
        let bad = numbers.filter(move |at| self.is_bad(*at, promise));
        bad.map(move |at| (self.calls[at].started - self.since, self.calls[at]))
    }

    /// A busy machine delays calls as well, and then those that start right after: their duration
    /// is taken off. A stalled machine delays only those in flight: the time that the caller's
    /// thread stalled meanwhile is taken off instead, where it is longer.
    fn is_bad(&self, at: usize, promise: Promise) -> bool {
        let call = self.calls[at];
        let next = self.calls[at + 1..].iter().take(3);
        let busy = next.map(|next| next.took).min().unwrap_or_default();
        let stood = self.standstills.within(call.started, call.took);
        let waited = call.took.saturating_sub(busy.max(stood)) >= promise.finds_out;
        waited || (!call.good && call.took < promise.finds_out)
    }

    /// What began late enough is good.
    #[track_caller]
    fn keeps(&self, promise: Promise) {
        let not_good = |call: &Ended| !call.good || call.took >= GOOD_WITHIN;
        let control = "control: the first calls to the endpoint are lost";
        assert!(self.calls.iter().any(not_good), "{control}");
        let late = |(started, _): &(Duration, Ended)| *started >= promise.good_after;
        let late: Vec<_> = self.bad(promise).filter(late).collect();
        assert!(late.is_empty(), "{late:?}");
    }

    /// What waited for the lost node, and what failed, is over by then.
    #[track_caller]
    fn is_over_by(&self, then: Duration) {
        let failed = self.calls.iter().filter(|call| !call.good);
        let failed = failed.map(|call| (call.started - self.since, *call));
        let over = |(started, call): (Duration, Ended)| started + call.took;
        let longest = self.bad(NODE_LOST).chain(failed).map(over).max();
        assert!(longest < Some(then), "{longest:?}");
    }
}
