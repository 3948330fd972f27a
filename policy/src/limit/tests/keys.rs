//! Which keys have a bucket, which caller loses one, and that flooding gains nothing.
//!
//! Claims: calls-70, calls-71

use std::collections::HashMap;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn table(start: Instant, requests: u32, most: usize) -> Buckets {
    let mut table = Buckets::new(start, Rate::of(&limit(requests, HOUR, requests)));
    table.set_most(most);
    table
}

/// How many of these values of a caller pass, one request each.
fn passed(table: &mut Buckets, now: Instant, caller: u64, values: std::ops::Range<u64>) -> usize {
    let taken = values.map(|value| take(table, now, Key::Header { caller, value }));
    taken.filter(Result::is_ok).count()
}

#[test]
fn first_requests_of_20000_gateway_users_all_pass() {
    let start = Instant::now();
    let mut table = table(start, 1, KEYS);
    assert_eq!(passed(&mut table, start, 1, 0..20_000), 20_000);
    assert_eq!(passed(&mut table, start, 1, 0..20_000), 0, "one each");
    assert_eq!(table.take_overflowed(), 0);
    // Another one has his place, though the gateway took all that was unused.
    passed(&mut table, start, 1, 20_000..30_000);
    assert_eq!(table.len(), KEYS - 1);
    assert_eq!(passed(&mut table, start, 2, 0..1000), 1000);
    assert_eq!(passed(&mut table, start, 2, 0..1000), 0);
}

#[test]
fn users_beyond_key_capacity_pass_while_tokens_remain() {
    let start = Instant::now();
    let mut table = table(start, 5, 1001);
    assert_eq!(passed(&mut table, start, 1, 0..5000), 5000);
    assert!(table.take_overflowed() > 3000);
    let refused = Key::Header {
        caller: 1,
        value: 9999,
    };
    while take(&mut table, start, refused).is_ok() {}
    let refused = take(&mut table, start, refused).unwrap_err();
    assert_eq!(refused.emptied, Emptied::Forgotten);
    assert!(table.take_overflowed() > 0);
    // A token of five an hour later each of them has one again.
    let later = start + HOUR / 5;
    assert_eq!(passed(&mut table, later, 1, 20_000..21_000), 1000);
}

#[test]
fn ten_callers_inventing_values_take_nothing_from_others() {
    let start = Instant::now();
    let mut table = table(start, 5, 2000);
    let (old, new) = (100, 101);
    assert_eq!(passed(&mut table, start, old, 0..30), 30);
    for round in 0..5 {
        for caller in 0..10 {
            let made_up = round * 1100..(round + 1) * 1100;
            passed(&mut table, start, caller, made_up);
        }
    }
    assert!(
        table.take_overflowed() > 40_000,
        "they want more than there is"
    );
    assert!(passed(&mut table, start, 0, 900_000..900_100) < 100);
    assert_eq!(passed(&mut table, start, new, 0..30), 30, "never called");
    assert_eq!(passed(&mut table, start, old, 0..30), 30, "as before");
    assert_eq!(passed(&mut table, start, old, 500..530), 30, "new users");
    for _ in 0..3 {
        assert_eq!(passed(&mut table, start, old, 0..30), 30);
    }
    assert_eq!(passed(&mut table, start, old, 0..30), 0, "five each");
    let own = Key::Header {
        caller: old,
        value: 0,
    };
    let refused = take(&mut table, start, own).unwrap_err();
    assert_eq!(refused.emptied, Emptied::Own);
}

#[test]
fn invented_keys_get_one_bucket_per_entry_without_refill() {
    let start = Instant::now();
    let mut table = table(start, 5, 101);
    let own = Key::Header {
        caller: 1,
        value: 0,
    };
    for _ in 0..5 {
        assert!(take(&mut table, start, own).is_ok());
    }
    let mut through = 5;
    for round in 1..100 {
        through += passed(&mut table, start, 1, round * 1000..round * 1000 + 300);
        assert!(take(&mut table, start, own).is_err(), "{round}");
    }
    assert_eq!(through, 101 * 5, "a hundred keys, and the floor");
    // Fewer places fill no bucket either, nor does another rate.
    table.set_most(10);
    assert!(table.len() < 10);
    assert!(take(&mut table, start, own).is_err());
    table.set_rate(start, Rate::of(&limit(5, HOUR, 5)));
    assert!(take(&mut table, start, own).is_err());
    let all = start + HOUR;
    assert_eq!(
        (0..9)
            .filter(|_| take(&mut table, all, own).is_ok())
            .count(),
        5
    );
}

