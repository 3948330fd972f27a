//! What is counted, of which keys, and when it is known.
//!
//! Claims: calls-66

use super::*;

/// Of a limit without keys.
const ALL: u64 = 0;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many a second, evenly, for these seconds after `start`.
fn comes(meter: &mut Meter, start: Instant, key: u64, rate: u64, seconds: std::ops::Range<u64>) {
    for at in seconds.start * rate..seconds.end * rate {
        meter.count(start + ms(1000 * at / rate), key, false);
    }
}

/// Requests in the limit's time, rounded.
fn offered(meter: &mut Meter, now: Instant) -> Option<u64> {
    let offered = meter.offered(now)?;
    Some((offered.thousandths + 500) / 1000)
}

#[test]
fn offered_rate_is_known_after_half_window() {
    let start = Instant::now();
    let mut meter = Meter::new(start, 20, ms(1000), false);
    comes(&mut meter, start, ALL, 10, 0..20);
    assert_eq!(
        Meter::new(start, 20, ms(1000), false).offered(start + ms(2400)),
        None
    );
    // Fifty in five seconds, and by chance seven more.
    let known = meter.offered(start + ms(19_999)).unwrap();
    assert!((11_000..=12_000).contains(&known.thousandths), "{known:?}");
    assert!(!known.refused);
    assert_eq!(offered(&mut meter, start + ms(30_000)), Some(0));
}

#[test]
fn refusal_is_known_immediately_and_for_five_seconds() {
    let start = Instant::now();
    let mut meter = Meter::new(start, 20, ms(1000), false);
    for at in 0..15 {
        meter.count(start + ms(50 * at), ALL, at > 5);
    }
    let known = meter.offered(start + ms(1000)).unwrap();
    assert!(known.refused && known.thousandths >= 15_000, "{known:?}");
    assert!(meter.offered(start + ms(5600)).unwrap().refused);
    assert!(!meter.offered(start + ms(5701)).unwrap().refused);
}

#[test]
fn refused_calls_after_few_are_counted_within_a_second() {
    let start = Instant::now();
    let mut meter = Meter::new(start, 20, ms(1000), false);
    comes(&mut meter, start, ALL, 1, 0..100);
    for at in 0..15 {
        meter.count(start + ms(100_000 + 66 * at), ALL, at > 5);
    }
    let known = meter.offered(start + ms(101_000)).unwrap();
    assert!(known.thousandths >= 7_000, "{known:?}");
}

#[test]
fn busiest_key_counts_however_many_others_there_are() {
    let start = Instant::now();
    let mut meter = Meter::new(start, 20, ms(1000), true);
    let mut hash = 1_u64;
    for second in 0..10 {
        for other in 0..40 {
            hash = (other + 1_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            meter.count(start + ms(1000 * second), hash, false);
        }
        for _ in 0..15 {
            meter.count(start + ms(1000 * second), hash, false);
        }
    }
    // Sixteen a second, what chance adds to eighty, and keys with the same cells.
    let known = meter.offered(start + ms(9999)).unwrap();
    assert!((16_000..=21_000).contains(&known.thousandths), "{known:?}");
}

#[test]
fn slow_limit_is_counted_for_twenty_of_its_tokens() {
    let start = Instant::now();
    let minute = ms(60_000);
    let mut meter = Meter::new(start, 60, minute, false);
    for at in 0..15 {
        meter.count(start + ms(4000 * at), ALL, false);
    }
    // Five in twenty seconds, and by chance two more.
    let known = meter.offered(start + ms(59_999)).unwrap();
    assert!((15_000..=24_000).contains(&known.thousandths), "{known:?}");
    assert!(meter.fits(60, minute, false));
    assert!(!meter.fits(60, minute, true) && !meter.fits(61, minute, false));
}

#[test]
fn what_wavers_by_a_quarter_is_not_reported_again() {
    let of = |thousandths, refused| Offered {
        thousandths,
        refused,
    };
    assert!(of(0, false).differs_from(None));
    assert!(!of(0, false).differs_from(Some(of(0, false))));
    assert!(!of(750, false).differs_from(Some(of(1000, false))));
    assert!(of(749, false).differs_from(Some(of(1000, false))));
    assert!(of(1001, false).differs_from(Some(of(1000, false))));
    assert!(of(1000, true).differs_from(Some(of(1000, false))));
}
