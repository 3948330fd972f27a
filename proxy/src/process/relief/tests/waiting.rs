//! Which requests wait for memory while others hold it, which are refused in the end, and which
//! are cut off for which.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;
use crate::net::admission::AdmissionClass;
use crate::net::ticket::{WAIT, admit};

/// What a request in flight over HTTP/1.1 takes, and what of it is known to be its
/// connection's.
const TAKES: usize = 40 * 1024;
const KNOWN: usize = 16 * 1024;
/// It takes that so long after it began.
const SET_UP: Duration = Duration::from_millis(2);
/// In percent: nothing is read any more.
const FULL: usize = LIMIT / 100 * 65;

/// How a request ended, and how long it waited before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Served(Duration),
    Refused,
    Cut,
}

/// Requests of some callers, and how those ended that did.
struct Calls {
    budget: Arc<Budget>,
    occupancy: Arc<Occupancy>,
    ended: JoinSet<Ended>,
    class: AdmissionClass,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct CallTotals {
    served: usize,
    refused: usize,
    cut: usize,
    /// The longest that one waited which was served.
    waited: Duration,
}

impl Calls {
    fn new(budget: &Arc<Budget>, occupancy: &Arc<Occupancy>) -> Self {
        Self {
            budget: Arc::clone(budget),
            occupancy: Arc::clone(occupancy),
            ended: JoinSet::new(),
            class: AdmissionClass::Callers,
        }
    }

    /// A request of caller `last` that takes so long, on a connection of its own.
    fn begin(&mut self, last: u8, takes: Duration) {
        self.in_a_row(last, 1, takes);
    }

    /// `many` in a row, each after the one before.
    fn in_a_row(&mut self, last: u8, many: usize, takes: Duration) {
        let (budget, occupancy) = (Arc::clone(&self.budget), Arc::clone(&self.occupancy));
        let of = (last, self.class);
        self.ended.spawn(async move {
            let mut longest = Duration::ZERO;
            for _ in 0..many {
                match request(&budget, &occupancy, of, takes).await {
                    Ended::Served(waited) => longest = longest.max(waited),
                    other => return other,
                }
            }
            Ended::Served(longest)
        });
    }

