//! What is known of callers follows from their keys, and takes no more than is reckoned.
//!
//! Claims: calls-70

use proptest::prelude::*;

use super::*;

fn entry(caller: u64, value: u64) -> Entry {
    Entry { caller, value }
}

/// What both maps take by their capacity, a byte of each interval besides and an eighth left free,
/// and the trees where each node is as empty as may be.
fn bytes(keys: &Keys) -> usize {
    let map = |capacity: usize, entry: usize| capacity * 8 / 7 * (entry + 1);
    // Five entries of eleven, in six leaves below each node that has children.
    let tree = |count: usize, entry: usize| {
        let leaf = 11 * entry + 16;
        let family = 6 * leaf + leaf + 12 * 8;
        count * family * 36 / (35 * 35)
    };
    map(keys.buckets.capacity(), size_of::<(Entry, Bucket)>())
        + map(keys.callers.capacity(), size_of::<(u64, Caller)>())
        + tree(keys.order.len(), size_of::<(u64, Bucket, u64)>())
        + tree(keys.soonest.len(), size_of::<(Bucket, u64)>())
        + tree(keys.largest.len(), size_of::<(u32, u64)>())
}

#[test]
fn key_entries_take_no_more_bytes_than_estimated() {
    for most in [20, 96, 1000, 7200, 8081, 12_122, 24_000] {
        let mut keys = Keys::new(most);
        for value in 0..most as u64 {
            keys.set(0, entry(1, value), Bucket(1 + value));
        }
        assert_eq!((keys.len(), keys.callers.len()), (most - 1, 1));
        let few = bytes(&keys);
        // Half of the places are callers' then.
        for caller in 2..most as u64 {
            if keys.has_room(0, caller) {
                keys.set(0, entry(caller, 0), Bucket(1));
            }
        }
        assert!(keys.callers.len() >= most / 2 - 1, "{most}");
        assert!(keys.taken() <= most, "{most}");
        let many = bytes(&keys);
        assert!(
            few.max(many) <= most * BYTES_PER_ENTRY,
            "{most}: {few} {many}"
        );
        keys.set_most(most / 4);
        let fewer = bytes(&keys);
        // Not `many`: a map that was much used reports less capacity than it takes, by as many
        // intervals as wait to be cleaned.
        assert!(fewer <= most * BYTES_PER_ENTRY, "{most}: {fewer}");
    }
}

#[test]
fn fewer_places_take_fewer_bytes() {
    let mut keys = Keys::new(24_000);
    for value in 0..24_000 {
        keys.set(0, entry(1, value), Bucket(1 + value));
    }
    keys.set_most(100);
    assert_eq!(keys.taken(), 100);
    assert!(bytes(&keys) <= 100 * BYTES_PER_ENTRY);
    assert_eq!(keys.floor(1), Bucket(24_000 - 99));
}

/// What callers, their ranks and their floors must be.
fn check(keys: &Keys) {
    let order = keys.buckets.iter();
    let order = order.map(|(entry, bucket)| (entry.caller, *bucket, entry.value));
    let order: BTreeSet<(u64, Bucket, u64)> = order.collect();
    assert_eq!(keys.order, order);
    for (id, caller) in &keys.callers {
        let own = || keys.order.iter().filter(|(of, ..)| of == id);
        assert_eq!(caller.in_use as usize, own().count());
        assert_eq!(Some(caller.soonest), own().map(|(_, full, _)| *full).min());
        assert!(caller.floor <= caller.soonest, "{id} {caller:?}");
    }
    let in_use: u32 = keys.callers.values().map(|caller| caller.in_use).sum();
    assert_eq!(in_use as usize, keys.len());
    let callers = || keys.callers.iter();
    let largest: BTreeSet<(u32, u64)> =
        callers().map(|(id, caller)| (caller.in_use, *id)).collect();
    let soonest: BTreeSet<(Bucket, u64)> = callers()
        .map(|(id, caller)| (caller.soonest, *id))
        .collect();
    assert_eq!((&keys.largest, &keys.soonest), (&largest, &soonest));
}

#[derive(Clone, Debug)]
enum Step {
    Take(u64, u64),
    Later(u64),
    Most(usize),
    Move(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0u64..12, 0u64..40).prop_map(|(caller, value)| Step::Take(caller, value)),
        3 => (1u64..40).prop_map(Step::Later),
        1 => (1usize..40).prop_map(Step::Most),
        1 => (1u64..60).prop_map(Step::Move),
    ]
}

proptest! {
    #[test]
    fn floors_and_ranks_follow_from_the_keys(steps in proptest::collection::vec(step(), 1..300)) {
        let (mut keys, mut now) = (Keys::new(30), 0);
        for step in steps {
            match step {
                Step::Take(caller, value) => {
                    let bucket = keys.bucket(entry(caller, value));
                    if bucket.is_none() && !keys.has_room(now, caller) {
                        continue;
                    }
                    let before = bucket.unwrap_or_else(|| keys.floor(caller));
                    let after = Bucket(before.0.max(now) + 10);
                    let (taken, fair) = (keys.taken(), keys.in_use(caller));
                    let held_before: Vec<(u64, u32)> =
                        keys.callers.iter().map(|(id, caller)| (*id, caller.in_use)).collect();
                    keys.set(now, entry(caller, value), after);
                    prop_assert!(keys.taken() <= keys.most.max(taken));
                    for (id, bucket) in held_before {
                        let lost = keys.in_use(id) < bucket;
                        prop_assert!(!lost || id == caller || keys.in_use(id) >= fair);
                    }
                }
                Step::Later(by) => now += by,
                Step::Most(most) => keys.set_most(most),
                Step::Move(part) => keys.move_all(|bucket| Bucket(bucket.0 * part / 60)),
            }
            check(&keys);
        }
    }
}
