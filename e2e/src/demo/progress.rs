//! One line per step with the seconds since the start, and a sign of life while a
//! step lasts. The same form as the scripts of the local cluster have.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Silence any longer looks like hanging.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Reports each step on standard error.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    pub fn begin() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub fn say(self, text: &str) {
        eprintln!("[{:4}s] {text}", self.start.elapsed().as_secs());
    }

    /// Announces `work` and says every ten seconds that it still runs.
    pub fn step<T>(self, text: &str, work: impl FnOnce() -> T) -> T {
        self.say(text);
        // Dropping the sender ends the pulse, also when `work` panics.
        let (done, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    self.say(&format!("  still {text}"));
                }
            });
            let outcome = work();
            drop(done);
            outcome
        })
    }
}
