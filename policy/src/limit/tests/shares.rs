//! Which pod has which part of a limit, and that the parts are never more than it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::limit::shares::{LEAVES, Send, Shares};

#[test]
fn leaving_pod_keeps_share_briefly_or_until_disconnected() {
    let start = Instant::now();
    let take_all = |shares: &mut Shares<u8>, mut sends: Vec<Send<u8>>| {
        let mut last = BTreeMap::new();
        while let Some(send) = sends.pop() {
            last.insert(send.pod, send.share);
            sends.extend(shares.acknowledged(&send.pod, send.number));
        }
        last
    };
    let begin = || {
        let mut shares = Shares::new(100);
        let sends = shares.set_pods(start, &BTreeSet::from([1, 2]));
        take_all(&mut shares, sends);
        // A rollout: 1 goes, 3 comes.
        let sends = shares.set_pods(start, &BTreeSet::from([2, 3]));
        let last = take_all(&mut shares, sends);
        assert_eq!(
            last,
            BTreeMap::from([(1, 33_333), (2, 33_333), (3, 33_333)])
        );
        shares
    };
    let even = BTreeMap::from([(2, 50_000), (3, 50_000)]);
    let mut shares = begin();
    assert_eq!(shares.tick(start + LEAVES - ms(1)), []);
    let sends = shares.tick(start + LEAVES);
    let mut last = take_all(&mut shares, sends);
    assert_eq!(last.remove(&1), Some(0));
    assert_eq!(last, even);
    let mut shares = begin();
    let sends = shares.remove(&1);
    assert_eq!(take_all(&mut shares, sends), even);
    // It is ready again.
    let mut shares = begin();
    let sends = shares.set_pods(start + ms(1), &BTreeSet::from([1, 2, 3]));
    assert_eq!(sends, []);
    assert_eq!(shares.tick(start + LEAVES + ms(1)), []);
}

/// A fleet that takes shares late, out of its own order, and loses streams.
#[derive(Debug, Default)]
struct Fleet {
    using: BTreeMap<u8, u64>,
    unread: Vec<Send<u8>>,
}

impl Fleet {
    fn send(&mut self, sends: Vec<Send<u8>>) {
        self.unread.extend(sends);
    }

    /// Each pod reads its own in order.
    fn read(&mut self, at: usize) -> Option<Send<u8>> {
        let pod = self.unread.get(at)?.pod;
        let first = self.unread.iter().position(|send| send.pod == pod)?;
        let read = self.unread.remove(first);
        self.using.insert(read.pod, read.share);
        Some(read)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pods(BTreeSet<u8>),
    Read(usize),
    Gone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::btree_set(0u8..8, 0..6).prop_map(Step::Pods),
        (0usize..8).prop_map(Step::Read),
        (0usize..8).prop_map(Step::Read),
        (0usize..8).prop_map(Step::Read),
        (0u8..8).prop_map(Step::Gone),
    ]
}

proptest! {
    #[test]
    fn shares_never_exceed_limit_despite_late_or_lost_messages(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (mut shares, mut fleet) = (Shares::new(100), Fleet::default());
        let mut ready = BTreeSet::new();
        let mut now = Instant::now();
        for step in steps {
            now += ms(700);
            fleet.send(shares.tick(now));
            match step {
                Step::Pods(pods) => {
                    fleet.send(shares.set_pods(now, &pods));
                    ready = pods;
                }
                Step::Read(at) => {
                    if let Some(read) = fleet.read(at) {
                        fleet.send(shares.acknowledged(&read.pod, read.number));
                    }
                }
                Step::Gone(pod) => {
                    // It keeps its share, and is no longer connected.
                    fleet.using.remove(&pod);
                    fleet.unread.retain(|send| send.pod != pod);
                    ready.remove(&pod);
                    fleet.send(shares.remove(&pod));
                    fleet.send(shares.set_pods(now, &ready));
                }
            }
            let used: u64 = fleet.using.values().sum();
            prop_assert!(used <= 100_000, "{used}");
            prop_assert!(shares.in_use() <= 100_000);
        }
        for later in [now, now + LEAVES] {
            fleet.send(shares.tick(later));
            while let Some(read) = fleet.read(0) {
                fleet.send(shares.acknowledged(&read.pod, read.number));
                let used: u64 = fleet.using.values().sum();
                prop_assert!(used <= 100_000, "{used}");
            }
        }
        // When all is read, every ready pod has the same share, and it is all of it.
        for pod in &ready {
            let even = 100_000 / ready.len() as u64;
            prop_assert_eq!(fleet.using.get(pod), Some(&even));
        }
    }
}

