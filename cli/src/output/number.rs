//! Numbers for people: rates, shares, times.

use std::time::Duration;

use super::table::{Cell, Tone};

/// A success rate below this is worth a look.
const GOOD_SHARE: f64 = 0.99;
/// And below this it is bad.
const BAD_SHARE: f64 = 0.95;
/// Milliseconds of the units that durations are typed in.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// `part` of `whole` in percent; empty where nothing happened.
#[must_use]
pub(crate) fn share(part: u64, whole: u64) -> Cell {
    if whole == 0 {
        return Cell::default();
    }
    let share = part as f64 / whole as f64;
    let tone = match share {
        share if share >= GOOD_SHARE => Tone::Good,
        share if share >= BAD_SHARE => Tone::Warning,
        _ => Tone::Bad,
    };
    Cell::toned(percent(share), tone)
}

/// 0 to 1 as percent. What is not all is never written as 100.
#[must_use]
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if share >= 1.0 {
        "100%".to_owned()
    } else {
        format!("{:.2}%", percent.min(99.99))
    }
}

/// So many in so many seconds, per second.
#[must_use]
pub(crate) fn rate(count: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return String::new();
    }
    format!("{:.1}", count as f64 / seconds)
}

/// Milliseconds, three digits of them.
#[must_use]
pub(crate) fn millis(ms: Option<f64>) -> String {
    match ms {
        None => String::new(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) if ms < 10_000.0 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.1}s", ms / 1000.0),
    }
}

/// As kubectl tells ages: two units at most.
#[must_use]
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{minutes}m"),
        7_200..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// A duration as people write it: `30s`, `2m`, `1h30m`, `200ms`, `7d`.
///
/// # Errors
/// A clause that follows the text.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    crds::weft::add_up(text, &UNITS)
        .ok_or_else(|| format!("{text:?} is no duration such as 30s, 2m, 1h or 7d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_among_many_is_never_written_as_all() {
        assert_eq!(percent(1.0), "100%");
        assert_eq!(percent(0.999_999), "99.99%");
        assert_eq!(percent(0.5), "50.00%");
        assert_eq!(share(0, 0), Cell::default(), "no calls are no share");
        assert_eq!(share(1, 2), Cell::toned("50.00%", Tone::Bad));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(2_592_000)));
        for bad in [
            "",
            "s",
            "10",
            "1y",
            "-1s",
            "1 s",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_few_digits() {
        assert_eq!(millis(Some(1.94)), "1.9ms");
        assert_eq!(millis(Some(412.3)), "412ms");
        assert_eq!(millis(Some(12_345.0)), "12.3s");
        assert_eq!(millis(None), "");
        assert_eq!(age(Duration::from_secs(4)), "4s");
        assert_eq!(age(Duration::from_secs(7_199)), "119m");
        assert_eq!(age(Duration::from_secs(200_000)), "2d");
    }
}
