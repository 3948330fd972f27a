//! Which holder gets a permit of a listener, and which one loses one.
//!
//! Claims: attack-37, attack-69, calls-22, calls-60

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use tokio::time::sleep;

use super::eviction::{CLOSE_WITHIN, EVICTION_PAUSE};
use super::tracked::CONNECTION;
use super::*;

mod full;
mod keep;
mod proof;
mod reserved;
mod within;
mod yields;

/// True when `future` is ready at the first look.
fn now(future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut context).is_ready()
}

const BOUNDS: Bounds = Bounds {
    permits: 10,
    per_holder: usize::MAX,
    shared: true,
    head_within: Duration::from_secs(10),
    idle_within: Duration::from_secs(60),
};

type Counts = Arc<Mutex<HashMap<Reached, usize>>>;

fn occupancy(bounds: Bounds) -> (Arc<Occupancy>, Counts) {
    let counts = Counts::default();
    let counting = Arc::clone(&counts);
    let occupancy = Occupancy::new(bounds, move |reached| {
        *counting.lock().entry(reached).or_default() += 1;
    });
    (occupancy, counts)
}

fn count(counts: &Counts, reached: Reached) -> usize {
    counts.lock().get(&reached).copied().unwrap_or_default()
}

fn holder(last: u8) -> Holder {
    IpAddr::from([10, 0, 0, last]).into()
}

fn enter(occupancy: &Arc<Occupancy>, last: u8) -> Arc<Permit> {
    occupancy.try_admit(&holder(last)).unwrap().unwrap()
}

/// So many idle connections, a second between each two, the longest idle first.
async fn idle(occupancy: &Arc<Occupancy>, last: u8, many: usize) -> Vec<Arc<Permit>> {
    let mut permits = Vec::new();
    for _ in 0..many {
        let permit = enter(occupancy, last);
        permit.idle();
        permits.push(permit);
        sleep(Duration::from_secs(1)).await;
    }
    permits
}

