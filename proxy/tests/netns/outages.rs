//! Calls while one of three endpoints fails, with no policy object at all. docs/resilience.md and
//! bench/RESILIENCE.md promise the results; here the kernel drops, refuses and resets.
//!
//! A hundred GETs start in each second, whatever became of earlier ones, and readers wait at every
//! endpoint for an answer that does not come. The ends of these readers eject the endpoint:
//! ejection takes five failures in a row, and of short calls hardly one is in flight. Few later
//! calls fail there, because an endpoint that was unreachable once has so high a cost that it is
//! tried again only seconds later. Callers without waiting readers are in `lost_node.rs`.
//!
//! Claims: calls-3

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fleet::{Fleet, Served, Speaks};
use super::standstill::Standstills;
use crate::answers::sum;
use crate::support::{Pod, get_within, vip};

const EJECTIONS: &str = "weft_ejections_total";
const RESTING: &str = "weft_ejected_endpoints";

/// A call begins so often.
const EVERY: Duration = Duration::from_millis(10);
/// Enough answers for a comparison and enough savings for the retries.
const WARM: Duration = Duration::from_millis(1500);
/// Readers that begin to wait together.
const READERS: usize = 24;
/// So many wait at each endpoint at least: five failures make one rest, and one of them waits
/// by a connection of its own.
const WAIT_EACH: usize = 7;
/// Errors that the kernel reports at once are seen within this time.
const SOON: Duration = Duration::from_secs(3);
/// What is lost later than this after it was sent is not tried again: docs/resilience.md.
const TRIED_AGAIN: Duration = Duration::from_secs(1);
/// So often a machine may take longer than that to let an endpoint fall.
const FALLS: usize = 3;
/// Five seconds, a fifth more at most, and a moment for the probe. Calls follow it as soon.
const FIRST_REST: Duration = Duration::from_secs(8);
/// The same after a probe that failed: twice as long.
const SECOND_REST: Duration = Duration::from_secs(14);
/// Before that no silence is long enough to be noticed.
const SUSPECTED: Duration = Duration::from_secs(5);
/// A peer that is silent gets no calls from then on.
const LEFT_ALONE: Duration = Duration::from_secs(8);
/// What waited for such a peer has ended by then.
const ABANDONED_WITHIN: Duration = Duration::from_secs(13);
/// A call that meets an endpoint without a connection tries for one second to get one.
const SECOND_CHOICE: Duration = Duration::from_secs(2);
/// So many GETs, of two seconds, are enough to judge a share of them.
const EVALUATED: usize = 200;
/// They have started by then, also on a machine that stalls meanwhile.
const EVALUATED_WITHIN: Duration = Duration::from_secs(8);
/// What such a machine begins late and all at once is answered by then.
const CAUGHT_UP: Duration = Duration::from_secs(2);
/// Longer than any GET may take.
const PATIENCE: Duration = Duration::from_secs(16);

/// All packets in both directions are lost, without any notification.
pub(super) const LOSE_ALL: &str = "add table inet faults; \
    add chain inet faults input { type filter hook input priority 0; }; \
    add rule inet faults input iifname eth0 drop; \
    add chain inet faults output { type filter hook output priority 0; }; \
    add rule inet faults output oifname eth0 drop";
/// What is sent to the proxy is answered by a reset, by open connections too.
const RESET_ALL: &str = "add table inet faults; \
    add chain inet faults input { type filter hook input priority 0; }; \
    add rule inet faults input tcp dport 15108 reject with tcp reset";
const NO_FAULTS: &str = "delete table inet faults";

#[test]
fn three_healthy_endpoints_lose_nothing_without_ejection() {
    let mut outage = Outage::under_load("well");
    outage.each_takes_part();
    outage.begin_readers();
    sleep(Duration::from_secs(4));
    let client = &outage.fleet.client;
    assert_eq!(sum(client, EJECTIONS, &[]), 0.0, "{}", client.metrics());
    assert_eq!(sum(client, RESTING, &[]), 0.0);
    outage.no_call_is_lost();
}

