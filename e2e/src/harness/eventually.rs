//! Waiting with a limit, and saying what was last seen when it passes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Between two looks; a look through kubectl takes about as long.
const PAUSE: Duration = Duration::from_millis(100);

/// Repeats `look` until it succeeds; after `limit` its last error is returned.
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(error) if start.elapsed() >= limit => {
                return Err(error)
                    .with_context(|| format!("still not true after {limit:?}: {what}"));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