fn wanted(permits: &[Arc<Permit>]) -> Vec<usize> {
    let all = permits.iter().enumerate();
    all.filter(|(_, permit)| now(permit.wanted()))
        .map(|(at, _)| at)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn who_has_more_takes_nothing_from_who_has_less() {
    let (occupancy, _) = occupancy(BOUNDS);
    let honest = idle(&occupancy, 1, 2).await;
    // Young heads of the same holder are spared, so only the honest one's could be taken.
    let flood: Vec<_> = (0..7).map(|_| enter(&occupancy, 2)).collect();
    flood.iter().for_each(|permit| permit.head_begins());
    let newcomer = occupancy.try_admit(&holder(2));
    assert!(matches!(newcomer, Err(TurnedAway)), "the flood's newcomer");
    assert_eq!(wanted(&honest), [0; 0]);
}

// Claims: B1
#[tokio::test(start_paused = true)]
async fn at_nine_tenths_newcomer_evicts_largest_holders_oldest_idle() {
    let (occupancy, counts) = occupancy(BOUNDS);
    let quiet = idle(&occupancy, 1, 2).await;
    let mut hoard = idle(&occupancy, 2, 6).await;
    // A request on the longest idle one makes it the youngest.
    hoard[0].busy();
    hoard[0].idle();
    let eighth = enter(&occupancy, 3);
    assert_eq!((wanted(&quiet), wanted(&hoard)), (vec![], vec![]));

    let _first = enter(&occupancy, 3);
    assert_eq!((wanted(&quiet), wanted(&hoard)), (vec![], vec![1]));
    // A connection that was asked to go does not count any more, though it is still there.
    drop(eighth);
    let _second = enter(&occupancy, 4);
    assert_eq!((wanted(&quiet), wanted(&hoard)), (vec![], vec![1]));
    // All permits are taken until the first of them is gone.
    assert!(occupancy.try_admit(&holder(5)).unwrap().is_none());
    assert_eq!((wanted(&quiet), wanted(&hoard)), (vec![], vec![1, 2]));
    hoard.remove(1);
    let _third = enter(&occupancy, 5);
    assert_eq!((wanted(&quiet), wanted(&hoard)), (vec![], vec![1]));
    assert_eq!(count(&counts, Reached::Hoarder), 2);
    hoard.clear();
    assert_eq!(occupancy.taken(), 5, "two quiet ones and three newcomers");
}

// Claims: B1
#[tokio::test(start_paused = true)]
async fn busy_connections_stay_but_last_tenth_remains_free() {
    let (occupancy, counts) = occupancy(BOUNDS);
    let hoard: Vec<_> = (0..9).map(|_| enter(&occupancy, 1)).collect();
    hoard[0].idle();
    hoard[0].busy();
    sleep(Duration::from_secs(3600)).await;
    let turned_away = occupancy.try_admit(&holder(1));
    assert!(matches!(turned_away, Err(TurnedAway)));
    assert_eq!(count(&counts, Reached::Hoarder), 1);
    let other = occupancy.try_admit(&holder(2)).unwrap();
    assert!(other.is_some());
    assert_eq!(wanted(&hoard), Vec::<usize>::new());
    assert!(!hoard.iter().any(|permit| now(permit.cut())));
    assert!(occupancy.try_admit(&holder(3)).unwrap().is_none(), "full");
}

#[tokio::test(start_paused = true)]
async fn two_busy_hoarders_leave_permits_for_first_connections() {
    let (occupancy, counts) = occupancy(Bounds {
        permits: 100,
        ..BOUNDS
    });
    let mut permits: Vec<_> = (0..90).map(|_| enter(&occupancy, 1)).collect();
    // Each of them gets a third of what is left, or so.
    for (last, gets) in [(1, 0), (2, 4), (3, 3)] {
        for _ in 0..gets {
            permits.push(enter(&occupancy, last));
        }
        let next = occupancy.try_admit(&holder(last));
        assert!(matches!(next, Err(TurnedAway)), "{last}");
    }
    assert_eq!(count(&counts, Reached::Hoarder), 3);
    for honest in 4..7 {
        permits.push(enter(&occupancy, honest));
    }
    assert_eq!(occupancy.taken(), 100);
    assert!(occupancy.try_admit(&holder(7)).unwrap().is_none(), "full");
    // A holder of some waits as well, where that takes nothing from others.
    assert!(occupancy.try_admit(&holder(2)).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn sole_holder_uses_every_permit_and_next_waits() {
    let bounds = Bounds {
        shared: false,
        ..BOUNDS
    };
    let (occupancy, counts) = occupancy(bounds);
    let mut all: Vec<_> = (0..10).map(|_| enter(&occupancy, 1)).collect();
    let next = Arc::clone(&occupancy);
    let next = tokio::spawn(async move { next.admit(holder(1)).await });
    sleep(Duration::from_secs(30)).await;
    assert!(!next.is_finished());
    all.pop();
    let admitted = timeout(Duration::from_millis(1), next).await;
    assert!(admitted.unwrap().unwrap().is_ok());
    assert_eq!(count(&counts, Reached::Full), 1);
}

/// A client of HTTP/2 need not answer to GOAWAY.
#[tokio::test(start_paused = true)]
async fn connection_ignoring_close_request_is_aborted_unless_busy() {
    let bounds = Bounds {
        permits: 20,
        ..BOUNDS
    };
    let (occupancy, _) = occupancy(bounds);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let mute = idle(&occupancy, 1, 18).await;
    let _newcomer = enter(&occupancy, 2);
    assert_eq!(wanted(&mute), [0]);
    // One that is in use when it is asked has its time afterwards.
    let in_use = &mute[1];
    let _another = enter(&occupancy, 3);
    assert_eq!(wanted(&mute), [0, 1]);
    in_use.busy();
    sleep(CLOSE_WITHIN * 9 / 10).await;
    assert!(!now(mute[0].cut()));
    sleep(CLOSE_WITHIN / 2).await;
    assert!(now(mute[0].cut()) && !now(in_use.cut()));
    assert!(!now(mute[2].cut()), "it was not asked");
    in_use.idle();
    sleep(CLOSE_WITHIN / 2).await;
    assert!(!now(in_use.cut()));
    sleep(CLOSE_WITHIN).await;
    assert!(now(in_use.cut()));
}

// Claims: B1
#[tokio::test(start_paused = true)]
async fn overdue_head_is_aborted_unlike_idle_connection() {
    let (occupancy, counts) = occupancy(BOUNDS);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let (slow, resting, in_use) = (
        enter(&occupancy, 1),
        enter(&occupancy, 1),
        enter(&occupancy, 1),
    );
    for permit in [&slow, &resting] {
        permit.idle();
    }
    sleep(Duration::from_secs(20)).await;
    slow.head_begins();
    // Complete at once, and answered for long.
    in_use.head_begins();
    in_use.busy();
    for _ in 0..9 {
        sleep(Duration::from_secs(1)).await;
        // One byte more is no new head.
        slow.head_begins();
        assert!(!now(slow.cut()));
    }
    assert!(!slow.head_is_overdue(BOUNDS.head_within));
    let cut = timeout(Duration::from_millis(2100), slow.cut()).await;
    assert!(cut.is_ok());
    assert!(slow.head_is_overdue(BOUNDS.head_within));
    assert!(!now(resting.cut()) && !now(resting.wanted()));
    assert!(!now(in_use.cut()) && !now(in_use.wanted()));
    assert_eq!(count(&counts, Reached::SlowHead), 1);
}

#[tokio::test(start_paused = true)]
async fn overlong_idle_connection_closes_unlike_initially_silent_one() {
    let (occupancy, counts) = occupancy(BOUNDS);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let (resting, silent) = (enter(&occupancy, 1), enter(&occupancy, 1));
    resting.idle();
    silent.silent();
    sleep(BOUNDS.idle_within - Duration::from_secs(1)).await;
    assert!(!now(resting.wanted()));
    sleep(Duration::from_secs(2)).await;
    assert!(now(resting.wanted()));
    assert!(!now(silent.wanted()) && !now(silent.cut()));
    assert!(counts.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn half_heads_yield_immediately_to_others_later_to_holder() {
    let (occupancy, _) = occupancy(BOUNDS);
    let half = |last| {
        let permit = enter(&occupancy, last);
        permit.silent();
        permit.head_begins();
        permit
    };
    let hoard: Vec<_> = (0..9).map(|_| half(1)).collect();
    assert!(occupancy.try_admit(&holder(1)).is_err());
    let other = half(2);
    assert_eq!(hoard.iter().filter(|permit| now(permit.cut())).count(), 1);
    assert!(!now(other.cut()));
    sleep(GRACE).await;
    drop(other);
    let again = occupancy.try_admit(&holder(1)).unwrap();
    assert!(again.is_some());
    assert_eq!(hoard.iter().filter(|permit| now(permit.cut())).count(), 1);
    let _more = occupancy.try_admit(&holder(1)).unwrap();
    assert_eq!(hoard.iter().filter(|permit| now(permit.cut())).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn request_arriving_during_eviction_is_answered_first() {
    let (occupancy, _) = occupancy(BOUNDS);
    let permit = enter(&occupancy, 1);
    permit.idle();
    permit.head_begins();
    sleep(BOUNDS.head_within).await;
    assert!(permit.head_is_overdue(BOUNDS.head_within));
    // The rest of the head was there already.
    permit.busy();
    assert!(!now(permit.cut()));
    assert!(now(permit.wanted()), "the connection ends after the answer");
    permit.idle();
    assert!(now(permit.cut()));
}

#[tokio::test(start_paused = true)]
async fn holder_at_share_loses_idle_never_busy_connection() {
    let bounds = Bounds {
        per_holder: 3,
        ..BOUNDS
    };
    let (occupancy, _) = occupancy(bounds);
    let mut own = idle(&occupancy, 1, 3).await;
    let other = idle(&occupancy, 2, 1).await;
    own.push(enter(&occupancy, 1));
    assert_eq!((wanted(&own), wanted(&other)), (vec![0], vec![]));
    for permit in &own {
        permit.busy();
    }
    own.remove(0);
    assert!(occupancy.try_admit(&holder(1)).is_err());
}

#[tokio::test(start_paused = true)]
async fn occupancy_table_empties_when_last_connection_closes() {
    let (occupancy, _) = occupancy(BOUNDS);
    let permit = enter(&occupancy, 1);
    let same = Arc::clone(&permit);
    let emptied = Arc::clone(&occupancy);
    let emptied = tokio::spawn(async move { emptied.emptied().await });
    drop(permit);
    sleep(Duration::from_millis(1)).await;
    assert!(!emptied.is_finished(), "an upgraded connection has it too");
    drop(same);
    let ended = timeout(Duration::from_millis(1), emptied).await;
    assert!(ended.is_ok());
    assert!(occupancy.table.lock().holders.is_empty());
}

#[tokio::test(start_paused = true)]
async fn heaviest_holder_loses_largest_connections_even_busy_ones() {
    let (occupancy, _) = occupancy(BOUNDS);
    let honest = enter(&occupancy, 1);
    honest.busy();
    let _small = honest.reserve_bytes(10_000);
    let greedy = [1, 3, 2].map(|times| {
        let permit = enter(&occupancy, 2);
        permit.busy();
        let bytes = permit.reserve_bytes(times * 100_000);
        (permit, bytes)
    });
    let (weight, most) = occupancy.heaviest().unwrap();
    assert_eq!((weight, &most), (600_000 + 3 * CONNECTION, &holder(2)));
    assert_eq!(occupancy.shed(&most, 400_000), 2);
    let cut = |permit: &Arc<Permit>| {
        let permit = Arc::clone(permit);
        now(async move { permit.cut().await })
    };
    assert_eq!(
        greedy.each_ref().map(|(permit, _)| cut(permit)),
        [false, true, true]
    );
    assert!(!cut(&honest));
    // Those that go are not counted, nor cut off again.
    assert_eq!(occupancy.heaviest().unwrap().0, 100_000 + CONNECTION);
    assert_eq!(occupancy.shed(&most, usize::MAX), 1);
    drop(greedy);
    assert_eq!(occupancy.heaviest().unwrap().1, holder(1));
}

#[test]
fn inflight_requests_count_over_all_connections_of_holder() {
    let (occupancy, _) = occupancy(BOUNDS);
    let (first, second, other) = (
        enter(&occupancy, 1),
        enter(&occupancy, 1),
        enter(&occupancy, 2),
    );
    let one = first.begin_request();
    let two = (second.begin_request(), second.begin_request());
    let of = |permit: &Permit| permit.requests().unwrap().in_flight();
    assert_eq!((of(&first), of(&second), of(&other)), (3, 3, 0));
    // The proven identity has them from then on.
    second.prove("spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!((of(&first), of(&second)), (1, 2));
    drop(two);
    assert_eq!((of(&first), of(&second)), (1, 0));
    drop(one);
    assert_eq!(of(&first), 0);
}

#[test]
fn reserved_bytes_are_released_with_their_guards() {
    let (occupancy, _) = occupancy(BOUNDS);
    let permit = enter(&occupancy, 1);
    let weight = || occupancy.heaviest().unwrap().0 - CONNECTION;
    let bytes = permit.reserve_bytes(5);
    let beside = bytes.beside(7);
    bytes.add(3);
    assert_eq!(weight(), 15);
    assert_eq!(bytes.set(1), 8);
    assert_eq!(weight(), 8);
    drop(bytes);
    assert_eq!(weight(), 7);
    drop(beside);
    assert_eq!(weight(), 0);
}

#[test]
fn nested_permit_counts_for_connection_without_own_permit() {
    let (occupancy, counts) = occupancy(BOUNDS);
    let permit = enter(&occupancy, 1);
    permit.prove("spiffe://cluster.local/ns/shop/sa/web");
    let within = permit.within().within();
    let weight = occupancy.weight();
    let bytes = within.reserve_bytes(5000);
    assert_eq!(occupancy.weight(), weight + 5000);
    let request = within.begin_request();
    assert_eq!(permit.requests().unwrap().in_flight(), 1);
    assert_eq!(occupancy.requests_of_callers(), 1);
    within.waits_for_memory(true);
    assert_eq!(count(&counts, Reached::NoMemory { in_use: true }), 1);
    // What it is doing is not what the connection is doing.
    permit.idle();
    within.busy();
    assert_eq!(permit.conn.activity.load(Relaxed), IDLE);
    drop(permit);
    assert_eq!(occupancy.taken(), 0);
    drop((request, bytes));
    assert_eq!(within.requests().unwrap().in_flight(), 0);
}

/// A connection of HTTP/2 looks with every frame, whether or not it was woken for that.
#[test]
fn only_first_waiter_starts_however_often_others_poll() {
    let requests = Requests::default();
    let (first, second) = (requests.enter(1), requests.enter(1));
    assert_eq!(requests.look(second, Waker::noop()), Look::Behind);
    requests.call();
    assert_eq!(requests.look(second, Waker::noop()), Look::Behind);
    assert_eq!(requests.look(first, Waker::noop()), Look::Called);
    assert_eq!(requests.look(first, Waker::noop()), Look::BelowShare);
    requests.begin(1);
    assert_eq!(requests.look(first, Waker::noop()), Look::First);
    requests.leave(first);
    assert_eq!(requests.look(second, Waker::noop()), Look::First);
}

#[test]
fn active_holders_count_once_per_listener() {
    let (occupancy, _) = occupancy(BOUNDS);
    let (first, second) = (enter(&occupancy, 1), enter(&occupancy, 2));
    let sharers = |permit: &Permit| permit.requests().unwrap().sharers();
    assert_eq!(sharers(&first), 1, "it would be the only one");
    let requests = (first.begin_request(), first.begin_request());
    assert_eq!((sharers(&first), sharers(&second)), (1, 2));
    first.prove("spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!((sharers(&first), sharers(&second)), (1, 2));
    let other = second.begin_request();
    assert_eq!((sharers(&first), sharers(&second)), (2, 2));
    drop((requests, first));
    assert_eq!(sharers(&second), 1);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn holder_is_stalled_when_no_waiting_request_starts() {
    let long = Duration::from_secs(5);
    let requests = Requests::default();
    assert!(!requests.is_stalled(Duration::ZERO), "no request waits");
    let (first, second) = (requests.enter(0), requests.enter(0));
    sleep(long).await;
    assert!(requests.is_stalled(long));
    requests.moves();
    requests.leave(first);
    assert!(!requests.is_stalled(long), "the other one is the next");
    requests.leave(second);
    sleep(long).await;
    let _third = requests.enter(0);
    assert!(!requests.is_stalled(long), "it has just come");
}

#[test]
fn usage_of_each_holder_is_listed_by_connection() {
    let (occupancy, _) = occupancy(BOUNDS);
    let permits = [enter(&occupancy, 1), enter(&occupancy, 1)];
    let _held = permits[0].reserve_bytes(1000);
    let weights = occupancy.weights();
    assert_eq!(weights[0].holder, holder(1));
    assert_eq!(weights[0].connections, [CONNECTION, CONNECTION + 1000]);
    assert_eq!(occupancy.shed(&holder(1), 1), 1);
    assert_eq!(occupancy.weights()[0].connections, [CONNECTION]);
}
