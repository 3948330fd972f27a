//! Validates when an experiment runs: five fields as in a CronJob, and a time zone.
//!
//! Narrower than parsers of cron are, which differ in what they add: what passes here means the
//! same to all of them.

use std::ops::RangeInclusive;

/// Name, range and names of values of each field.
const FIELDS: [(&str, RangeInclusive<u8>, &[&str]); 5] = [
    ("minute", 0..=59, &[]),
    ("hour", 0..=23, &[]),
    ("day of the month", 1..=31, &[]),
    ("month", 1..=12, &MONTHS),
    ("day of the week", 0..=6, &DAYS),
];
/// The first is 1.
const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
/// The first is 0.
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// Characters of all fields, as in the schema.
const LONGEST: usize = 128;
/// Characters of a time zone, as in the schema.
const LONGEST_ZONE: usize = 64;

/// Why a text is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadCron {
    #[error("must have five fields: minute, hour, day of the month, month, day of the week")]
    Fields,
    #[error("may have {LONGEST} characters")]
    TooLong,
    #[error("its {field} must be *, or numbers from {least} to {most}{names} with , - and /")]
    Field {
        field: &'static str,
        least: u8,
        most: u8,
        /// Names of values, where it has any.
        names: &'static str,
    },
}

/// Whether the text is a schedule.
pub(super) fn check(text: &str) -> Result<(), BadCron> {
    if text.len() > LONGEST {
        return Err(BadCron::TooLong);
    }
    let written: Vec<&str> = text.split_whitespace().collect();
    if written.len() != FIELDS.len() {
        return Err(BadCron::Fields);
    }
    for (written, (field, range, names)) in written.into_iter().zip(FIELDS) {
        let mut entries = written.split(',');
        if !entries.all(|entry| is_entry(entry, &range, names)) {
            return Err(BadCron::Field {
                field,
                least: *range.start(),
                most: *range.end(),
                names: match names {
                    [] => "",
                    ["JAN", ..] => " or JAN to DEC",
                    _ => " or SUN to SAT",
                },
            });
        }
    }
    Ok(())
}

/// `*`, `n` or `n-m`; with `/step` behind all but `n`.
fn is_entry(entry: &str, range: &RangeInclusive<u8>, names: &[&str]) -> bool {
    let number = |text: &str| {
        let short = (1..=2).contains(&text.len());
        let digits = short && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u8>().ok()).flatten()
    };
    let value = |text: &str| {
        let named = names
            .iter()
            .zip(*range.start()..)
            .find(|(name, _)| text.eq_ignore_ascii_case(name));
        let value = named.map(|(_, value)| value).or_else(|| number(text));
        value.filter(|value| range.contains(value))
    };
    let (span, step) = match entry.split_once('/') {
        None => (entry, None),
        Some((span, step)) => (span, Some(number(step))),
    };
    let step_fits = match step {
        None => true,
        Some(step) => step.is_some_and(|step| step > 0 && step <= *range.end()),
    };
    let span_fits = match span.split_once('-') {
        _ if span == "*" => true,
        Some((from, to)) => match (value(from), value(to)) {
            (Some(from), Some(to)) => from <= to,
            _ => false,
        },
        None => step.is_none() && value(span).is_some(),
    };
    step_fits && span_fits
}

/// Whether a schedule has no day: a month that is named is too short for each day of the month.
pub(super) fn is_never(text: &str) -> bool {
    let written: Vec<&str> = text.split_whitespace().collect();
    let [_, _, days, months, weekdays] = written[..] else {
        return false;
    };
    // With both, either of them is enough.
    if weekdays != "*" || days.contains('*') {
        return false;
    }
    let first = |entry: &str| entry.split(['-', '/']).next()?.parse::<u8>().ok();
    let Some(first_day) = days.split(',').filter_map(first).min() else {
        return false;
    };
    let is_short = |month: &str| match month.to_ascii_uppercase().as_str() {
        "2" | "02" | "FEB" => first_day > 29,
        "4" | "04" | "APR" | "6" | "06" | "JUN" | "9" | "09" | "SEP" | "11" | "NOV" => {
            first_day > 30
        }
        _ => false,
    };
    months.split(',').all(is_short)
}

/// Whether the text looks like a name of the IANA database; only what starts the runs knows which
/// there are.
pub(super) fn is_time_zone(text: &str) -> bool {
    let is_part = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
        part.starts_with(|first: char| first.is_ascii_alphabetic()) && part.bytes().all(known)
    };
    text.len() <= LONGEST_ZONE && text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_fields_of_known_values_are_a_schedule() {
        for good in [
            "0 10 * * 2",
            "*/5 8-17 * * MON-FRI",
            "0,30 0 1-31/2 jan,JUL *",
            "59 23 31 12 6",
            " 0  10\t* * 0 ",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, field) in [
            ("60 * * * *", "minute"),
            ("-1 * * * *", "minute"),
            ("*/0 * * * *", "minute"),
            ("5/2 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * L * *", "day of the month"),
            ("* * * 13 *", "month"),
            ("* * * * 7", "day of the week"),
            ("* * * * FRI-MON", "day of the week"),
            ("* * * * MON#2", "day of the week"),
            ("* * * * 1,", "day of the week"),
        ] {
            let found = check(bad);
            assert!(
                matches!(found, Err(BadCron::Field { field: found, .. }) if found == field),
                "{bad}: {found:?}"
            );
        }
        for bad in ["", "@daily", "* * * *", "0 0 10 * * 2"] {
            assert_eq!(check(bad), Err(BadCron::Fields), "{bad}");
        }
        assert_eq!(check(&"0,".repeat(100)), Err(BadCron::TooLong));
    }

    #[test]
    fn day_that_no_month_has_is_never() {
        for never in [
            "0 0 30 2 *",
            "0 0 30,31 FEB *",
            "5 4 31 4,6,sep,11 *",
            "0 0 30-31 02 *",
        ] {
            assert!(check(never).is_ok() && is_never(never), "{never}");
        }
        for sometime in [
            "0 0 29 2 *",
            "0 0 30 2 1",
            "0 0 31 4,5 *",
            "0 0 31 2-3 *",
            "0 0 28-30 2 *",
            "0 0 * 2 *",
            "0 0 31 * *",
        ] {
            assert!(check(sometime).is_ok() && !is_never(sometime), "{sometime}");
        }
        let bad = check("0 0 * * 8").unwrap_err().to_string();
        assert!(bad.contains("from 0 to 6 or SUN to SAT with"), "{bad}");
    }

    #[test]
    fn time_zone_has_the_form_of_database_names() {
        for good in [
            "UTC",
            "Etc/UTC",
            "Europe/Berlin",
            "America/Argentina/Buenos_Aires",
            "Etc/GMT+3",
        ] {
            assert!(is_time_zone(good), "{good}");
        }
        for bad in ["", "/", "Europe/", "+02:00", "Europe/../etc", "a b", "É"] {
            assert!(!is_time_zone(bad), "{bad}");
        }
    }
}
