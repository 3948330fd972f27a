//! The offset of a proxy's or replica's clock from ours. Where the clock is wrong, its reports are
//! dated by ours.
//!
//! A shift is whole intervals and stays until the clock is more than an interval away from it, or
//! right again. If it followed every measurement, reports that are sent again on a new stream
//! would fall into other intervals than before and be counted twice.
//!
//! A message with a clock's time may have waited on its way: for CPU that was withheld, or for a
//! packet that was lost. That makes a clock look late and never early, so a clock counts as late
//! only when it has looked so twice in a row.
//!
//! Proxies of versions that do not send their clock's time are measured by the intervals of their
//! reports alone. The age of a repeated report is not known.
//!
//! Claims: observe-104, observe-11

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use wire::v1;

/// Length of an interval in seconds, as in the proxies.
pub(crate) const INTERVAL: u64 = 5;
/// The same, with a sign.
const INTERVAL_SECONDS: i64 = INTERVAL.cast_signed();
/// The same in milliseconds. A clock may be wrong by as much and nothing is shifted.
const INTERVAL_MILLIS: i64 = INTERVAL_SECONDS * 1000;
/// What is read within this time may have waited together, and counts once.
const TOGETHER: Duration = Duration::from_secs(1);
/// Intervals that are reported again on a new stream come within this time, and behind them those
/// that have just ended.
const RESENT_WITHIN: Duration = Duration::from_secs(30);

/// See the module header.
#[derive(Debug)]
pub(crate) struct ClockOffset {
    /// Milliseconds by which the clock was ahead of ours.
    ahead: i64,
    /// Intervals by which its reports are.
    intervals: i64,
    /// When its stream opened, until its clock is first read.
    opened: Option<Instant>,
    /// Since when it looks late and is not yet taken to be so.
    late: Option<Instant>,
    /// The same of one that is known by intervals, with what it was ahead by the newest of them.
    old: Option<(Instant, i64)>,
    /// Milliseconds since 1970 by ours at its last report of an interval, and when that was.
    ours: Option<(u64, Instant)>,
}

impl ClockOffset {
    /// Of a clock whose reports were ahead by so many intervals, on a stream that opened then.
    pub(crate) fn of_stream(intervals: i64, opened: Instant) -> Self {
        Self {
            ahead: 0,
            intervals,
            opened: Some(opened),
            late: None,
            old: None,
            ours: None,
        }
    }

    /// The same clock on its next stream, which opens now.
    pub(super) fn reopen(&mut self, now: Instant) {
        *self = Self::of_stream(self.intervals, now);
    }

