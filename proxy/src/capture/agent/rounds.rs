//! Decides which network namespaces (pods) of its node the agent visits next.
//!
//! A new one is tried ten times a second, since its pod is about to start: for ten seconds, which
//! an image that is there needs. Then rarely, for what starts later.
//!
//! Few are tried at a time, and one whose process answers slowly holds its place for seconds. So
//! those in which no process listened before go first, and the agent gives up slow ones earlier
//! while others wait: however many pods are hostile, an honest one waits for none of them twice.
//! What came of a try does not count, since a hostile process can answer rightly and late.
//!
//! Invariant: time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

/// Namespaces that are tried at one time, each by a thread of its own.
pub(super) const AT_ONCE: usize = 16;
/// Names that are known. Kubelets run some hundred pods.
const MOST: usize = 4096;
/// Interval of looks at the folder, and of tries of a new namespace.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Interval of log lines about one namespace.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The interval of tries, by the time since the namespace was first seen.
fn interval(age: Duration) -> Duration {
    const NEW: Duration = Duration::from_secs(10);
    const YOUNG: Duration = Duration::from_secs(600);
    if age < NEW {
        LOOK_EVERY
    } else if age < YOUNG {
        Duration::from_millis(500)
    } else {
        Duration::from_secs(5)
    }
}

/// The namespaces of a node, by the names of their files.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    known: BTreeMap<OsString, Known>,
    busy: usize,
}

#[derive(Debug)]
struct Known {
    first: Instant,
    began: Instant,
    due: Instant,
    is_busy: bool,
    /// Tries in which more happened than that no process listens. An honest pod needs one.
    listened: u32,
    /// A file may be replaced by that of another namespace.
    inode: Option<u64>,
    reported: Option<Instant>,
}

impl Known {
    fn seen(now: Instant) -> Self {
        Self {
            first: now,
            began: now,
            due: now,
            is_busy: false,
            listened: 0,
            inode: None,
            reported: None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_busy && self.due <= now
    }
}

impl Rounds {
    /// Takes note of the names that the folder has now.
    pub(super) fn listed(&mut self, names: &BTreeSet<OsString>, now: Instant) {
        self.known
            .retain(|name, known| known.is_busy || names.contains(name));
        for name in names {
            if self.known.len() < MOST && !self.known.contains_key(name) {
                self.known.insert(name.clone(), Known::seen(now));
            }
        }
    }

    /// The name to try now, if there is one and a place for it.
    pub(super) fn next(&mut self, now: Instant) -> Option<OsString> {
        if self.busy == AT_ONCE {
            return None;
        }
        let due = self.known.iter_mut().filter(|(_, known)| known.is_due(now));
        let (name, known) = due.min_by_key(|(_, known)| (known.listened, known.due))?;
        known.is_busy = true;
        known.began = now;
        self.busy += 1;
        Some(name.clone())
    }

    /// A try has ended: of the namespace with this number, if the file was one. `listened`: a
    /// process did there, whatever came of it.
    pub(super) fn ended(&mut self, name: &OsStr, inode: Option<u64>, listened: bool, now: Instant) {
        let Some(known) = self.known.get_mut(name) else {
            return;
        };
        if known.is_busy {
            known.is_busy = false;
            self.busy -= 1;
        }
        if inode.is_some() && known.inode != inode {
            let began = known.began;
            let is_first = known.inode.is_none();
            let first = if is_first { known.first } else { now };
            *known = Known {
                first,
                began,
                inode,
                ..Known::seen(now)
            };
        }
        // Never taken back: a process that listens now and then would be a new one each time.
        known.listened = known.listened.saturating_add(u32::from(listened));
        // Half a look early, or a look that comes a moment late would be the next but one.
        known.due =
            known.began + interval(now.saturating_duration_since(known.first)) - LOOK_EVERY / 2;
    }

    /// Whether namespaces wait because as many are tried as may be.
    pub(super) fn is_crowded(&self, now: Instant) -> bool {
        self.busy == AT_ONCE && self.known.values().any(|known| known.is_due(now))
    }