fn offer() -> impl Strategy<Value = Option<Offered>> {
    let amount = prop_oneof![0u64..100_000, 0u64..5000, Just(u64::MAX)];
    let known = (amount, proptest::bool::ANY).prop_map(|(thousandths, refused)| Offered {
        thousandths,
        refused,
    });
    proptest::option::of(known)
}

proptest! {
    /// Whatever is offered to the others, and though it is made up.
    #[test]
    fn pod_keeps_what_it_needs_up_to_even_part(
        rounds in proptest::collection::vec(proptest::collection::vec(offer(), 1..8), 1..6),
    ) {
        let (mut shares, mut fleet) = (Shares::new(100), Fleet::default());
        let mut now = Instant::now();
        let mut borrows: BTreeSet<u8> = BTreeSet::new();
        for offers in rounds {
            now += LEAVES;
            let pods: BTreeSet<u8> = (0..offers.len() as u8).collect();
            for (pod, offered) in pods.iter().zip(&offers) {
                shares.offer(pod, *offered);
            }
            fleet.send(shares.set_pods(now, &pods));
            let each = 100_000 / offers.len() as u64;
            for (pod, offered) in pods.iter().zip(&offers) {
                shares.offer(pod, *offered);
                let more = offered.filter(|offered| offered.thousandths > each);
                if more.is_some_and(|more| more.refused) {
                    borrows.insert(*pod);
                } else if more.is_none() {
                    borrows.remove(pod);
                }
            }
            borrows.retain(|pod| pods.contains(pod));
            for _ in 0..3 {
                now += LEAVES;
                fleet.send(shares.tick(now));
                while let Some(read) = fleet.read(0) {
                    fleet.send(shares.acknowledged(&read.pod, read.number));
                    let used: u64 = fleet.using.values().sum();
                    prop_assert!(used <= 100_000, "{used}");
                }
            }
            let used: u64 = fleet.using.values().sum();
            prop_assert!(used + 2 * offers.len() as u64 > 100_000, "{used}");
            for (pod, offered) in pods.iter().zip(&offers) {
                let share = fleet.using[pod];
                let needs = offered.map_or(each, |offered| offered.thousandths.min(each));
                prop_assert!(share >= needs, "{pod} has {share} of {needs}");
                if borrows.is_empty() {
                    prop_assert_eq!(share, each);
                }
                if borrows.contains(pod) {
                    prop_assert!(share >= each, "{pod} has {share} of {each}");
                }
            }
        }
    }
}

#[test]
fn nothing_moves_while_nothing_is_refused() {
    let now = Instant::now();
    let mut shares = Shares::new(20);
    let sends = shares.set_pods(now, &BTreeSet::from([1, 2]));
    for send in sends {
        shares.acknowledged(&send.pod, send.number);
    }
    let offered = |thousandths, refused| {
        Some(Offered {
            thousandths,
            refused,
        })
    };
    shares.offer(&1, offered(15_000, false));
    shares.offer(&2, offered(1000, false));
    assert_eq!(shares.tick(now), []);
    shares.offer(&1, offered(15_000, true));
    let [smaller] = &shares.tick(now)[..] else {
        panic!("not one")
    };
    // An eighth of an even part, and half of what is not needed.
    assert_eq!((smaller.pod, smaller.share), (2, 3125));
    let larger = shares.acknowledged(&2, smaller.number);
    assert_eq!((larger[0].pod, larger[0].share), (1, 16_875));
    shares.acknowledged(&1, larger[0].number);
    // It goes on to need that.
    shares.offer(&1, offered(15_000, false));
    assert_eq!(shares.tick(now), []);
    shares.offer(&1, offered(9000, false));
    let sends = shares.tick(now);
    assert_eq!((sends[0].pod, sends[0].share), (1, 10_000));
}

