//! Tokens, keys and rates of limits.
//!
//! Claims: calls-66

use std::num::NonZeroU32;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use proptest::prelude::*;

use super::*;
use crate::traffic::guard::{LimitKey, LimitMode, LimitScope};

mod keys;
mod shares;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn limit(requests: u32, per: Duration, burst: u32) -> RateLimit {
    RateLimit {
        name: "x".into(),
        requests,
        per,
        burst,
        key: LimitKey::None,
        scope: LimitScope::Instance,
        mode: LimitMode::Enforce,
    }
}

fn take(table: &mut Buckets, now: Instant, key: Key) -> Result<(), Refused> {
    take_all(std::slice::from_mut(table), now, [(0, key)].into_iter())
}

#[test]
fn burst_passes_immediately_then_requests_pass_at_rate() {
    let start = Instant::now();
    let mut table = Buckets::new(start, Rate::of(&limit(10, ms(1000), 3)));
    for _ in 0..3 {
        assert_eq!(take(&mut table, start, Key::All), Ok(()));
    }
    let refused = take(&mut table, start, Key::All).unwrap_err();
    assert_eq!((refused.wait, refused.retry_after()), (ms(100), 1));
    assert!(take(&mut table, start + ms(99), Key::All).is_err());
    assert!(take(&mut table, start + ms(100), Key::All).is_ok());
    assert!(take(&mut table, start + ms(100), Key::All).is_err());
    let long = Refused {
        limit: 0,
        wait: ms(2001),
        emptied: Emptied::Own,
    };
    assert_eq!(long.retry_after(), 3);
}

#[test]
fn tokens_are_taken_from_all_limits_or_none() {
    let start = Instant::now();
    let table = |burst| Buckets::new(start, Rate::of(&limit(1, ms(1000), burst)));
    let mut tables = [table(5), table(1), table(2)];
    let all = [(0, Key::All), (1, Key::All), (2, Key::All)];
    assert_eq!(take_all(&mut tables, start, all.into_iter()), Ok(()));
    for _ in 0..10 {
        let refused = take_all(&mut tables, start, all.into_iter()).unwrap_err();
        assert_eq!(refused.limit, 1);
    }
    // The first has four left, the third one: nothing was taken by refused requests.
    let rest = [(0, Key::All), (2, Key::All)];
    assert_eq!(take_all(&mut tables, start, rest.into_iter()), Ok(()));
    let refused = take_all(&mut tables, start, rest.into_iter()).unwrap_err();
    assert_eq!(refused.limit, 2);
    for _ in 0..3 {
        assert_eq!(
            take_all(&mut tables, start, [(0, Key::All)].into_iter()),
            Ok(())
        );
    }
    assert!(take_all(&mut tables, start, [(0, Key::All)].into_iter()).is_err());
}

#[test]
fn callers_and_values_have_buckets_of_their_own() {
    let start = Instant::now();
    let mut table = Buckets::new(start, Rate::of(&limit(1, ms(1000), 1)));
    let value = |caller, value| Key::Header { caller, value };
    for key in [
        Key::Caller(1),
        Key::Caller(2),
        value(1, 7),
        value(1, 8),
        value(2, 7),
    ] {
        assert!(take(&mut table, start, key).is_ok(), "{key:?}");
        assert!(take(&mut table, start, key).is_err(), "{key:?}");
    }
}

#[test]
fn a_share_of_nothing_lets_nothing_through() {
    let start = Instant::now();
    let whole = limit(100, ms(1000), 100);
    let mut table = Buckets::new(start, Rate::share(&whole, 0));
    for n in 0..100 {
        assert!(take(&mut table, start + ms(n * 1000), Key::All).is_err());
    }
    let later = start + ms(200_000);
    table.set_rate(later, Rate::share(&whole, 33_333));
    let passed = (0..10_000).filter(|n| take(&mut table, later + ms(*n), Key::All).is_ok());
    // 33 at once, and 33.333 a second.
    let passed = passed.count();
    assert!((364..=367).contains(&passed), "{passed}");
}

