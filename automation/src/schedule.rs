//! Decides when an experiment with a schedule is due.
//!
//! A time that passed while no controller could start it is not made up for: an experiment that is
//! planned for ten in the morning is a surprise at noon. So it is due for [`LATE`], and afterwards
//! reported as missed, once however many times were missed.
//!
//! Invariant: time is an argument, and zones come from the program itself, not from its machine.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};

/// How late a run may begin.
pub const LATE: Duration = Duration::from_secs(10 * 60);

/// Times by a cron expression of five fields, in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// Why a schedule has no times.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The expression is none.
    #[error("cron {0:?} is not minute, hour, day of month, month and day of week: {1}")]
    Cron(String, String),
    /// The zone does not exist.
    #[error("timeZone {0:?} is no zone of the IANA database, such as Europe/Berlin or UTC")]
    Zone(String),
}

/// What a schedule wants now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this time; nothing ever where there is none.
    At(Option<Duration>),
    /// A run, for this time.
    Now(Duration),
    /// Nothing: this time, the last one before now, passed too long ago.
    Missed(Duration),
}

impl Schedule {
    /// Reads one. Without a zone it is UTC.
    ///
    /// # Errors
    /// When the expression or the zone cannot be read.
    pub fn read(cron: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let read = parser.parse(cron);
        let cron = read.map_err(|error| ScheduleError::Cron(cron.to_owned(), error.to_string()))?;
        let zone = match zone {
            None | Some("") => TimeZone::UTC,
            Some(name) => TimeZoneDatabase::bundled()
                .get(name)
                .map_err(|_| ScheduleError::Zone(name.to_owned()))?,
        };
        Ok(Self { cron, zone })
    }

    /// The first time after `since`; both since 1970.
    #[must_use]
    pub fn after(&self, since: Duration) -> Option<Duration> {
        let next = self.cron.find_next_occurrence(&self.at(since)?, false);
        since_1970(&next.ok()?)
    }

    /// What it wants at `now`, when its times up to `since` are done with.
    #[must_use]
    pub fn due(&self, since: Duration, now: Duration) -> Due {
        let Some(first) = self.after(since) else {
            return Due::At(None);
        };
        if first > now {
            return Due::At(Some(first));
        }
        let last = self.at(now).and_then(|now| {
            let last = self.cron.find_previous_occurrence(&now, true);
            since_1970(&last.ok()?)
        });
        let last = last.map_or(first, |last| last.max(first));
        if now.saturating_sub(last) <= LATE {
            Due::Now(last)
        } else {
            Due::Missed(last)
        }
    }

    fn at(&self, time: Duration) -> Option<Zoned> {
        let seconds = i64::try_from(time.as_secs()).ok()?;
        let time = Timestamp::from_second(seconds).ok()?;
        Some(time.to_zoned(self.zone.clone()))
    }
}

fn since_1970(time: &Zoned) -> Option<Duration> {
    let seconds = u64::try_from(time.timestamp().as_second()).ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Duration {
        let time: Timestamp = text.parse().unwrap();
        Duration::from_secs(u64::try_from(time.as_second()).unwrap())
    }

    fn tuesdays() -> Schedule {
        Schedule::read("0 10 * * 2", Some("Europe/Berlin")).unwrap()
    }

    #[test]
    fn schedule_keeps_its_hour_when_clocks_change() {
        // The clocks of Berlin go back on 2026-10-25.
        let summer = tuesdays().after(time("2026-10-18T12:00:00Z")).unwrap();
        assert_eq!(summer, time("2026-10-20T08:00:00Z"));
        assert_eq!(tuesdays().after(summer), Some(time("2026-10-27T09:00:00Z")));
    }

    #[test]
    fn due_run_is_missed_after_ten_minutes() {
        let (since, due) = (time("2026-11-25T00:00:00Z"), time("2026-12-01T09:00:00Z"));
        let at = |now| tuesdays().due(since, now);
        let second = Duration::from_secs(1);
        assert_eq!(at(due - second), Due::At(Some(due)));
        assert_eq!(at(due), Due::Now(due));
        assert_eq!(at(due + LATE), Due::Now(due));
        assert_eq!(at(due + LATE + second), Due::Missed(due));
        assert_eq!(
            tuesdays().due(due, due + second),
            Due::At(tuesdays().after(due))
        );
    }

    #[test]
    fn several_missed_times_are_one() {
        let since = time("2026-11-01T00:00:00Z");
        let (last, now) = (time("2026-11-24T09:00:00Z"), time("2026-11-25T00:00:00Z"));
        assert_eq!(tuesdays().due(since, now), Due::Missed(last));
    }

    #[test]
    fn unreadable_schedule_names_its_field() {
        let error = |cron, zone| Schedule::read(cron, zone).unwrap_err().to_string();
        assert!(error("0 10 * *", None).starts_with("cron \"0 10 * *\" is not minute"));
        assert!(
            error("0 0 10 * * 2", None).starts_with("cron"),
            "no seconds"
        );
        let zone = error("0 10 * * 2", Some("Europe/Atlantis"));
        assert!(zone.starts_with("timeZone \"Europe/Atlantis\""), "{zone}");
    }

    #[test]
    fn day_that_never_comes_is_never_due() {
        let never = Schedule::read("0 0 30 2 *", None).unwrap();
        let now = time("2026-11-29T00:00:00Z");
        assert_eq!(never.due(now, now + LATE), Due::At(None));
    }
}
