//! Which holder gets a share, and which one loses one for it.
//!
//! Claims: calls-61

use super::*;

fn pool(total: usize, per_holder: usize) -> Pool<&'static str> {
    Pool::new(Limits { total, per_holder }, Counter::default())
}

async fn is_taken<K: Clone + Ord + Hash>(share: &Share<K>) -> bool {
    tokio::select! {
        biased;
        () = share.taken() => true,
        () = tokio::task::yield_now() => false,
    }
}

#[tokio::test]
async fn flood_evicts_only_its_holders_oldest_shares() {
    let pool = pool(10, 10);
    let honest = pool.take("honest", 1).unwrap();
    let flood: Vec<_> = (0..1_000).map(|_| pool.take("flood", 1).unwrap()).collect();
    assert_eq!(pool.in_use(), 10);
    assert!(!is_taken(&honest).await);
    assert!(is_taken(&flood[0]).await && is_taken(&flood[990]).await);
    assert!(!is_taken(&flood[991]).await, "the newest are kept");
    // A newcomer gets in when all is taken, at the cost of the holder of most.
    let late = pool.take("late", 1).unwrap();
    assert!(is_taken(&flood[991]).await);
    assert!(!is_taken(&honest).await && !is_taken(&late).await);
    drop(flood);
    assert_eq!((pool.in_use(), pool.holders()), (2, 2));
    assert_eq!(pool.inner.reached.get(), 992);
}

#[tokio::test]
async fn among_equals_the_oldest_goes() {
    let pool = pool(3, 3);
    let names = ["c", "a", "b", "d"];
    let shares = names.map(|name| pool.take(name, 1).unwrap());
    let mut taken = Vec::new();
    for share in &shares {
        taken.push(is_taken(share).await);
    }
    assert_eq!(taken, [true, false, false, false]);
}

#[tokio::test]
async fn full_holder_loses_idle_share_or_is_refused() {
    let pool = pool(10, 2);
    let (one, two) = (pool.take("a", 1).unwrap(), pool.take("a", 1).unwrap());
    one.begin();
    let three = pool.take("a", 1).unwrap();
    assert!(is_taken(&two).await && !is_taken(&one).await);
    three.begin();
    assert_eq!(pool.take("a", 1).unwrap_err(), Full);
    three.end();
    let _four = pool.take("a", 1).unwrap();
    assert!(is_taken(&three).await && !is_taken(&one).await);
}

#[tokio::test]
async fn busy_share_yields_only_to_holder_with_fewer() {
    let pool = pool(4, 4);
    let greedy = [(); 4].map(|()| pool.take("greedy", 1).unwrap());
    greedy.iter().for_each(Share::begin);
    assert_eq!(pool.take("greedy", 1).unwrap_err(), Full);
    let _modest = pool.take("modest", 1).unwrap();
    assert!(is_taken(&greedy[0]).await && !is_taken(&greedy[1]).await);
}

#[tokio::test]
async fn amounts_count_and_who_would_have_most_is_refused() {
    let pool = pool(100, 80);
    let (large, small) = (
        pool.take("large", 10).unwrap(),
        pool.take("small", 10).unwrap(),
    );
    large.grow(60).unwrap();
    assert_eq!(large.grow(11), Err(Full), "more than one may have");
    // 70 and 10: with 25 more the small one still has less.
    small.grow(25).unwrap();
    assert!(is_taken(&large).await && !is_taken(&small).await);
    assert_eq!(large.grow(1), Err(Full), "what is taken away does not grow");
    assert_eq!(pool.in_use(), 35);
    small.shrink(25);
    drop(large);
    assert_eq!((pool.in_use(), pool.peak()), (10, 80));
    let two = pool.take("two", 60).unwrap();
    assert_eq!(
        small.grow(55),
        Err(Full),
        "it would have more than the other"
    );
    assert!(!is_taken(&two).await);
    drop((small, two));
    assert_eq!((pool.in_use(), pool.holders()), (0, 0));
}

#[tokio::test]
async fn idle_share_goes_before_busy_one_among_equals() {
    let pool = pool(3, 3);
    let [a, b, c] = ["a", "b", "c"].map(|name| pool.take(name, 1).unwrap());
    a.begin();
    c.begin();
    let d = pool.take("d", 1).unwrap();
    assert!(is_taken(&b).await && !is_taken(&a).await && !is_taken(&c).await);
    // Where all are in use, a newcomer must not be shut out.
    d.begin();
    let _e = pool.take("e", 1).unwrap();
    assert!(is_taken(&a).await && !is_taken(&c).await && !is_taken(&d).await);
}