    /// Milliseconds by which the clock was ahead of ours.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead
    }

    /// Intervals by which its reports are.
    pub(crate) fn intervals(&self) -> i64 {
        self.intervals
    }

    /// Compares what it shows, in milliseconds, with ours at this moment. What is said first
    /// may have waited here for as long as the stream is open: within that the clock is taken
    /// to be as it was. After that one that looks late must do so twice.
    pub(crate) fn compare(&mut self, theirs: u64, now: SystemTime, at: Instant) {
        let (ahead, shifted) = (ahead_of(now, theirs), self.shifted());
        let (opened, late) = (self.opened.take(), self.late.take());
        if opened.is_none() && ahead < shifted.saturating_sub(INTERVAL_MILLIS) {
            let since = late.unwrap_or(at);
            if at.saturating_duration_since(since) < TOGETHER {
                self.late = Some(since);
                return;
            }
        }
        let waited = opened.map_or(Duration::ZERO, |opened| {
            at.saturating_duration_since(opened)
        });
        let waited = i64::try_from(waited.as_millis()).unwrap_or(i64::MAX);
        self.ahead = shifted.clamp(ahead, ahead.saturating_add(waited));
        let half = INTERVAL_MILLIS / 2;
        let is_right = self.ahead.unsigned_abs() < half.unsigned_abs();
        if is_right || self.ahead.abs_diff(shifted) > INTERVAL_MILLIS.unsigned_abs() {
            self.shift();
        }
    }

    /// The same of a clock that no message shows: at this moment of ours a report came of an
    /// interval that starts there, in seconds. It has ended, but for the last one of a pod that
    /// ends. So the clock is ahead at once where that is, and late only when all that is reported
    /// for a while is old.
    pub(crate) fn note_interval(&mut self, interval: u64, now: SystemTime, at: Instant) {
        let end = interval.saturating_add(INTERVAL).saturating_mul(1000);
        let (ahead, shifted) = (ahead_of(now, end), self.shifted());
        let old = self.old.take();
        if ahead > shifted.saturating_add(INTERVAL_MILLIS) {
            self.ahead = ahead;
            self.shift();
        } else if ahead < shifted.saturating_sub(INTERVAL_MILLIS) {
            let (since, newest) = old.unwrap_or((at, ahead));
            let newest = newest.max(ahead);
            if at.saturating_duration_since(since) < RESENT_WITHIN {
                self.old = Some((since, newest));
            } else {
                self.ahead = newest;
                self.shift();
            }
        }
    }

    /// Looks at our own clock, at this moment of ours at which a report comes of an interval that
    /// starts there, in seconds. When ours was set it is ahead by that much less, and would show so
    /// only minutes later; unless both were, or neither, but this process stalled. The reported
    /// interval has just ended, so it shows which.
    pub(crate) fn follow_ours(&mut self, interval: u64, now: SystemTime, at: Instant) {
        let Some((shown, looked_at)) = self.ours.replace((millis(now), at)) else {
            return;
        };
        let passed = at.saturating_duration_since(looked_at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let step = -ahead_of(now, shown.saturating_add(passed));
        if step.unsigned_abs() <= 2 * INTERVAL_MILLIS.unsigned_abs() {
            return;
        }
        let reported = ahead_of(now, interval.saturating_add(INTERVAL).saturating_mul(1000));
        let (before, after) = (self.shifted(), self.shifted().saturating_sub(step));
        if reported.abs_diff(after) < reported.abs_diff(before) {
            self.ahead = self.ahead.saturating_sub(step);
            (self.late, self.old) = (None, None);
            self.shift();
        }
    }

    /// Milliseconds by which its reports are ahead.
    fn shifted(&self) -> i64 {
        self.intervals.saturating_mul(INTERVAL_MILLIS)
    }

    /// Its reports are ahead by the intervals that are nearest to what it is.
    fn shift(&mut self) {
        let nearest = self.ahead.saturating_add(INTERVAL_MILLIS / 2);
        self.intervals = nearest.div_euclid(INTERVAL_MILLIS);
    }

    /// A report that is dated by that clock, dated by ours.
    pub(crate) fn dated(&self, report: v1::Report) -> v1::Report {
        let ahead = self.intervals.saturating_mul(INTERVAL_SECONDS);
        v1::Report {
            slot: report.slot.saturating_add_signed(ahead.saturating_neg()),
            ..report
        }
    }
}

