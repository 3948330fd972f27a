//! When the certificate ends by which a caller has proved its identity.
//!
//! Certificates end by the wall clock. A timer stops while the machine is suspended, and knows
//! nothing of a clock that is set: by it a caller would be believed for as long again.
//!
//! Claims: attack-8

use std::time::SystemTime;

use runtime::clock::Clock;

/// The end of one caller's certificate. Clones are of the same one.
#[derive(Clone, Debug)]
pub(crate) struct CertificateEnd {
    at: SystemTime,
    clock: Clock,
}

impl CertificateEnd {
    /// Of one that is valid until `not_after` by `clock`.
    pub(crate) fn new(not_after: SystemTime, clock: Clock) -> Self {
        let now = clock.now();
        let left = not_after.duration_since(now).unwrap_or_default();
        // All connections of a caller were made with one certificate, and are not to be made anew
        // all at once. By then it has the next one.
        let early = left.mul_f64(rand::random::<f64>() / 16.0);
        let at = now + left.saturating_sub(early);
        Self { at, clock }
    }

    /// Returns once it has come.
    pub(crate) async fn passed(&self) {
        self.clock.sleep_until(self.at).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, UNIX_EPOCH};

    use runtime::clock::LOOK_EVERY;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A clock that goes with paused time, and how many seconds it is ahead.
    fn clock() -> (Clock, Arc<AtomicU64>) {
        let (start, ahead) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let jumps = Arc::clone(&ahead);
        let clock = Clock::from_fn(move || {
            let jump = Duration::from_secs(jumps.load(Relaxed));
            UNIX_EPOCH + 1_000 * HOUR + start.elapsed() + jump
        });
        (clock, ahead)
    }

    #[tokio::test(start_paused = true)]
    async fn certificate_end_is_early_by_max_sixteenth_with_jitter() {
        let (clock, _) = clock();
        let mut all = Vec::new();
        for _ in 0..20 {
            let (start, not_after) = (Instant::now(), clock.now() + 16 * HOUR);
            CertificateEnd::new(not_after, clock.clone()).passed().await;
            let took = start.elapsed();
            let most = 16 * HOUR + Duration::from_secs(1);
            assert!((15 * HOUR..most).contains(&took), "{took:?}");
            all.push(took);
        }
        all.dedup();
        assert!(all.len() > 1, "all at once: {all:?}");
        // One that is over already.
        let start = Instant::now();
        CertificateEnd::new(UNIX_EPOCH, clock).passed().await;
        assert!(start.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn suspended_machine_accepts_no_certificate_expired_meanwhile() {
        let (clock, ahead) = clock();
        let end = CertificateEnd::new(clock.now() + 8 * HOUR, clock.clone());
        let waiting = tokio::spawn(async move { end.passed().await });
        sleep(HOUR).await;
        assert!(!waiting.is_finished());
        ahead.store(8 * HOUR.as_secs(), Relaxed);
        let ended = timeout(2 * LOOK_EVERY, waiting).await;
        ended.expect("believed for hours").unwrap();
    }
}
