//! The part of `maxConcurrency` that each priority class may use.
//!
//! The cap is what an application can take, such as the connections of its pool, so no class goes
//! beyond it, not even Critical. Below it a class leaves room for those above it: what is not
//! Critical a tenth of the cap, and what is Sheddable two fifths. Otherwise a full cap is full for
//! every class, and a pool of reports would keep payments out.
//!
//! Room is left while requests of a higher class come, and for ten seconds after. An
//! application with one class has all of its cap, which is what most have.
//!
//! A retry of a Critical request has none of the room that is left to those, as under a measured
//! limit; one of a Normal request stays what it is. Under a measured limit it would come to an
//! application that falls behind, while a cap may be reached in one pod with much room in the
//! next: there a request that is moved is welcome.
//!
//! Claims: calls-69

use std::time::{Duration, Instant};

use crate::traffic::guard::Priority;

/// For so long after a request room is left for the next one of its class: the time that
/// callers look back when they throttle themselves.
const LEFT_FOR: Duration = Duration::from_secs(10);

/// What may be used of ten parts of a cap that others need as well.
const NORMAL: u64 = 9;
const SHEDDABLE: u64 = 6;
const ALL: u64 = 10;

/// The classes for which room is left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cap {
    /// When one came last that is above Sheddable.
    above_sheddable: Option<Instant>,
    /// When a Critical one came last.
    critical: Option<Instant>,
}

impl Cap {
    /// Notes that a request of this class came, and returns whether fewer than `most` are in
    /// flight as far as it is concerned.
    pub(super) fn has_room(
        &mut self,
        now: Instant,
        priority: Priority,
        retry: bool,
        in_flight: u32,
        most: u32,
    ) -> bool {
        let class = match priority {
            Priority::Critical if retry => Priority::Normal,
            class => class,
        };
        if class > Priority::Sheddable {
            self.above_sheddable = Some(now);
        }
        if class == Priority::Critical {
            self.critical = Some(now);
        }
        let parts = match class {
            Priority::Sheddable if lately(now, self.above_sheddable) => SHEDDABLE,
            Priority::Sheddable | Priority::Normal if lately(now, self.critical) => NORMAL,
            _ => ALL,
        };
        // Rounded up: of few each class has one.
        u64::from(in_flight) * ALL < u64::from(most) * parts
    }
}

fn lately(now: Instant, came: Option<Instant>) -> bool {
    came.is_some_and(|came| now.saturating_duration_since(came) < LEFT_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Critical, Normal, Sheddable};

    /// How many of this class are admitted when no other is in flight.
    fn room(cap: &mut Cap, now: Instant, (priority, retry): (Priority, bool), most: u32) -> u32 {
        let fits = |n: &u32| cap.has_room(now, priority, retry, *n, most);
        (0..=most).take_while(fits).count() as u32
    }

    #[test]
    fn cap_reserves_room_for_active_higher_classes_within_max() {
        let now = Instant::now();
        let ten_seconds = now + LEFT_FOR;
        for most in [1, 2, 3, 10, 1000] {
            let mut cap = Cap::default();
            let mut of = |now, class| room(&mut cap, now, (class, false), most);
            assert_eq!(of(now, Sheddable), most, "no other class came");
            assert_eq!(of(now, Normal), most, "nothing Critical came");
            assert_eq!(of(now, Sheddable), (most * 6).div_ceil(10));
            assert_eq!(of(now, Critical), most);
            assert_eq!(of(now, Normal), (most * 9).div_ceil(10));
            assert_eq!(of(now, Sheddable), (most * 6).div_ceil(10));
            let later = ten_seconds - Duration::from_millis(1);
            assert_eq!(of(later, Normal), (most * 9).div_ceil(10));
            assert_eq!(of(ten_seconds, Normal), most, "none came for so long");
            let much_later = ten_seconds + LEFT_FOR;
            assert_eq!(of(much_later, Sheddable), most);
        }
    }

    #[test]
    fn critical_retry_gets_normal_room_and_others_keep_theirs() {
        let now = Instant::now();
        let mut cap = Cap::default();
        assert_eq!(room(&mut cap, now, (Normal, true), 10), 10);
        assert_eq!(room(&mut cap, now, (Critical, true), 10), 10);
        assert_eq!(room(&mut cap, now, (Critical, false), 10), 10);
        for class in [Critical, Normal] {
            assert_eq!(room(&mut cap, now, (class, true), 10), 9, "{class:?}");
        }
        assert_eq!(room(&mut cap, now, (Sheddable, true), 10), 6);
    }
}