    /// Whether something about this namespace may be logged, which a hostile pod must not repeat
    /// ten times a second.
    pub(super) fn may_report(&mut self, name: &OsStr, now: Instant) -> bool {
        let Some(known) = self.known.get_mut(name) else {
            return false;
        };
        let is_over = |at: Instant| now.saturating_duration_since(at) >= REPORT_EVERY;
        let may = known.reported.is_none_or(is_over);
        if may {
            known.reported = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(names: &[&str]) -> BTreeSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    /// Looks every 100 ms for so long, and returns how often each name was tried.
    fn tries(rounds: &mut Rounds, listed: &[&str], from: Instant, during: Duration) -> usize {
        let (mut now, mut tries) = (from, 0);
        while now < from + during {
            rounds.listed(&names(listed), now);
            while let Some(name) = rounds.next(now) {
                rounds.ended(&name, Some(1), false, now + Duration::from_millis(1));
                tries += 1;
            }
            // Looks come some milliseconds late.
            now += LOOK_EVERY + Duration::from_millis(u64::from(now > from));
        }
        tries
    }

    #[test]
    fn new_namespace_is_tried_often_and_older_rarely() {
        let start = Instant::now();
        let mut rounds = Rounds::default();
        let new = tries(&mut rounds, &["a"], start, 10 * SECOND);
        assert!((95..=100).contains(&new), "{new}");
        let young = tries(&mut rounds, &["a"], start + 11 * SECOND, 60 * SECOND);
        assert!((110..=125).contains(&young), "{young}");
        let old = tries(&mut rounds, &["a"], start + 700 * SECOND, 60 * SECOND);
        assert!((11..=13).contains(&old), "{old}");
    }

    #[test]
    fn replaced_file_is_new_and_gone_file_is_forgotten() {
        let start = Instant::now();
        let mut rounds = Rounds::default();
        tries(&mut rounds, &["a"], start, SECOND);
        let late = start + 700 * SECOND;
        rounds.listed(&names(&["a"]), late);
        assert_eq!(rounds.next(late).as_deref(), Some(OsStr::new("a")));
        rounds.ended(OsStr::new("a"), Some(2), false, late);
        assert_eq!(rounds.next(late), None);
        assert!(rounds.next(late + LOOK_EVERY).is_some(), "as a new one");
        // One that goes while it is tried keeps its place until then.
        rounds.listed(&names(&[]), late);
        assert_eq!(rounds.busy, 1);
        rounds.ended(OsStr::new("a"), Some(2), false, late);
        rounds.listed(&names(&[]), late);
        assert!(rounds.known.is_empty() && rounds.busy == 0);
    }

    #[test]
    fn namespace_with_a_listener_waits_behind_all_others() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        let hostile: Vec<String> = (0..2 * AT_ONCE).map(|n| format!("hostile-{n}")).collect();
        let hostile: Vec<&str> = hostile.iter().map(String::as_str).collect();
        rounds.listed(&names(&hostile), now);
        let busy: Vec<_> = std::iter::from_fn(|| rounds.next(now)).collect();
        assert_eq!(busy.len(), AT_ONCE);
        assert!(rounds.is_crowded(now), "slow ones must be given up");
        for name in &busy {
            rounds.ended(name, Some(1), true, now);
        }
        let later = now + SECOND;
        rounds.listed(&names(&[&hostile[..], &["z-honest"]].concat()), later);
        let next: Vec<_> = std::iter::from_fn(|| rounds.next(later)).collect();
        assert_eq!(next.len(), AT_ONCE);
        assert!(next.iter().all(|name| !busy.contains(name)), "{next:?}");
        for name in &next {
            rounds.ended(name, Some(1), true, later);
        }
        assert_eq!(rounds.next(later).as_deref(), Some(OsStr::new("z-honest")));
    }

    #[test]
    fn number_of_names_and_of_reports_is_bounded() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        let many: Vec<String> = (0..MOST + 10).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        rounds.listed(&names(&many), now);
        assert_eq!(rounds.known.len(), MOST);
        let reports = |rounds: &mut Rounds, from: Instant| {
            let times = (0..100).map(|n| from + n * LOOK_EVERY);
            times
                .filter(|at| rounds.may_report(OsStr::new("0"), *at))
                .count()
        };
        assert_eq!(reports(&mut rounds, now), 1);
        assert_eq!(reports(&mut rounds, now + 10 * SECOND), 1);
        assert!(!rounds.may_report(OsStr::new("never seen"), now));
    }
}
