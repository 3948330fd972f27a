//! The seeds of a test with random cases: the same in every run, and others under `make fuzz`.
//!
//! Claims: attack-74

use std::panic::Location;
use std::thread;

/// The first seed, for tests that shall try others than usual.
const FROM: &str = "WEFT_FUZZ_FROM";

/// Seeds, one after another. At its end it prints on standard output how many were tried; after
/// a failure, the last of them and the command that tries this one first.
#[derive(Debug)]
pub struct Seeds {
    first: u64,
    count: u64,
    tried: u64,
    caller: &'static Location<'static>,
}

/// So many seeds: from 0, or from the number that the environment has in `WEFT_FUZZ_FROM`.
/// Kept until the end of a test, they report a failure after the last case as well.
#[track_caller]
pub fn seeds(count: u64) -> Seeds {
    let from = std::env::var(FROM).ok();
    Seeds::new(from.as_deref(), count, Location::caller())
}

impl Seeds {
    fn new(from: Option<&str>, count: u64, caller: &'static Location<'static>) -> Self {
        let first: Result<u64, _> = from.map_or(Ok(0), str::parse);
        assert!(first.is_ok(), "{FROM} is a number, not {from:?}");
        Self {
            first: first.unwrap_or_default(),
            count,
            tried: 0,
            caller,
        }
    }

    /// The line that is printed at the end; none for a test without a case.
    fn summary(&self, test: &str, failed: bool) -> Option<String> {
        let last = self.first.wrapping_add(self.tried.checked_sub(1)?);
        let package = self.caller.file().split('/').next().unwrap_or_default();
        Some(if failed {
            format!("once more: {FROM}={last} cargo test -p {package} {test}")
        } else {
            format!("cases of {package} {test}: {}", self.tried)
        })
    }
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.tried == self.count {
            return None;
        }
        let seed = self.first.wrapping_add(self.tried);
        self.tried += 1;
        Some(seed)
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        // The thread of a test has its name.
        let current = thread::current();
        let test = current.name().unwrap_or_default();
        if let Some(summary) = self.summary(test, thread::panicking()) {
            println!("{summary}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: Option<&str>) -> Seeds {
        Seeds::new(text, 3, Location::caller())
    }

    #[test]
    fn seeds_repeat_in_every_run_unless_environment_overrides() {
        assert_eq!(from(None).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(from(Some("700")).collect::<Vec<_>>(), [700, 701, 702]);
        assert!(std::panic::catch_unwind(|| from(Some("x"))).is_err());
    }

    #[test]
    fn failure_names_failing_seed_and_repeat_command() {
        let mut seeds = from(Some("700"));
        assert_eq!(seeds.summary("a::test", true), None);
        assert_eq!((seeds.next(), seeds.next()), (Some(700), Some(701)));
        let package = file!().split('/').next().unwrap();
        assert_eq!(
            seeds.summary("a::test", true),
            Some(format!(
                "once more: WEFT_FUZZ_FROM=701 cargo test -p {package} a::test"
            ))
        );
        assert_eq!(
            seeds.summary("a::test", false),
            Some(format!("cases of {package} a::test: 2"))
        );
    }
}