proptest! {
    /// Beside two of `governor`: one of the same burst, and one of a request more, which is more
    /// than what is left of a token when a bucket is full.
    #[test]
    fn a_limiter_of_others_lets_as_many_requests_pass(
        requests in 1u32..2000,
        per in 1u64..100,
        burst in 1u32..200,
        gaps in proptest::collection::vec(0u64..50_000_000, 1..300),
    ) {
        let per = Duration::from_secs(per);
        // All count a token in whole nanoseconds.
        let token = per / requests;
        let clock = FakeRelativeClock::default();
        let others = [burst, burst + 1].map(|burst| {
            let quota = Quota::with_period(token).unwrap()
                .allow_burst(NonZeroU32::new(burst).unwrap());
            RateLimiter::direct_with_clock(quota, clock.clone())
        });
        let start = Instant::now();
        let mut now = start;
        let rate = Rate::of(&limit(requests, per, burst));
        prop_assert_eq!(u128::from(rate.token), token.as_nanos());
        let mut table = Buckets::new(start, rate);
        let (mut own, mut passed) = (0, [0; 2]);
        for gap in gaps {
            now += Duration::from_nanos(gap);
            clock.advance(Duration::from_nanos(gap));
            own += u32::from(take(&mut table, now, Key::All).is_ok());
            for (other, passed) in others.iter().zip(&mut passed) {
                *passed += u32::from(other.check().is_ok());
            }
            prop_assert!((passed[0]..=passed[1]).contains(&own), "{own} {passed:?}");
        }
    }
}

#[test]
fn even_calls_above_a_limit_get_all_of_it() {
    let start = Instant::now();
    for (requests, offered) in [(60, 61), (60, 90), (60, 119), (60, 1000), (7, 8)] {
        let minute = Duration::from_secs(60);
        let mut table = Buckets::new(start, Rate::of(&limit(requests, minute, 1)));
        let calls = (0..offered * 10).map(|at| start + minute * at / offered);
        let passed = calls.filter(|now| take(&mut table, *now, Key::All).is_ok());
        let passed = passed.count() as u32;
        let all = 10 * requests;
        assert!(
            (all - 1..=all + 1).contains(&passed),
            "{passed} of {offered}"
        );
    }
}

#[test]
fn idle_bucket_lets_its_burst_pass_and_no_more() {
    let start = Instant::now();
    for burst in [1, 3] {
        let mut table = Buckets::new(start, Rate::of(&limit(60, ms(60_000), burst)));
        for idle in 0..5 {
            let now = start + ms(10_000 * idle);
            let calls = (0..100).map(|at| now + ms(at));
            let passed = calls.filter(|now| take(&mut table, *now, Key::All).is_ok());
            assert_eq!(passed.count() as u32, burst);
        }
    }
}

#[test]
fn bucket_emptied_by_tiny_share_refills_at_next_share() {
    let start = Instant::now();
    let whole = limit(100, ms(1000), 100);
    let mut table = Buckets::new(start, Rate::share(&whole, 1));
    assert!(
        take(&mut table, start, Key::All).is_ok(),
        "one in a thousand seconds"
    );
    table.set_rate(start, Rate::share(&whole, 20_000));
    assert!(take(&mut table, start + ms(40), Key::All).is_err());
    assert!(take(&mut table, start + ms(50), Key::All).is_ok());
}

/// A caller that is refused at one pod goes to the other one, whose share grows and which it has
/// not called for long: what it gets together is what one bucket of the whole limit gives.
#[test]
fn caller_that_follows_the_shares_gets_no_burst_anew() {
    let start = Instant::now();
    let whole = limit(20, ms(1000), 100);
    for key in [
        Key::All,
        Key::Caller(7),
        Key::Header {
            caller: 7,
            value: 1,
        },
    ] {
        let (most, least) = (Rate::share(&whole, 19_000), Rate::share(&whole, 1000));
        let mut pods = [Buckets::new(start, most), Buckets::new(start, least)];
        let mut passed = 0;
        for second in 0..200 {
            let now = start + ms(1000 * second);
            let large = (second / 10 % 2) as usize;
            if second % 10 == 0 {
                pods[large].set_rate(now, most);
                pods[1 - large].set_rate(now, least);
            }
            for at in 0..50 {
                let now = now + ms(20 * at);
                passed += u32::from(take(&mut pods[large], now, key).is_ok());
            }
        }
        // Each pod may have filled once before, and at its small share since.
        assert!((3700..=4000 + 130).contains(&passed), "{passed}");
    }
}

