//! Throttles this proxy's calls to a backend that sheds its requests.
//!
//! Nothing is counted before the first refusal, nor once ten seconds have passed without one, so
//! that calls to all other backends check this once and do no more.
//!
//! Claims: calls-69

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use policy::overload::Throttle;
use policy::traffic::guard::Priority;

/// What is held back from one Service port, by class.
#[derive(Debug, Default)]
pub struct ClientThrottle {
    /// It has refused something lately.
    active: AtomicBool,
    /// Each as of its own first refusal.
    classes: Mutex<Option<Box<[Option<Throttle>; Priority::ALL.len()]>>>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It is sent.
    Uncounted,
    /// It is sent, and counts as accepted until it is refused.
    Counted,
    /// It is refused without being sent.
    Refused,
}

impl ClientThrottle {
    /// Whether anything may be held back, so that what is answered has to be recorded.
    #[must_use]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Relaxed)
    }

    /// What becomes of a call of this class. `random` is uniform over all of `u64`.
    #[must_use]
    pub(crate) fn admit(&self, now: Instant, class: Priority, random: u64) -> Admitted {
        let mut state = self.classes.lock();
        let Some(classes) = &mut *state else {
            return Admitted::Uncounted;
        };
        for one in classes.iter_mut() {
            one.take_if(|one| one.is_over(now));
        }
        if classes.iter().all(Option::is_none) {
            *state = None;
            self.active.store(false, Relaxed);
            return Admitted::Uncounted;
        }
        let Some(one) = &mut classes[class as usize] else {
            return Admitted::Uncounted;
        };
        if one.refuses(now, random) {
            Admitted::Refused
        } else {
            Admitted::Counted
        }
    }

    /// What is held back of each class, of the calls of the last ten seconds, in percent.
    #[must_use]
    pub(crate) fn percents(&self, now: Instant) -> [(Priority, u8); Priority::ALL.len()] {
        let state = self.classes.lock();
        Priority::ALL.map(|class| {
            let classes = state.as_ref();
            let one = classes.and_then(|classes| classes[class as usize].as_ref());
            (class, one.map_or(0, |one| one.percent(now)))
        })
    }

    /// A call of this class was answered; `overloaded`: with the refusal `overload`. `counted`:
    /// it was [`Admitted::Counted`].
    pub(crate) fn record(&self, now: Instant, class: Priority, counted: bool, overloaded: bool) {
        let mut state = self.classes.lock();
        if overloaded {
            let one = &mut state.get_or_insert_default()[class as usize];
            one.get_or_insert_with(|| Throttle::new(now))
                .record(now, counted, overloaded);
            self.active.store(true, Relaxed);
        } else if let Some(one) = state
            .as_mut()
            .and_then(|classes| classes[class as usize].as_mut())
        {
            one.record(now, counted, overloaded);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use Admitted::{Counted, Refused, Uncounted};

    const SURE: u64 = 0;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_refused_class_is_throttled_after_five_seconds() {
        let throttle = ClientThrottle::default();
        let start = Instant::now();
        let admit = |now, class| throttle.admit(now, class, SURE);
        throttle.record(start, Priority::Normal, false, false);
        assert!(!throttle.is_active(), "nothing to remember");
        assert_eq!(admit(start, Priority::Normal), Uncounted);
        for _ in 0..10 {
            throttle.record(start, Priority::Normal, false, true);
            throttle.record(start, Priority::Critical, false, false);
        }
        assert!(throttle.is_active());
        assert_eq!(admit(start, Priority::Normal), Counted, "not yet");
        let then = start + 5 * SECOND;
        assert_eq!(admit(then, Priority::Normal), Refused);
        let sent = throttle.admit(then, Priority::Normal, u64::MAX);
        assert_eq!(sent, Counted, "not all");
        for class in [Priority::Critical, Priority::Sheddable] {
            assert_eq!(admit(then, class), Uncounted, "{class:?}");
        }
        let [sheddable, normal, critical] = throttle.percents(then);
        assert_eq!((sheddable.1, critical.1), (0, 0));
        assert_eq!(normal, (Priority::Normal, 33), "one of three");
        throttle.record(then, Priority::Critical, false, true);
        throttle.record(then, Priority::Critical, false, true);
        let own = admit(then, Priority::Critical);
        assert_eq!(own, Counted, "it has five seconds of its own");
        assert_eq!(admit(then + 5 * SECOND, Priority::Critical), Refused);
        let later = then + 16 * SECOND;
        assert_eq!(admit(later, Priority::Normal), Uncounted);
        assert!(!throttle.is_active(), "it is over");
    }

    #[test]
    fn caller_refused_less_than_half_is_not_throttled() {
        let throttle = ClientThrottle::default();
        let start = Instant::now();
        for n in 0..100 {
            throttle.record(start, Priority::Normal, false, n % 2 == 0);
        }
        let then = start + 5 * SECOND;
        assert_eq!(throttle.admit(then, Priority::Normal, SURE), Counted);
        for _ in 0..50 {
            throttle.record(then, Priority::Normal, false, true);
        }
        assert_eq!(throttle.admit(then, Priority::Normal, SURE), Refused);
    }
}