/// Milliseconds by which a clock that shows `theirs` is ahead of ours.
fn ahead_of(now: SystemTime, theirs: u64) -> i64 {
    let ahead = i128::from(theirs) - i128::from(millis(now));
    i64::try_from(ahead).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970.
pub(super) fn millis(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock whose reports were shifted by so many intervals, on a stream that opened now.
    fn clock(intervals: i64) -> (ClockOffset, Instant) {
        let opened = Instant::now();
        (ClockOffset::of_stream(intervals, opened), opened)
    }

    /// Our clock.
    const OURS: u64 = 1_000_000_000;

    fn ours() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(OURS)
    }

    #[test]
    fn report_is_redated_if_clock_error_exceeds_one_interval() {
        for (ahead, intervals) in [
            (0, 0),
            (5_000, 0),
            (-5_000, 0),
            (5_001, 1),
            (-5_001, -1),
            (62_400, 12),
            (-62_600, -13),
        ] {
            let (mut clock, opened) = clock(0);
            clock.compare(OURS.saturating_add_signed(ahead), ours(), opened);
            let report = v1::Report {
                process: 7,
                slot: 10_000,
                ..v1::Report::default()
            };
            let dated = clock.dated(report.clone());
            let expected = v1::Report {
                slot: 10_000_u64.saturating_add_signed(-intervals * INTERVAL_SECONDS),
                ..report
            };
            assert_eq!(dated, expected, "{ahead} ms ahead");
        }
    }

    #[test]
    fn clock_shift_stays_unless_off_by_interval_or_corrected() {
        // Also on the next stream: what is sent again there must lie where it lay.
        let mut ahead_before = 0;
        for (ahead, intervals) in [
            (12_400, 2),
            (12_600, 2),
            (15_000, 2),
            (15_100, 3),
            (10_000, 3),
            (9_900, 2),
            (0, 0),
            (5_100, 1),
            (2_600, 1),
            (2_400, 0),
        ] {
            let (mut clock, opened) = clock(ahead_before);
            clock.compare(OURS.saturating_add_signed(ahead), ours(), opened);
            assert_eq!(clock.intervals(), intervals, "{ahead} ms ahead");
            ahead_before = clock.intervals();
        }
    }

    #[test]
    fn delayed_first_message_does_not_make_clock_late() {
        let late = |waited, then| {
            let (mut clock, opened) = clock(0);
            let read = opened + Duration::from_secs(waited);
            clock.compare(OURS - 8_000, ours(), read);
            let first = (clock.ahead(), clock.intervals());
            clock.compare(OURS - then, ours(), read);
            let second = clock.intervals();
            clock.compare(OURS - then, ours(), read + TOGETHER);
            (first, second, clock.intervals())
        };
        assert_eq!(late(9, 100), ((0, 0), 0, 0));
        assert_eq!(
            late(2, 100),
            ((-6_000, -1), 0, 0),
            "it cannot have waited so long"
        );
        assert_eq!(late(9, 8_000), ((0, 0), 0, -2), "late twice is late");
    }

    /// Intervals shifted after reports of a clock that no message shows, each so many seconds after
    /// its stream opened, of an interval that ended so many milliseconds ahead of ours.
    fn intervals_after(ahead_before: i64, intervals: &[(u64, i64)]) -> i64 {
        let (mut clock, opened) = clock(ahead_before);
        for (second, ahead) in intervals {
            // A whole interval's end.
            let at = opened + Duration::from_secs(*second);
            let ours = UNIX_EPOCH + Duration::from_millis(OURS.saturating_add_signed(-ahead));
            clock.note_interval(OURS / 1000 - INTERVAL, ours, at);
        }
        clock.intervals()
    }

    #[test]
    fn unreported_clock_offset_follows_from_closed_intervals() {
        // An interval is reported within a second after its end.
        for (ahead, intervals) in [(-900, 0), (5_000, 0), (5_001, 1), (61_600, 12)] {
            assert_eq!(
                intervals_after(0, &[(0, ahead)]),
                intervals,
                "{ahead} ms ahead"
            );
        }
        // What was reported before is sent again on a new stream, and proves nothing.
        let again = [(0, -300_000), (1, -90_000), (6, 61_500), (60, 61_500)];
        assert_eq!(intervals_after(12, &again), 12);
        assert_eq!(intervals_after(0, &again[..2]), 0);
    }

    #[test]
    fn unreported_clock_offset_clears_after_quiet_interval() {
        let right = [(0, -300_000), (5, -500), (30, -800)];
        assert_eq!(intervals_after(12, &right[..2]), 12, "it may be sent again");
        assert_eq!(intervals_after(12, &right), 0);
        // By the newest of them.
        assert_eq!(intervals_after(12, &[(0, 20_000), (30, -300_000)]), 4);
        let between = [(0, -300_000), (29, 59_000), (31, -300_000)];
        assert_eq!(intervals_after(12, &between), 12);
    }

    #[test]
    fn setting_our_clock_shifts_proxy_offset_unless_both_set() {
        // Seconds by which ours and theirs were set, and intervals by which theirs is ahead then.
        for (our_step, their_step, intervals) in [
            (0, 0, 0),
            (9, 0, 0),
            (600, 0, -120),
            (-600, 0, 120),
            (7_200, 0, -1_440),
            (600, 600, 0),
            (-600, -600, 0),
        ] {
            let (mut clock, opened) = clock(0);
            let next = OURS / 1000;
            clock.follow_ours(next - INTERVAL, ours(), opened);
            let passed = Duration::from_secs(INTERVAL);
            let shown = OURS.saturating_add_signed((our_step + INTERVAL_SECONDS) * 1000);
            let now = UNIX_EPOCH + Duration::from_millis(shown);
            clock.follow_ours(next.saturating_add_signed(their_step), now, opened + passed);
            assert_eq!(
                clock.intervals(),
                intervals,
                "{our_step} s, theirs {their_step} s"
            );
        }
    }

    #[test]
    fn what_comes_late_once_or_together_shifts_nothing() {
        let (mut clock, opened) = clock(0);
        let mut shift = |second: u64, late: u64| {
            let at = opened + Duration::from_secs(second);
            clock.compare(OURS - late, ours(), at);
            (clock.ahead(), clock.intervals())
        };
        assert_eq!(shift(0, 100), (-100, 0));
        assert_eq!(shift(30, 8_000), (-100, 0));
        assert_eq!(shift(60, 200), (-200, 0));
        // Read at once, after a pause in which nothing was.
        for _ in 0..9 {
            assert_eq!(shift(90, 8_000), (-200, 0));
        }
        assert_eq!(shift(120, 8_000), (-8_000, -2));
        // From there on it counts anew, and nothing waits so as to look early.
        assert_eq!(shift(150, 30_000), (-8_000, -2));
        assert_eq!(shift(180, 100), (-100, 0));
    }
}