#[test]
fn new_key_at_a_grown_share_gains_no_token() {
    let start = Instant::now();
    let whole = limit(20, ms(1000), 20);
    let mut table = Buckets::new(start, Rate::share(&whole, 5000));
    let later = start + ms(60_000);
    table.set_rate(later, Rate::share(&whole, 20_000));
    let passed = |table: &mut Buckets, caller, now| {
        let served = (0..40).filter(|_| take(table, now, Key::Caller(caller)).is_ok());
        served.count()
    };
    assert_eq!(passed(&mut table, 1, later), 5);
    assert_eq!(passed(&mut table, 2, later + ms(500)), 15);
    assert_eq!(passed(&mut table, 3, later + ms(60_000)), 20);
    assert_eq!(table.take_overflowed(), 0);
}

#[test]
fn pod_losing_and_regaining_share_fills_no_bucket() {
    let start = Instant::now();
    let whole = limit(60, ms(3_600_000), 60);
    let (share, nothing) = (Rate::share(&whole, 20_000), Rate::share(&whole, 0));
    for key in [Key::All, Key::Caller(7)] {
        let mut table = Buckets::new(start, share);
        let passed = |table: &mut Buckets, now| {
            let served = (0..60).filter(|_| take(table, now, key).is_ok());
            served.count()
        };
        assert_eq!(passed(&mut table, start), 20);
        // Said again, as when the share of another limit changes.
        for after in [1, 2] {
            table.set_rate(start + ms(after), nothing);
            assert_eq!(passed(&mut table, start + ms(after)), 0);
        }
        table.set_rate(start + ms(3), share);
        assert_eq!(passed(&mut table, start + ms(3)), 0);
        // A third of the hour's twenty.
        assert_eq!(passed(&mut table, start + ms(1_200_001)), 6);
    }
}

#[test]
fn pod_without_share_passes_one_request_then_short_wait() {
    let start = Instant::now();
    for (per, longest) in [(1, 1), (30, 30), (3600, 60)] {
        let whole = limit(100, Duration::from_secs(per), 100);
        let mut table = Buckets::new(start, Rate::unshared(&whole));
        assert_eq!(take(&mut table, start, Key::All), Ok(()));
        let late = start + Duration::from_secs(7200);
        for now in [start, late] {
            let refused = take(&mut table, now, Key::All).unwrap_err();
            assert_eq!(refused.retry_after(), longest);
        }
        table.set_rate(late, Rate::share(&whole, 0));
        let refused = take(&mut table, late, Key::All).unwrap_err();
        assert_eq!(refused.retry_after(), longest, "a share of nothing");
        table.set_rate(late, Rate::share(&whole, 1));
        let refused = take(&mut table, late, Key::All).unwrap_err();
        assert_eq!(refused.retry_after(), longest, "nearly nothing");
    }
    // A limit that is no share is exact, and stays.
    let mut hourly = Buckets::new(start, Rate::of(&limit(1, ms(3_600_000), 1)));
    assert_eq!(take(&mut hourly, start, Key::All), Ok(()));
    let refused = take(&mut hourly, start, Key::All).unwrap_err();
    assert_eq!(refused.retry_after(), 3600);
}

#[test]
fn first_share_lacks_only_previously_passed_request() {
    let start = Instant::now();
    let whole = limit(60, ms(3_600_000), 60);
    let passed = |table: &mut Buckets, now, key| {
        let served = (0..60).filter(|_| take(table, now, key).is_ok());
        served.count()
    };
    let share = Rate::share(&whole, 20_000);
    for key in [Key::All, Key::Caller(7)] {
        let mut table = Buckets::new(start, Rate::unshared(&whole));
        assert_eq!(passed(&mut table, start, key), 1);
        // Another limit got a share.
        table.set_rate(start + ms(50), Rate::unshared(&whole));
        assert_eq!(passed(&mut table, start + ms(50), key), 0);
        table.set_rate(start + ms(100), share);
        assert_eq!(passed(&mut table, start + ms(100), key), 19);
        // A pod that had one, and lost it, gets nothing back.
        table.set_rate(start + ms(200), Rate::unshared(&whole));
        assert_eq!(passed(&mut table, start + ms(200), key), 0);
        table.set_rate(start + ms(300), share);
        assert_eq!(passed(&mut table, start + ms(300), key), 0);
    }
}