    /// Until all have ended.
    async fn outcome(mut self) -> CallTotals {
        let mut outcome = CallTotals::default();
        while let Some(ended) = self.ended.join_next().await {
            match ended.unwrap() {
                Ended::Served(waited) => {
                    outcome.served += 1;
                    outcome.waited = outcome.waited.max(waited);
                }
                Ended::Refused => outcome.refused += 1,
                Ended::Cut => outcome.cut += 1,
            }
        }
        outcome
    }
}

async fn request(
    budget: &Arc<Budget>,
    occupancy: &Arc<Occupancy>,
    (last, class): (u8, AdmissionClass),
    takes: Duration,
) -> Ended {
    let from = IpAddr::from([10, 0, 0, last]).into();
    let permit: Arc<Permit> = occupancy.try_admit(&from).unwrap().unwrap();
    permit.busy();
    let began = Instant::now();
    let reservation = match admit(budget, &permit, class) {
        Ok(reservation) => reservation,
        Err(ticket) => match ticket.admitted_by(None).await {
            Ok(reservation) => reservation,
            Err(_) => return Ended::Refused,
        },
    };
    let waited = began.elapsed();
    let mut promise = budget.promise(0);
    promise.begins();
    let _in_flight = permit.begin_request_by(reservation);
    let known = permit.reserve_bytes(KNOWN);
    let served = async {
        sleep(SET_UP).await;
        let _taken = hold(TAKES);
        sleep(takes).await;
    };
    permit.keep(served).await;
    drop((promise, known));
    if permit.cut().now_or_never().is_some() {
        return Ended::Cut;
    }
    Ended::Served(waited)
}

/// A caller that no other notices: a call every 10 ms, for so long; the slowest one.
async fn light_caller(budget: Arc<Budget>, occupancy: Arc<Occupancy>, lasts: Duration) -> Duration {
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < lasts {
        let of = (250, AdmissionClass::Callers);
        match request(&budget, &occupancy, of, Duration::from_millis(5)).await {
            Ended::Served(waited) => longest = longest.max(waited),
            other => panic!("{other:?} after {:?}", began.elapsed()),
        }
        sleep(Duration::from_millis(10)).await;
    }
    longest
}

/// Forgets what the test before in this thread left.
fn anew() -> (Arc<Budget>, Arc<Occupancy>, Metrics) {
    assert_eq!(USED.get(), 0);
    PEAK.set(0);
    setting()
}

const LONG: Duration = Duration::from_secs(300);

/// As many long polls as a caller may always have in flight, by one that has others to request as
/// well.
// Claims: attack-43
#[tokio::test(start_paused = true)]
async fn gateway_calls_proceed_beside_long_polls_within_memory() {
    for class in [AdmissionClass::Callers, AdmissionClass::Own] {
        for filled in [54, 56, 58, 60] {
            let (budget, occupancy, metrics) = anew();
            let mut polls = Calls::new(&budget, &occupancy);
            polls.class = class;
            for _ in 0..64 {
                polls.begin(1, LONG);
            }
            sleep(SET_UP * 2).await;
            let _rest = hold(LIMIT / 100 * filled - USED.get());
            sleep(Duration::from_secs(1)).await;
            let mut calls = Calls::new(&budget, &occupancy);
            calls.class = class;
            for _ in 0..20 {
                calls.in_a_row(1, 30, Duration::from_millis(20));
            }
            let beside = light_caller(Arc::clone(&budget), occupancy, Duration::from_secs(2));
            let (outcome, beside) = tokio::join!(calls.outcome(), beside);
            println!("{class:?} {filled} %: {outcome:?}, beside it {beside:?}");
            assert_eq!((outcome.served, outcome.refused), (20, 0), "{filled} %");
            assert_eq!(count(&metrics), 0);
            assert!(PEAK.get() <= FULL, "{}", PEAK.get());
            assert!(beside < Duration::from_millis(50), "{beside:?}");
            polls.ended.shutdown().await;
        }
    }
}

// Claims: attack-44
#[tokio::test(start_paused = true)]
async fn many_callers_with_few_requests_fit_memory_together() {
    let (budget, occupancy, metrics) = anew();
    let _program = hold(LIMIT / 10);
    let mut calls = Calls::new(&budget, &occupancy);
    for _ in 0..30 {
        (0..200).for_each(|caller| calls.begin(caller, Duration::from_millis(500)));
    }
    let beside = light_caller(Arc::clone(&budget), occupancy, Duration::from_secs(3));
    let (outcome, beside) = tokio::join!(calls.outcome(), beside);
    let peak = PEAK.get() * 100 / LIMIT;
    println!("{outcome:?}, {peak} % at most, beside them {beside:?}");
    assert!(PEAK.get() <= FULL, "{peak} %");
    assert_eq!((outcome.served, outcome.refused), (6000, 0));
    assert_eq!(count(&metrics), 0);
    assert!(beside < Duration::from_millis(300), "{beside:?}");
}

/// Another caller holds as many requests as it gets and sends more, while others download.
// Claims: attack-45
#[tokio::test(start_paused = true)]
async fn waiting_busy_caller_takes_no_downloads_from_others() {
    for callers in [1, 5, 15] {
        let (budget, occupancy, metrics) = anew();
        let _program = hold(LIMIT / 10);
        let mut downloads = Calls::new(&budget, &occupancy);
        for caller in (0..callers).cycle().take(1500) {
            downloads.begin(caller, Duration::from_secs(4));
        }
        sleep(Duration::from_secs(1)).await;
        let mut stranger = Calls::new(&budget, &occupancy);
        (0..300).for_each(|_| stranger.begin(200, LONG));
        let outcome = downloads.outcome().await;
        println!("{callers}: {outcome:?}");
        assert_eq!((outcome.served, outcome.cut), (1500, 0));
        assert_eq!(count(&metrics), 0);
        assert!(PEAK.get() <= FULL, "{}", PEAK.get());
        stranger.ended.shutdown().await;
    }
}

/// The same where the downloads do not come on: it gains no more than they lose.
// Claims: attack-45
#[tokio::test(start_paused = true)]
async fn waiting_caller_takes_no_more_than_it_needs() {
    let (budget, occupancy, metrics) = anew();
    let _program = hold(LIMIT / 10);
    let mut downloads = Calls::new(&budget, &occupancy);
    (0..1500).for_each(|_| downloads.begin(1, LONG));
    sleep(Duration::from_secs(1)).await;
    let mut stranger = Calls::new(&budget, &occupancy);
    (0..300).for_each(|_| stranger.begin(200, LONG));
    let of = |last: u8| {
        let from = IpAddr::from([10, 0, 0, last]).into();
        let permit = occupancy.try_admit(&from).unwrap().unwrap();
        permit.requests().unwrap().in_flight()
    };
    sleep(WAIT - Duration::from_secs(3)).await;
    let (lost, gained) = (count(&metrics) as usize, of(200));
    println!("{lost} lost, {gained} gained, {} left", of(1));
    assert!(lost <= gained, "{lost} for {gained}");
    assert!(gained > 100, "{gained}");
    downloads.ended.shutdown().await;
    stranger.ended.shutdown().await;
}

/// Begins so many requests of one caller that take long; returns how many of them were admitted
/// and not cut off.
async fn long_requests(budget: &Arc<Budget>, occupancy: &Arc<Occupancy>, many: usize) -> usize {
    let admitted = Arc::<AtomicUsize>::default();
    for _ in 0..many {
        let from = IpAddr::from([10, 0, 0, 2]).into();
        let permit: Arc<Permit> = occupancy.try_admit(&from).unwrap().unwrap();
        permit.busy();
        let (budget, admitted) = (Arc::clone(budget), Arc::clone(&admitted));
        tokio::spawn(async move {
            let reservation = match admit(&budget, &permit, AdmissionClass::Callers) {
                Ok(reservation) => reservation,
                Err(ticket) => match ticket.admitted_by(None).await {
                    Ok(reservation) => reservation,
                    Err(_) => return,
                },
            };
            let _held = (permit.reserve_bytes(16 * 1024), hold(40 * 1024));
            let _in_flight = permit.begin_request_by(reservation);
            admitted.fetch_add(1, Relaxed);
            permit.keep(sleep(Duration::from_secs(25))).await;
            admitted.fetch_sub(usize::from(permit.cut().now_or_never().is_some()), Relaxed);
        });
    }
    sleep(WAIT).await;
    admitted.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn caller_filling_memory_without_requests_delays_no_others() {
    for filled in [56, 58, 60, 62, 64] {
        let (budget, occupancy, metrics) = setting();
        let stranger = (0..filled).map(|_| enter(&occupancy, 1, LIMIT / 100));
        let stranger: Vec<_> = stranger.collect();
        let admitted = long_requests(&budget, &occupancy, 200).await;
        let lost = stranger.iter().filter(|task| task.is_finished()).count();
        println!("{filled} %: {admitted} of 200, the stranger lost {lost}");
        assert_eq!(admitted, 200, "{filled} %");
        assert_eq!(count(&metrics), lost as u64);
        assert!(lost > 0);
        stranger.iter().for_each(tokio::task::JoinHandle::abort);
        sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn caller_waiting_on_itself_takes_nothing_from_others() {
    let (budget, occupancy, metrics) = setting();
    let other = enter(&occupancy, 1, MIB);
    let _configuration = hold(34 * MIB);
    let admitted = long_requests(&budget, &occupancy, 400).await;
    assert!((64..400).contains(&admitted), "{admitted}");
    assert_eq!(count(&metrics), 0);
    assert!(!other.is_finished());
}

/// All that is reserved for their caller is taken by some of them.
#[tokio::test(start_paused = true)]
async fn calls_beside_endless_requests_proceed_within_eleven_seconds() {
    let (budget, occupancy, metrics) = setting();
    let _configuration = hold(LIMIT / 100 * 46);
    let from = IpAddr::from([10, 0, 0, 1]).into();
    let permit: Arc<Permit> = occupancy.try_admit(&from).unwrap().unwrap();
    let of_the_caller = permit.requests().unwrap();
    let mut endless = Calls::new(&budget, &occupancy);
    while of_the_caller.waiting() == 0 {
        endless.begin(1, Duration::MAX);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(of_the_caller.in_flight() > 100);
    for _ in 0..3 {
        let mut call = Calls::new(&budget, &occupancy);
        call.begin(1, Duration::from_millis(1));
        let outcome = call.outcome().await;
        assert_eq!((outcome.served, outcome.refused, outcome.cut), (1, 0, 0));
        assert!(outcome.waited <= Duration::from_secs(11), "{outcome:?}");
    }
    assert_eq!(count(&metrics), 0, "no holder lost anything");
    endless.ended.shutdown().await;
}