#[test]
fn what_is_full_goes_before_anything_else() {
    let start = Instant::now();
    let mut table = table(start, 1, 103);
    // Two callers, whose users are served again after an hour, and are as new ones after two:
    // of the smaller one before.
    assert_eq!(passed(&mut table, start, 1, 0..30), 30);
    let late = start + HOUR * 3 / 2;
    assert_eq!(passed(&mut table, late, 2, 0..70), 70);
    assert_eq!(table.len(), 100);
    let full = start + HOUR * 2;
    assert_eq!(passed(&mut table, full, 2, 70..95), 25);
    assert_eq!(table.take_overflowed(), 0);
    assert_eq!(
        passed(&mut table, full, 2, 0..95),
        0,
        "nothing was forgotten"
    );
}

#[test]
fn each_identity_has_bucket_while_entries_are_free() {
    let start = Instant::now();
    let mut table = table(start, 1, 10_001);
    let callers = |table: &mut Buckets, now, callers: std::ops::Range<u64>| {
        let taken = callers.map(|caller| take(table, now, Key::Caller(caller)));
        taken.filter(Result::is_ok).count()
    };
    assert_eq!(callers(&mut table, start, 1..10_001), 10_000);
    assert_eq!(table.take_overflowed(), 0);
    // The first of these is one more than there are places, and the floor has no more.
    assert_eq!(callers(&mut table, start, 20_000..20_100), 1);
    assert_eq!(callers(&mut table, start, 1..10_001), 0);
    assert_eq!(callers(&mut table, start + HOUR, 30_000..30_100), 100);
}

#[test]
fn callers_without_room_for_first_key_share_bucket() {
    let start = Instant::now();
    let mut table = table(start, 1, 20);
    for caller in 0..10 {
        assert_eq!(passed(&mut table, start, caller, 0..1), 1);
    }
    assert_eq!(passed(&mut table, start, 10, 0..1), 1, "the shared one");
    let more = Key::Header {
        caller: 11,
        value: 0,
    };
    let refused = take(&mut table, start, more).unwrap_err();
    assert_eq!(refused.emptied, Emptied::Shared);
    assert_eq!(table.take_overflowed(), 2);
    assert_eq!(table.len(), 10);
}

#[test]
fn limit_keys_of_pod_stay_within_byte_bound() {
    assert_eq!(keys_of_each(1), KEYS);
    for limits in 1..1000 {
        let all = limits * keys_of_each(limits) * BYTES_PER_ENTRY;
        assert!(all <= BYTES_PER_POD, "{limits}: {all}");
    }
    assert!(keys_of_each(usize::MAX) > 0);
}

proptest! {
    /// Beside buckets without any bound: no request passes that those would refuse with one
    /// token more, as a bucket was full for less than a token, and a caller with few keys
    /// passes the same requests, whatever the others do.
    #[test]
    fn no_key_exceeds_limit_and_small_callers_are_exact(
        requests in 1u32..4,
        calls in proptest::collection::vec((0u64..4, 0u64..30, 0u64..100), 1..400),
    ) {
        let start = Instant::now();
        let rate = Rate::of(&limit(requests, ms(10_000), requests));
        let mut table = Buckets::new(start, rate);
        table.set_most(24);
        let more = Rate::of(&limit(requests, ms(10_000), requests + 1));
        let mut unbounded: HashMap<(u64, u64), [Buckets; 2]> = HashMap::new();
        let mut now = start;
        for (caller, value, gap) in calls {
            now += ms(gap);
            let value = if caller == 0 { value % 4 } else { value };
            let own = unbounded.entry((caller, value));
            let [own, larger] = own.or_insert_with(|| {
                [rate, more].map(|rate| Buckets::new(start, rate))
            });
            let passes = take(&mut table, now, Key::Header { caller, value }).is_ok();
            if passes {
                prop_assert!(take(larger, now, Key::All).is_ok(), "{caller} {value}");
            }
            if caller == 0 {
                prop_assert_eq!(take(own, now, Key::All).is_ok(), passes, "{}", value);
            }
        }
    }
}
