//! Formats numbers for people: rates, shares, durations.
//!
//! Claims: observe-43

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

/// As kubectl prints ages: two units at most.
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
#[must_use]
pub(crate) fn duration(text: &str) -> Option<Duration> {
    crds::weft::add_up(text, &UNITS)
}

/// Reads the time of an option that lies between these two. Its error names the form and the
/// bounds, whatever is wrong.
pub(crate) fn between(
    [shortest, longest]: [Duration; 2],
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text: &str| bounded(text, shortest, Some(longest))
}

/// The same without an upper limit.
pub(crate) fn at_least(
    shortest: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text: &str| bounded(text, shortest, None)
}

fn bounded(text: &str, shortest: Duration, longest: Option<Duration>) -> Result<Duration, String> {
    let read = duration(text);
    let nearest = read.map(|read| read.clamp(shortest, longest.unwrap_or(Duration::MAX)));
    if let Some(read) = read.filter(|_| read == nearest) {
        return Ok(read);
    }
    let bounds = match longest {
        Some(longest) => format!(", from {} to {}", written(shortest), written(longest)),
        None if shortest.is_zero() => String::new(),
        None => format!(", {} or more", written(shortest)),
    };
    let meant = nearest.map_or_else(String::new, |nearest| {
        format!("; you may mean {}", written(nearest))
    });
    Err(format!("must be a time such as 30s or 2m{bounds}{meant}"))
}

/// A time in the largest unit of which it is a multiple, as [`duration`] reads it.
#[must_use]
pub(crate) fn written(time: Duration) -> String {
    let millis = time.as_millis();
    let mut units = UNITS.iter().rev();
    let whole = units.find(|(_, unit)| {
        let unit = u128::from(*unit);
        millis >= unit && millis.is_multiple_of(unit)
    });
    match whole {
        Some((name, unit)) => format!("{}{name}", millis / u128::from(*unit)),
        None => "0s".to_owned(),
    }
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
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(duration("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(duration("30d"), Some(Duration::from_secs(2_592_000)));
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
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn invalid_duration_is_refused_with_form_and_bounds() {
        let seconds = Duration::from_secs;
        let window = between([seconds(10), seconds(300)]);
        let form = "must be a time such as 30s or 2m, from 10s to 5m";
        for (text, meant) in [
            ("-1m", ""),
            ("", ""),
            ("60", ""),
            ("1.5m", ""),
            ("0s", "; you may mean 10s"),
            ("9999ms", "; you may mean 10s"),
            ("301s", "; you may mean 5m"),
            ("300001ms", "; you may mean 5m"),
        ] {
            assert_eq!(window(text), Err(format!("{form}{meant}")), "{text}");
        }
        for (text, read) in [("10s", 10), ("1m30s", 90), ("5m", 300)] {
            assert_eq!(window(text), Ok(seconds(read)), "{text}");
        }
        let patient = at_least(seconds(1));
        let form = "must be a time such as 30s or 2m, 1s or more";
        assert_eq!(patient("-1s"), Err(form.to_owned()));
        assert_eq!(patient("0s"), Err(format!("{form}; you may mean 1s")));
        assert_eq!(patient("400d"), Ok(seconds(400 * 86_400)));
        let any = at_least(Duration::ZERO);
        assert_eq!(
            any("-1s"),
            Err("must be a time such as 30s or 2m".to_owned())
        );
        assert_eq!(any("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn time_is_written_as_it_is_read() {
        for text in ["0s", "1ms", "1500ms", "10s", "90s", "5m", "1h", "30d"] {
            let read = duration(text).unwrap();
            assert_eq!(written(read), text);
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
