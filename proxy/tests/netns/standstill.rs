//! Intervals in which the thread of a runtime was stalled, as on a machine that stops for a
//! moment: the time that a call waited then is not due to the called pod.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::sleep;

/// The thread shows so often that it runs.
const STEP: Duration = Duration::from_millis(10);
/// Shorter gaps are not noted: what else the thread does takes its time as well.
const NOTED: Duration = Duration::from_millis(100);

/// When each gap began and ended.
#[derive(Default)]
pub(super) struct Standstills(Mutex<Vec<(Instant, Instant)>>);

impl Standstills {
    /// Notes the gaps of the runtime that this is spawned on.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut last = Instant::now();
        loop {
            sleep(STEP).await;
            let now = Instant::now();
            if now - last > NOTED {
                self.0.lock().push((last, now));
            }
            last = now;
        }
    }

    /// How long it stalled within an interval that started then and lasted so long.
    pub(super) fn within(&self, started: Instant, lasted: Duration) -> Duration {
        let ended = started + lasted;
        let gaps = self.0.lock();
        let shared = gaps.iter().map(|(from, to)| {
            let (from, to) = ((*from).max(started), (*to).min(ended));
            to.saturating_duration_since(from)
        });
        shared.sum()
    }
}