#[test]
fn a_limit_that_shrinks_is_divided_anew() {
    let mut shares = Shares::new(100);
    let pods = BTreeSet::from([1, 2]);
    let send = |pod, share, number| Send { pod, share, number };
    assert_eq!(
        shares.set_pods(Instant::now(), &pods),
        [send(1, 50_000, 1), send(2, 50_000, 2)]
    );
    assert_eq!(shares.set_limit(10), [send(1, 5000, 3), send(2, 5000, 4)]);
    assert_eq!(shares.in_use(), 100_000, "until they say so");
    assert_eq!(
        shares.acknowledged(&1, 50_000),
        [],
        "that was the older one"
    );
    shares.acknowledged(&1, 3);
    shares.acknowledged(&2, 4);
    assert_eq!(shares.in_use(), 10_000);
}

#[test]
fn takeover_grows_no_share_into_parts_still_held() {
    let now = Instant::now();
    let mut shares = Shares::new(100);
    for pod in 1..=3 {
        shares.resume(&pod, 33_333, 33_333);
    }
    let sends = shares.set_pods(now, &BTreeSet::from([1, 2, 3, 4]));
    let sent: BTreeMap<u8, u64> = sends.iter().map(|send| (send.pod, send.share)).collect();
    let expected = [(1, 25_000), (2, 25_000), (3, 25_000), (4, 1)];
    assert_eq!(sent, BTreeMap::from(expected));
    assert!(shares.in_use() <= 100_000);
    // A pod that holds its share already is sent nothing.
    let mut same = Shares::new(100);
    same.resume(&1, 100_000, 100_000);
    assert!(same.set_pods(now, &BTreeSet::from([1])).is_empty());
    // A pod that was given another share than it holds is sent it anew.
    let mut other = Shares::new(100);
    other.resume(&1, 100_000, 0);
    let sends = other.set_pods(now, &BTreeSet::from([1]));
    assert_eq!((sends[0].pod, sends[0].share), (1, 100_000));
    // A pod that holds something and is not ready any more shrinks to nothing.
    let mut left = Shares::new(100);
    left.resume(&1, 100_000, 100_000);
    assert!(left.set_pods(now, &BTreeSet::new()).is_empty());
    let sends = left.tick(now + LEAVES);
    assert_eq!((sends[0].pod, sends[0].share), (1, 0));
}

#[test]
fn what_is_acknowledged_again_costs_nothing() {
    const PODS: u32 = 2000;
    let mut shares = Shares::new(PODS);
    let pods: BTreeSet<u32> = (0..PODS).collect();
    let now = Instant::now();
    let sends = shares.set_pods(now, &pods);
    assert_eq!(sends.len() as u32, PODS);
    for send in &sends {
        assert_eq!(shares.acknowledged(&send.pod, send.number), []);
    }
    // Against one division among all of them, of which each would be one more.
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(shares.tick(now), []);
    }
    let twenty = began.elapsed();
    let began = Instant::now();
    for send in &sends {
        assert_eq!(shares.acknowledged(&send.pod, send.number), []);
    }
    let again = began.elapsed();
    assert!(again < 10 * twenty, "{again:?} against {twenty:?}");
}

#[test]
fn numbers_go_on_after_those_that_another_limit_used() {
    let mut shares = Shares::new(100);
    shares.number_after(48);
    let sends = shares.set_pods(Instant::now(), &BTreeSet::from([1]));
    assert_eq!(sends[0].number, 49);
    shares.number_after(3);
    assert_eq!(shares.set_limit(10)[0].number, 50);
}
