//! Parses durations as Gateway API writes them: `1h30m`, `250ms`.
//!
//! Up to four numbers of at most five digits, each with its unit. That is narrower than what Go
//! parses, so that one text means the same to every client. The command line sums units alike, but
//! allows days and sets no bounds, because only `weft` reads what is typed there.

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};

/// What a duration looks like; Gateway API has the same.
const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// Characters of the longest one.
const LONGEST: usize = 28;
/// Numbers in one duration.
const MOST_PARTS: usize = 4;
/// Digits of one of them.
const MOST_DIGITS: usize = 5;
/// Milliseconds of every unit.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Milliseconds of an hour, the longest run of an experiment.
pub(super) const HOUR: u64 = 3_600_000;
/// Milliseconds of a day, the longest timeout and the longest step of a release.
pub(super) const DAY: u64 = 24 * HOUR;
/// Milliseconds of a week, the longest run of a release.
pub(super) const WEEK: u64 = 7 * DAY;

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a duration such as \"1h30m\" or \"250ms\": at most four whole numbers with h, m, s or ms"
)]
pub struct BadDuration;

/// Reads a duration.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut parts = 0;
    for number in numbers.filter(|number| !number.is_empty()) {
        parts += 1;
        if parts > MOST_PARTS || number.len() > MOST_DIGITS {
            return Err(BadDuration);
        }
    }
    add_up(text, &UNITS).ok_or(BadDuration)
}

/// Adds up whole numbers that each have a unit, such as `1h30m`; each of `units` comes with
/// its milliseconds. `None` for anything else, and for what is too long.
pub fn add_up(text: &str, units: &[(&str, u64)]) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut whole = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit());
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        let (_, milliseconds) = units.iter().find(|(name, _)| *name == unit)?;
        let number: u64 = number.parse().ok()?;
        let part = number.checked_mul(*milliseconds)?;
        whole = whole.checked_add(Duration::from_millis(part))?;
        rest = after;
    }
    Some(whole)
}

/// A duration as people write it, in whole units.
pub(super) fn written(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", milliseconds / unit),
        None if milliseconds == 0 => "0s".to_owned(),
        None => format!("{milliseconds}ms"),
    }
}

/// The schema of a duration between two bounds, both in milliseconds and both allowed.
pub(super) fn between<const LEAST: u64, const MOST: u64>(_: &mut SchemaGenerator) -> Schema {
    let (least, most) = (Duration::from_millis(LEAST), Duration::from_millis(MOST));
    let (least, most) = (written(least), written(most));
    json_schema!({
        "type": "string",
        "maxLength": LONGEST,
        "pattern": PATTERN,
        "x-kubernetes-validations": [{
            "rule": format!(
                "duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
            ),
            "message": format!("must be from {least} to {most}"),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gateway_api_writes_them() {
        let pattern = regex::Regex::new(PATTERN).unwrap();
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1s500ms", 1500),
            ("00001s", 1000),
            ("99999h99999m99999s99999ms", 366_096_438_999),
        ] {
            let read = parse_duration(text).map(|read| read.as_millis());
            assert_eq!(read, Ok(milliseconds), "{text}");
            assert!(pattern.is_match(text) && text.len() <= LONGEST, "{text}");
        }
        for text in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1d",
            "1us",
            "123456s",
            "1S",
            "1s1s1s1s1s",
            "٣s",
            "1hs",
        ] {
            assert_eq!(parse_duration(text), Err(BadDuration), "{text}");
            assert!(!pattern.is_match(text), "{text}");
        }
    }

    #[test]
    fn bounds_read_as_people_write_them() {
        for text in ["0s", "5ms", "1s", "90s", "5m", "1h", "24h"] {
            let read = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&written(read)), Ok(read));
        }
        assert_eq!(written(Duration::from_secs(300)), "5m");
    }
}
