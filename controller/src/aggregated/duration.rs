//! Parses durations in Go's syntax: `30s`, `1m30s`, `1.5m`.
//!
//! Not jiff's parser, though jiff is linked: it also takes `5 m`, `1 hour, 2 mins`,
//! `01:02:03`, `5s ago` and ISO 8601, and not Go's `0`. A query must not mean something
//! here that other servers of this API refuse. Not the parser of policies either: Gateway
//! API's durations have no fraction, no sign and no unit below a millisecond.

use std::time::Duration;

/// Reads a duration that is not negative; `None` if the text is none.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let amount: f64 = amount.parse().ok()?;
        let part = Duration::try_from_secs_f64(amount * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::{Duration, parse};

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5m", 90_000),
            ("5m0s", 300_000),
            ("0", 0),
            ("+10s", 10_000),
            ("1500ms", 1_500),
            ("0.5h", 1_800_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_not_guessed() {
        for text in [
            "", "30", "s", "-5s", "1d", "5 m", "1.2.3s", "1e3s", "NaN", "9e99h", "30sx",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!("{}h", "9".repeat(40))), None);
    }
}