/// Of holders that are numbers; one that completed work is spared with so many shares.
fn sparing(spared: usize, total: usize) -> Pool<u32> {
    let per_holder = total;
    Pool::sparing(spared, Limits { total, per_holder }, Counter::default())
}

/// A share for each of these, which has completed work on it.
fn known(pool: &Pool<u32>, holders: &[u32]) -> Vec<Share<u32>> {
    let take = |holder: &u32| {
        let share = pool.take(*holder, 1).unwrap();
        share.completed();
        share
    };
    holders.iter().map(take).collect()
}

/// A share for each of so many unknown holders.
fn strangers(pool: &Pool<u32>, count: u32) -> Vec<Share<u32>> {
    let holders = 1_000..1_000 + count;
    holders
        .map(|holder| pool.take(holder, 1).unwrap())
        .collect()
}

async fn taken(shares: &[Share<u32>]) -> Vec<bool> {
    let mut taken = Vec::new();
    for share in shares {
        taken.push(is_taken(share).await);
    }
    taken
}

#[tokio::test]
async fn new_holders_take_nothing_from_larger_established_one() {
    let pool = sparing(2, 8);
    let honest = known(&pool, &[0, 0]);
    honest[0].begin();
    let flood = strangers(&pool, 100);
    assert_eq!(taken(&honest).await, [false, false]);
    assert!(is_taken(&flood[93]).await && !is_taken(&flood[94]).await);
    // What it did is remembered when it comes again.
    drop(honest);
    let again = pool.take(0, 1).unwrap();
    let _flood = strangers(&pool, 200);
    assert!(!is_taken(&again).await);
}

#[tokio::test]
async fn established_holder_with_large_share_is_not_spared() {
    let pool = sparing(2, 8);
    let honest = known(&pool, &[0]);
    let flood = known(&pool, &[1; 6]);
    let new = strangers(&pool, 2);
    let gone = [true, false, false, false, false, false];
    assert_eq!(taken(&flood).await, gone);
    assert_eq!(taken(&honest).await, [false]);
    assert_eq!(taken(&new).await, [false, false]);
}

#[tokio::test]
async fn established_holders_keep_exactly_half_from_new_holders() {
    let pool = sparing(2, 8);
    let known = known(&pool, &[0, 1, 2, 3, 4, 5]);
    known[0].completed();
    let new = strangers(&pool, 5);
    // The first one worked last. When four are left, holders without work are as many.
    let gone = [false, true, true, false, false, false];
    assert_eq!(taken(&known).await, gone);
    assert_eq!(taken(&new).await, [true, false, false, false, false]);
}

#[tokio::test]
async fn established_holders_busy_share_yields_to_smaller_only() {
    let pool = sparing(3, 6);
    let known = known(&pool, &[1, 1, 1, 2, 2, 2]);
    known.iter().for_each(Share::begin);
    let new = [3, 4].map(|holder| pool.take(holder, 1).unwrap());
    let gone = [true, false, false, true, false, false];
    assert_eq!(taken(&known).await, gone);
    for share in &new {
        share.begin();
        share.completed();
    }
    assert_eq!(taken(&known[1..3]).await, [false, false]);
    // They hold more than half, and nothing at rest: the oldest goes all the same.
    let newcomer = pool.take(5, 1).unwrap();
    assert_eq!(taken(&known[1..3]).await, [true, false]);
    assert!(!is_taken(&newcomer).await);
}

#[tokio::test]
async fn established_holder_gets_share_from_smaller_newcomers() {
    let pool = sparing(3, 6);
    let honest = known(&pool, &[0, 0]);
    honest.iter().for_each(Share::begin);
    let flood = strangers(&pool, 10);
    let third = pool.take(0, 1).unwrap();
    assert!(is_taken(&flood[6]).await && !is_taken(&flood[7]).await);
    assert_eq!(taken(&honest).await, [false, false]);
    third.begin();
    assert_eq!(pool.take(0, 1).unwrap_err(), Full, "it has enough");
}

#[test]
fn least_recently_active_holders_are_dropped_beyond_limit() {
    let mut worked = Worked::default();
    worked.note(&0, 1);
    for holder in 1..=MAX_WORKED {
        worked.note(&holder, 2 * holder as u64);
        worked.note(&0, 2 * holder as u64 + 1);
    }
    assert_eq!(worked.last(&1), None);
    assert!(worked.last(&0).is_some() && worked.last(&2).is_some());
    assert_eq!(worked.last.len(), MAX_WORKED);
    assert_eq!(worked.order.len(), MAX_WORKED);
}