#[test]
fn packet_dropping_endpoint_is_ejected_losing_only_inflight_calls() {
    let mut outage = Outage::begins("lost", |endpoint| endpoint.namespace.nft(LOSE_ALL));
    outage.rests_for("failures", ABANDONED_WITHIN);
    outage.bad().namespace.nft(NO_FAULTS);
    outage.others_take_all();
    outage.comes_back(FIRST_REST);
    outage.only_in_flight_is_lost();
}

#[test]
fn unplugged_endpoint_is_ejected_losing_only_inflight_calls() {
    let mut outage = Outage::begins("unplugged", |endpoint| endpoint.namespace.unplug());
    outage.rests_for("failures", ABANDONED_WITHIN);
    outage.bad().namespace.plug();
    outage.others_take_all();
    outage.comes_back(FIRST_REST);
    outage.only_in_flight_is_lost();
}

#[test]
fn endpoint_with_reset_connections_is_ejected_unnoticed_by_reads() {
    let mut outage = Outage::begins_at_once("reset", |endpoint| endpoint.namespace.nft(RESET_ALL));
    // What was under way is lost, and tried again elsewhere.
    outage.bad().namespace.nft(NO_FAULTS);
    outage.is_left_alone();
    outage.comes_back(FIRST_REST);
    outage.no_call_is_lost();
}

#[test]
fn endpoint_refusing_connections_is_ejected_unnoticed_by_reads() {
    let mut outage = Outage::begins_at_once("ended", Served::end);
    // Its probe is refused.
    outage.rests_for("unreachable", FIRST_REST);
    outage.bad().start();
    outage.is_left_alone();
    outage.comes_back(SECOND_REST);
    outage.no_call_is_lost();
}

#[test]
fn endpoint_resetting_new_connections_is_ejected_unnoticed_by_reads() {
    let mut outage = Outage::begins_at_once("taken", Served::reset_all);
    // Its probe is connected, and has no TLS.
    outage.rests_for("unreachable", FIRST_REST);
    outage.bad().start();
    outage.is_left_alone();
    outage.comes_back(SECOND_REST);
    outage.no_call_is_lost();
}

/// A call that is over.
#[derive(Clone, Copy, Debug)]
struct Ended {
    started: Instant,
    took: Duration,
    status: u16,
}

/// Calls of one kind.
#[derive(Default)]
struct Calls {
    started: AtomicUsize,
    ended: Mutex<Vec<Ended>>,
    stopped: AtomicBool,
}

impl Calls {
    async fn make(self: Arc<Self>, client: Arc<Pod>, path: &'static str, patience: Duration) {
        self.started.fetch_add(1, Relaxed);
        let started = Instant::now();
        let stream = client.call(vip()).await;
        let (status, _) = get_within(stream, path, "", patience).await;
        self.ended.lock().push(Ended {
            started,
            took: started.elapsed(),
            status,
        });
    }

    async fn make_steadily(self: Arc<Self>, client: Arc<Pod>) {
        let mut ticks = tokio::time::interval(EVERY);
        while !self.stopped.load(Relaxed) {
            ticks.tick().await;
            let get = Arc::clone(&self).make(Arc::clone(&client), "/", PATIENCE);
            tokio::spawn(get);
        }
    }
}

/// Three endpoints under load, of which one falls.
struct Outage {
    fleet: Fleet,
    gets: Arc<Calls>,
    readers: Arc<Calls>,
    bad: usize,
    /// Readers that wait there.
    in_flight: usize,
    since: Instant,
    /// Of the caller's thread.
    standstills: Arc<Standstills>,
}

impl Outage {
    /// All endpoints are healthy, and no reader waits.
    fn under_load(name: &str) -> Self {
        let fleet = Fleet::new(name, Speaks::Http1);
        let (gets, readers) = (Arc::<Calls>::default(), Arc::<Calls>::default());
        let standstills = Arc::<Standstills>::default();
        fleet.spawn(Arc::clone(&standstills).watch());
        fleet.spawn(Arc::clone(&gets).make_steadily(Arc::clone(&fleet.client)));
        sleep(WARM);
        Self {
            fleet,
            gets,
            readers,
            bad: 0,
            in_flight: 0,
            since: Instant::now(),
            standstills,
        }
    }

