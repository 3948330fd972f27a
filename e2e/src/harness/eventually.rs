//! Waits with a limit; their errors show the last state that was seen.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

/// Between two looks; a look through kubectl takes about as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The same, where the moment of a change counts.
const GLANCE: Duration = Duration::from_millis(50);

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

/// Repeats `look` until nothing has changed for `still`. Returns when the last change had
/// been seen, so never a moment before it, and what there was then; an error if it still
/// changes after `limit`.
pub fn settled<T: PartialEq + Debug>(
    limit: Duration,
    still: Duration,
    mut look: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<(Instant, T)> {
    let start = Instant::now();
    let mut seen = look()?;
    let mut changed = Instant::now();
    while changed.elapsed() < still {
        ensure!(
            start.elapsed() < limit,
            "still changing after {limit:?}: {seen:?}"
        );
        thread::sleep(GLANCE);
        let now = look()?;
        if now != seen {
            (seen, changed) = (now, Instant::now());
        }
    }
    Ok((changed, seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_value_reports_last_change_and_unsettled_fails() {
        let started = Instant::now();
        let last = Duration::from_millis(200);
        let steps = || Ok(started.elapsed().min(last).as_millis() / 100);
        let (at, seen) = settled(Duration::from_secs(10), 2 * last, steps).unwrap();
        assert_eq!(seen, 2);
        assert!(at >= started + last && at.elapsed() >= 2 * last);

        let never = settled(last, 10 * last, || Ok(Instant::now()));
        assert!(never.is_err(), "{never:?}");
    }
}
