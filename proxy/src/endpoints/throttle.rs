//! How this proxy holds back from a backend that sheds its requests.
//!
//! Nothing is counted before the first refusal, and nothing once ten seconds have passed
//! without one, so that calls to all other backends pay one look for it.

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

impl ClientThrottle {
    /// Whether anything may be held back, so that what is answered has to be recorded.
    #[must_use]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Relaxed)
    }

    /// Whether a call of this class is refused without being sent. `random` is uniform over
    /// all of `u64`.
    #[must_use]
    pub fn refuses(&self, now: Instant, class: Priority, random: u64) -> bool {
        let mut state = self.classes.lock();
        let Some(classes) = &mut *state else {
            return false;
        };
        if classes.iter().flatten().all(|one| one.is_over(now)) {
            *state = None;
            self.active.store(false, Relaxed);
            return false;
        }
        let one = classes[class as usize].as_mut();
        one.is_some_and(|one| one.refuses(now, random))
    }

    /// A call of this class was answered; `overloaded`: with the refusal `overload`.
    pub fn record(&self, now: Instant, class: Priority, overloaded: bool) {
        let mut state = self.classes.lock();
        if overloaded {
            let one = &mut state.get_or_insert_default()[class as usize];
            one.get_or_insert_with(|| Throttle::new(now))
                .record(now, overloaded);
            self.active.store(true, Relaxed);
        } else if let Some(one) = state
            .as_mut()
            .and_then(|classes| classes[class as usize].as_mut())
        {
            one.record(now, overloaded);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SURE: u64 = 0;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_class_that_is_refused_is_held_back_after_a_second_and_no_other_and_not_for_ever() {
        let throttle = ClientThrottle::default();
        let start = Instant::now();
        throttle.record(start, Priority::Normal, false);
        assert!(!throttle.is_active(), "nothing to remember");
        assert!(!throttle.refuses(start, Priority::Normal, SURE));
        for _ in 0..10 {
            throttle.record(start, Priority::Normal, true);
            throttle.record(start, Priority::Critical, false);
        }
        assert!(throttle.is_active());
        assert!(!throttle.refuses(start, Priority::Normal, SURE), "not yet");
        let then = start + SECOND;
        assert!(throttle.refuses(then, Priority::Normal, SURE));
        assert!(
            !throttle.refuses(then, Priority::Normal, u64::MAX),
            "not all"
        );
        for class in [Priority::Critical, Priority::Sheddable] {
            assert!(!throttle.refuses(then, class, SURE), "{class:?}");
        }
        throttle.record(then, Priority::Critical, true);
        throttle.record(then, Priority::Critical, true);
        assert!(
            !throttle.refuses(then, Priority::Critical, SURE),
            "it has a second of its own"
        );
        assert!(throttle.refuses(then + SECOND, Priority::Critical, SURE));
        let later = then + 12 * SECOND;
        assert!(!throttle.refuses(later, Priority::Normal, SURE));
        assert!(!throttle.is_active(), "it is over");
    }

    #[test]
    fn whoever_is_refused_less_than_half_goes_on_as_before() {
        let throttle = ClientThrottle::default();
        let start = Instant::now();
        for n in 0..100 {
            throttle.record(start, Priority::Normal, n % 2 == 0);
        }
        let then = start + SECOND;
        assert!(!throttle.refuses(then, Priority::Normal, SURE));
        for _ in 0..50 {
            throttle.record(then, Priority::Normal, true);
        }
        assert!(throttle.refuses(then, Priority::Normal, SURE));
    }
}
