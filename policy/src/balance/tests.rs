//! Which endpoint is chosen, and how often.
//!
//! Claims: calls-20

use proptest::prelude::*;

use super::*;
use crate::sticky::{STEP, mix};

mod choosing;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// splitmix64: enough randomness for a test, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        number
    }
}

/// One client that sends at a steady rate for a time, over a virtual clock.
/// `latency(endpoint, since start)` answers; counts are per endpoint.
struct Load<'a> {
    endpoints: usize,
    per_second: u64,
    warm_up: Duration,
    counted: Duration,
    seed: u64,
    latency: &'a dyn Fn(usize, Duration) -> Duration,
}

impl Load<'_> {
    fn run(&self) -> Vec<u64> {
        let start = Instant::now();
        let mut dice = Dice(self.seed);
        let mut costs = vec![Cost::new(); self.endpoints];
        // Ends of requests on the way, with endpoint and latency.
        let mut flying: Vec<(Instant, usize, Duration)> = Vec::new();
        let mut taken = vec![0; self.endpoints];
        let gap = Duration::from_secs(1) / u32::try_from(self.per_second).unwrap();
        let mut since = Duration::ZERO;
        while since < self.warm_up + self.counted {
            let now = start + since;
            flying.sort_by_key(|(end, _, _)| *end);
            while flying.first().is_some_and(|(end, _, _)| *end <= now) {
                let (end, index, latency) = flying.remove(0);
                costs[index].observe(end, latency);
            }
            let in_flight = |index| flying.iter().filter(|(_, i, _)| *i == index).count();
            let random = (dice.roll(), dice.roll());
            let chosen = pick(
                |i| costs[i].score(now, in_flight(i)),
                self.endpoints,
                random,
            )
            .unwrap();
            let latency = (self.latency)(chosen, since);
            flying.push((now + latency, chosen, latency));
            if since >= self.warm_up {
                taken[chosen] += 1;
            }
            since += gap;
        }
        taken
    }
}

#[test]
fn a_slow_endpoint_among_three_gets_under_five_percent() {
    for seed in 0..10 {
        let taken = Load {
            endpoints: 3,
            per_second: 200,
            warm_up: Duration::from_secs(5),
            counted: Duration::from_secs(30),
            seed,
            latency: &|index, _| if index == 2 { ms(200) } else { ms(1) },
        }
        .run();
        let all: u64 = taken.iter().sum();
        assert_eq!(all, 6000);
        assert!(taken[2] * 20 < all, "seed {seed}: {taken:?}");
        assert!(
            taken[0] * 3 > all && taken[1] * 3 > all,
            "the others share: {taken:?}"
        );
    }
}

#[test]
fn equally_fast_endpoints_share_evenly() {
    let taken = Load {
        endpoints: 4,
        per_second: 200,
        warm_up: Duration::ZERO,
        counted: Duration::from_secs(60),
        seed: 7,
        latency: &|_, _| ms(10),
    }
    .run();
    let all: u64 = taken.iter().sum();
    assert!(
        taken.iter().all(|n| n * 5 > all && n * 10 < all * 3),
        "{taken:?}"
    );
}

#[test]
fn one_slightly_slower_response_excludes_no_endpoint() {
    // 50 calls, one after the other, as a newcomer tries a Service out.
    let taken = Load {
        endpoints: 2,
        per_second: 100,
        warm_up: Duration::from_millis(100),
        counted: Duration::from_millis(500),
        seed: 5,
        latency: &|index, since| {
            if index == 1 && since < ms(50) {
                ms(9)
            } else {
                ms(1)
            }
        },
    }
    .run();
    assert!(taken.iter().all(|n| *n >= 10), "{taken:?}");
}

#[test]
fn a_recovered_endpoint_comes_back_within_two_minutes() {
    let taken = Load {
        endpoints: 3,
        per_second: 50,
        warm_up: Duration::from_secs(150),
        counted: Duration::from_secs(30),
        seed: 3,
        latency: &|index, since| {
            if index == 2 && since < Duration::from_secs(30) {
                ms(200)
            } else {
                ms(1)
            }
        },
    }
    .run();
    let all: u64 = taken.iter().sum();
    assert!(taken[2] * 5 > all, "{taken:?}");
}

#[test]
fn an_estimate_rises_at_once_and_sinks_slowly() {
    let start = Instant::now();
    let mut cost = Cost::new();
    cost.observe(start, ms(10));
    cost.observe(start, ms(500));
    assert!((cost.score(start, 0) - 0.5).abs() < 1e-9);

    cost.observe(start + ms(10), ms(10));
    assert!(
        cost.score(start + ms(10), 0) > 0.49,
        "one fast answer does not clear a slow one"
    );

    let mut slow = Cost::new();
    for second in 0..=10 {
        slow.observe(start + Duration::from_secs(second), ms(500));
    }
    let left = slow.score(start + DECAY + DECAY, 0);
    assert!((0.17..0.20).contains(&left), "1/e of it is left: {left}");
}