    /// Readers wait at each, and go on to wait for as long as the test goes on.
    fn begin_readers(&mut self) {
        let waiting = || self.fleet.endpoints.iter().map(Served::waiting);
        let mut started = 0;
        while waiting().any(|there| there < WAIT_EACH) {
            assert!(started < 10 * READERS, "no reader waits at one of them");
            started += READERS;
            for _ in 0..READERS {
                let client = Arc::clone(&self.fleet.client);
                let reads = Arc::clone(&self.readers).make(client, "/wait", 10 * PATIENCE);
                self.fleet.spawn(reads);
            }
            let all = || waiting().sum::<usize>() >= started;
            until("every reader waits", SOON, all);
        }
        // The least used endpoint gets most calls: without calls to it, its failure would not show.
        let least = waiting().enumerate().min_by_key(|(_, there)| *there);
        (self.bad, self.in_flight) = least.unwrap();
        self.since = Instant::now();
    }

    fn begins(name: &str, fall: impl FnOnce(&mut Served)) -> Self {
        let mut outage = Self::under_load(name);
        outage.begin_readers();
        fall(outage.bad());
        outage.since = Instant::now();
        outage
    }

    /// The readers that waited there eject it by their ends, before any of them waits so long that
    /// it is tried again. A machine that takes longer than that to eject it, or stalls meanwhile,
    /// starts over.
    fn begins_at_once(name: &str, fall: impl Fn(&mut Served)) -> Self {
        let fallen = (0..FALLS).find_map(|nth| {
            let outage = Self::begins(&format!("{name}{nth}"), &fall);
            // At least one of them reaches it, whichever endpoint single calls prefer: only a call
            // shows that the connections are gone.
            for _ in 0..READERS {
                let client = Arc::clone(&outage.fleet.client);
                let get = Arc::clone(&outage.gets).make(client, "/", PATIENCE);
                outage.fleet.spawn(get);
            }
            outage.rests_for("failures", SOON);
            // All that waited there has ended by then.
            sleep(Duration::from_millis(200));
            let readers = outage.readers.ended.lock().clone();
            let late = readers.iter().any(|reader| {
                let fell_after = outage.since.saturating_duration_since(reader.started);
                let stood = outage.standstills.within(reader.started, reader.took);
                reader.took > TRIED_AGAIN && fell_after + stood > TRIED_AGAIN / 2
            });
            (!late).then_some(outage)
        });
        fallen.expect("it falls within a second of the readers' beginning")
    }

    /// Each answers more than a tenth of the calls of two seconds. Not in every two seconds: an
    /// endpoint whose first response waited for a handshake gets no calls for a moment. And not
    /// while readers wait: they count as load, and an endpoint with one reader more than the others
    /// gets next to no calls.
    #[track_caller]
    fn each_takes_part(&self) {
        let request_count = || self.fleet.endpoints.iter().map(Served::request_count);
        until("each takes part", FIRST_REST, || {
            let before: Vec<usize> = request_count().collect();
            sleep(200 * EVERY);
            request_count()
                .zip(before)
                .all(|(now, before)| now - before > 20)
        });
    }

    /// The endpoint that fails.
    fn bad(&mut self) -> &mut Served {
        &mut self.fleet.endpoints[self.bad]
    }

    #[track_caller]
    fn rests_for(&self, cause: &str, within: Duration) {
        let (client, label) = (&self.fleet.client, format!("cause=\"{cause}\""));
        let label = ["service=\"shop/api\"", label.as_str()];
        until(cause, within, || sum(client, EJECTIONS, &label) == 1.0);
        assert_eq!(sum(client, RESTING, &[]), 1.0, "{}", client.metrics());
    }

