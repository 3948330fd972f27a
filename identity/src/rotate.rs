//! Computes when a certificate is renewed. Pure: chance and time are arguments.

use std::time::{Duration, SystemTime};

/// Latest renewal, as a part of the time from issue to the end. What remains
/// (7 h of 24 h) is how long the mesh does without a controller.
const LATEST: f64 = 0.70;
/// Renewals are spread over this part before it, so that proxies that started
/// together do not renew together.
const SPREAD: f64 = 0.10;

/// When a leaf is renewed: at 70 % of the time from `issued` (the moment of
/// issue, not the backdated NotBefore) to `not_after`, less up to 10 % of that
/// time by `jitter01` in 0..=1. A certificate that has ended is renewed at
/// once.
#[must_use]
pub fn renew_at(issued: SystemTime, not_after: SystemTime, jitter01: f64) -> SystemTime {
    let life = not_after.duration_since(issued).unwrap_or(Duration::ZERO);
    let jitter = if jitter01.is_finite() {
        jitter01.clamp(0.0, 1.0)
    } else {
        0.0
    };
    issued + life.mul_f64(LATEST - SPREAD * jitter)
}

/// When an issuer is renewed: at two thirds of its life. One Lease holder does
/// this, so there is no jitter.
#[must_use]
pub fn renew_issuer_at(issued: SystemTime, not_after: SystemTime) -> SystemTime {
    let life = not_after.duration_since(issued).unwrap_or(Duration::ZERO);
    issued + life / 3 * 2
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn day_long_leaf_keeps_seven_hours_in_reserve() {
        let end = UNIX_EPOCH + 24 * HOUR;
        let reserve = end.duration_since(renew_at(UNIX_EPOCH, end, 0.0)).unwrap();
        assert!(reserve > 7 * HOUR, "{reserve:?}");
    }

    #[test]
    fn renewals_spread_over_a_tenth_of_the_life() {
        let end = UNIX_EPOCH + 10 * HOUR;
        let latest = renew_at(UNIX_EPOCH, end, 0.0);
        let earliest = renew_at(UNIX_EPOCH, end, 1.0);
        let spread = latest.duration_since(earliest).unwrap();
        assert!(
            spread.abs_diff(HOUR) < Duration::from_millis(1),
            "{spread:?}"
        );
    }

    #[test]
    fn ended_certificate_is_renewed_at_once() {
        let issued = UNIX_EPOCH + HOUR;
        assert_eq!(renew_at(issued, UNIX_EPOCH, 0.5), issued);
        assert_eq!(renew_issuer_at(issued, UNIX_EPOCH), issued);
    }

    #[test]
    fn issuer_of_ninety_days_is_renewed_after_sixty() {
        let end = UNIX_EPOCH + 90 * 24 * HOUR;
        assert_eq!(
            renew_issuer_at(UNIX_EPOCH, end),
            UNIX_EPOCH + 60 * 24 * HOUR
        );
    }

    proptest! {
        #[test]
        fn renewal_is_always_within_the_life(life in 0u64..1 << 40, jitter in any::<f64>()) {
            let end = UNIX_EPOCH + Duration::from_secs(life);
            let at = renew_at(UNIX_EPOCH, end, jitter);
            prop_assert!(at >= UNIX_EPOCH && at <= end);
        }
    }
}