#[test]
fn single_slow_response_fades_in_seconds_but_repeated_persist() {
    let start = Instant::now();
    let after = |cost: &Cost, seconds| cost.score(start + Duration::from_secs(seconds), 0);
    // The first of a new endpoint, and one of an endpoint that has long been fast.
    let mut fresh = Cost::new();
    fresh.observe(start, ms(500));
    for took in [15, 30, 39, 41, 100, 500] {
        let mut known = Cost::new();
        for second in 0..60 {
            known.observe(start - Duration::from_secs(60 - second), ms(1));
        }
        known.observe(start, ms(took));
        let mut first = Cost::new();
        first.observe(start, ms(took));
        for cost in [first, known] {
            assert!((after(&cost, 0) - took as f64 / 1000.0).abs() < 1e-9);
            let equal = INDIFFERENT.as_secs_f64();
            assert!((after(&cost, 4) - equal).abs() < 1e-9, "{took}: {cost:?}");
        }
    }
    // Several at once are the same moment.
    let mut at_once = fresh;
    for _ in 0..20 {
        at_once.observe(start, ms(400));
    }
    assert!((after(&at_once, 4) - after(&fresh, 4)).abs() < 1e-9);
    // Each time that it is asked again and found slow it is left alone for longer.
    let mut slow = fresh;
    slow.observe(start + Duration::from_secs(4), ms(500));
    assert!(after(&slow, 8) > 0.15, "{slow:?}");
}

#[test]
fn slow_starting_endpoint_gets_share_within_five_seconds() {
    for seed in 0..10 {
        let taken = Load {
            endpoints: 5,
            per_second: 200,
            warm_up: Duration::from_secs(6),
            counted: Duration::from_secs(10),
            seed,
            latency: &|index, since| {
                if index == 4 && since < ms(1000) {
                    ms(400)
                } else {
                    ms(2)
                }
            },
        }
        .run();
        let all: u64 = taken.iter().sum();
        assert!(taken[4] * 8 > all, "seed {seed}: {taken:?}");
    }
}

#[test]
fn failures_cost_like_good_response_elsewhere_without_escalating() {
    let now = Instant::now();
    let [mut one, mut other] = [Cost::new(); 2];
    one.observe(now, ms(100));
    other.observe(now, ms(100));
    for _ in 0..1000 {
        one.observe_failure(now, ms(1), Some(other.good_answer(now, 0)));
        other.observe_failure(now, ms(1), Some(one.good_answer(now, 0)));
    }
    for cost in [one, other] {
        let score = cost.score(now, 0);
        assert!((0.1..0.11).contains(&score), "{score}");
    }
    // What waits there would be waited for.
    one.observe_failure(now, ms(1), Some(other.good_answer(now, 9)));
    assert!(one.score(now, 0) > 1.0, "{}", one.score(now, 0));
    let mut first = Cost::new();
    first.observe_failure(now, ms(1), None);
    assert!(first.score(now, 0) >= ASSUMED_LATENCY.as_secs_f64());
}

#[test]
fn requests_on_the_way_count() {
    let now = Instant::now();
    let mut cost = Cost::new();
    cost.observe(now, ms(10));
    assert!((cost.score(now, 3) - 0.04).abs() < 1e-9);
}

#[test]
fn unmeasured_endpoint_is_cheapest_until_first_request_is_sent() {
    let now = Instant::now();
    let mut fast = Cost::new();
    fast.observe(now, Duration::from_micros(1));
    let fresh = Cost::new();
    assert!(fresh.score(now, 0) < fast.score(now, 0));
    assert!(
        fresh.score(now, 1) > fast.score(now, 1),
        "it might never answer"
    );
    assert!(fresh.score(now, 1) < fresh.score(now, 2));
}

#[test]
fn new_unresponsive_endpoint_does_not_attract_load() {
    let never = Duration::from_secs(3600);
    let taken = Load {
        endpoints: 3,
        per_second: 200,
        warm_up: Duration::ZERO,
        counted: Duration::from_secs(10),
        seed: 1,
        latency: &|index, _| if index == 0 { never } else { ms(1) },
    }
    .run();
    assert!(taken[0] < 20, "{taken:?}");
}