    /// The others answer what three would, of all that begins from now on. With a third of it
    /// elsewhere it would stay at two of three.
    #[track_caller]
    fn others_take_all(&self) {
        let request_count = || {
            let all = self.fleet.endpoints.iter().enumerate();
            let others = all.filter(|(at, _)| *at != self.bad);
            others.map(|(_, one)| one.request_count()).sum::<usize>()
        };
        let (before, started) = (request_count(), self.gets.started.load(Relaxed));
        let made = || self.gets.started.load(Relaxed) - started;
        until("two hundred begin", EVALUATED_WITHIN, || {
            made() >= EVALUATED
        });
        until("the others take all", CAUGHT_UP, || {
            let taken = request_count() - before;
            4 * taken >= 3 * made()
        });
    }

    /// It works again, and stays ejected.
    #[track_caller]
    fn is_left_alone(&self) {
        let bad = &self.fleet.endpoints[self.bad];
        let before = bad.request_count();
        self.others_take_all();
        assert_eq!(bad.request_count(), before, "nothing, while it rests");
    }

    /// Its probe ends the rest, and calls follow.
    #[track_caller]
    fn comes_back(&self, within: Duration) {
        let bad = &self.fleet.endpoints[self.bad];
        let resting = || sum(&self.fleet.client, RESTING, &[]);
        until("its rest ends", within, || resting() == 0.0);
        let request_count = bad.request_count();
        until("it gets calls", FIRST_REST, || {
            bad.request_count() >= request_count + 3
        });
    }

    /// No more calls are made, and all but those of readers are over.
    fn gets(&self) -> Vec<Ended> {
        self.gets.stopped.store(true, Relaxed);
        let ended = || self.gets.ended.lock().len();
        until("every call ends", PATIENCE, || {
            ended() >= self.gets.started.load(Relaxed)
        });
        std::mem::take(&mut *self.gets.ended.lock())
    }

    fn no_call_is_lost(self) {
        let mut gets = self.gets();
        assert!(gets.len() > 200, "{}", gets.len());
        gets.retain(|get| get.status != 200);
        assert!(gets.is_empty(), "{gets:?}");
        let readers = self.readers.ended.lock();
        assert!(readers.is_empty(), "they wait: {readers:?}");
    }

    fn only_in_flight_is_lost(self) {
        let gets = self.gets();
        let readers = self.readers.ended.lock().clone();
        // One of them waits by a connection of its own, which may outlive the outage.
        let most = self.in_flight;
        assert!((most - 1..=most).contains(&readers.len()), "{readers:?}");
        let since = |call: &Ended| call.started.saturating_duration_since(self.since);
        let lost = |call: &&Ended| call.status != 200;
        for call in gets.iter().filter(lost).chain(&readers) {
            let over = since(call) + call.took;
            assert!(
                since(call) < LEFT_ALONE && over < ABANDONED_WITHIN,
                "{call:?}"
            );
        }
        let later = gets.iter().filter(|call| since(call) >= LEFT_ALONE);
        // The time that the caller's thread stalled is taken off, unless that was often: its proxy
        // has the same thread and must not block it.
        let passed = self.since.elapsed();
        let seldom = self.standstills.within(self.since, passed) < passed / 5;
        let waited = |call: &Ended| {
            let stood = self.standstills.within(call.started, call.took);
            let stood = if seldom { stood } else { Duration::ZERO };
            call.took.saturating_sub(stood)
        };
        let slow: Vec<&Ended> = later.filter(|call| waited(call) >= SECOND_CHOICE).collect();
        assert!(slow.is_empty(), "{slow:?}");
        // The failure is not detected yet. A third of these calls would be the endpoint's previous
        // share.
        let at_first = |call: &&Ended| call.started >= self.since && since(call) < SUSPECTED;
        let first: Vec<&Ended> = gets.iter().filter(at_first).collect();
        let gone = first.iter().filter(|call| call.status != 200).count();
        assert!(5 * gone < first.len(), "{gone} of {}", first.len());
    }
}

/// Polls until the condition holds.
#[track_caller]
pub(super) fn until(what: &str, within: Duration, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < within, "{what}: not within {within:?}");
        sleep(Duration::from_millis(20));
    }
}