#[test]
fn abandoned_call_raises_cost_estimate_but_never_lowers_it() {
    let now = Instant::now();
    let secs = |cost: &Cost| cost.score(now, 0);
    let mut hung = Cost::new();
    hung.observe_at_least(now, ms(2000));
    assert!((secs(&hung) - 2.0).abs() < 1e-9);
    // A caller that leaves at once has seen nothing.
    hung.observe_at_least(now, ms(1));
    assert!((secs(&hung) - 2.0).abs() < 1e-9);
    hung.observe_at_least(now, ms(3000));
    assert!((secs(&hung) - 3.0).abs() < 1e-9);
    let mut fast = Cost::new();
    fast.observe(now, ms(1));
    let mut left = Cost::new();
    left.observe_at_least(now, Duration::ZERO);
    assert!(secs(&left) >= secs(&fast), "it is the cheapest only once");
    assert!((secs(&left) - INDIFFERENT.as_secs_f64()).abs() < 1e-9);
    // What it would take to answer well is another question.
    assert_eq!(hung.good_answer(now, 0), ASSUMED_LATENCY);
    // It is tried again after a while, and one good response decides.
    let later = now + Duration::from_secs(60);
    assert!(hung.score(later, 0) <= fast.score(later, 0));
}

#[test]
fn impatient_caller_does_not_reset_hanging_endpoint_cost() {
    let start = Instant::now();
    let mut hung = Cost::new();
    for second in 0..=10 {
        hung.observe_at_least(start + Duration::from_secs(second), ms(2000));
    }
    let later = start + Duration::from_secs(40);
    hung.observe_at_least(later, ms(200));
    assert!(
        hung.score(later + Duration::from_secs(5), 0) > 0.1,
        "{hung:?}"
    );
}

#[test]
fn an_unreachable_endpoint_is_left_alone() {
    let now = Instant::now();
    let mut dead = Cost::new();
    dead.penalise(now);
    let mut slow = Cost::new();
    slow.observe(now, ms(500));
    assert!(dead.score(now, 0) > slow.score(now, 5));
    let later = now + Duration::from_secs(120);
    let mut fast = Cost::new();
    fast.observe(later, ms(1));
    assert!(
        dead.score(later, 0) <= fast.score(later, 0),
        "and tried again later"
    );
}

#[test]
fn stalled_or_backward_clock_does_not_break_cost() {
    let now = Instant::now() + DECAY;
    let mut cost = Cost::new();
    cost.observe(now, ms(10));
    cost.observe(now - ms(5), ms(1));
    assert!((cost.score(now - ms(5), 0) - 0.01).abs() < 1e-9);
}

#[test]
fn better_of_two_is_picked_and_ties_random() {
    let scores = [3.0, 1.0, 2.0];
    let mut dice = Dice(5);
    let mut picked = [0u32; 3];
    let mut equal = [0u32; 3];
    for _ in 0..30_000 {
        let random = (dice.roll(), dice.roll());
        picked[pick(|i| scores[i], 3, random).unwrap()] += 1;
        equal[pick(|_| 0.0, 3, random).unwrap()] += 1;
    }
    assert_eq!(picked[0], 0, "the worst never wins against another");
    // The best wins two of three pairs: 20 000, sigma 82.
    assert!(picked[1].abs_diff(20_000) < 410, "{picked:?}");
    assert!(equal.iter().all(|n| n.abs_diff(10_000) < 410), "{equal:?}");
}

#[test]
fn nan_score_does_not_stop_picking() {
    assert!(pick(|_| f64::NAN, 2, (0, 0)).is_some());
}

#[test]
fn shares_are_relative_when_all_endpoints_are_new() {
    let works = |share| Candidate::Works {
        score: 1.0,
        share,
        load: 0,
    };
    assert_eq!(works(0.4).relative_to(0.4), works(1.0));
    assert_eq!(works(0.2).relative_to(0.4), works(0.5));
    assert_eq!(works(0.2).relative_to(1.0), works(0.2));
    assert_eq!(
        works(0.7).relative_to(0.4),
        works(1.0),
        "never more than that"
    );
    assert_eq!(Candidate::Ejected.relative_to(0.4), Candidate::Ejected);
}

proptest! {
    #[test]
    fn what_is_picked_exists(len in 0usize..50, a: u64, b: u64) {
        let indexes = std::cell::RefCell::new(Vec::new());
        let picked = pick(|i| { indexes.borrow_mut().push(i); 0.0 }, len, (a, b));
        prop_assert_eq!(picked.is_some(), len > 0);
        prop_assert!(picked.is_none_or(|i| i < len));
        let indexes = indexes.into_inner();
        prop_assert!(indexes.iter().all(|i| *i < len));
        if len > 1 {
            prop_assert_eq!(indexes.len(), 2);
            prop_assert_ne!(indexes[0], indexes[1]);
        }
    }
}
