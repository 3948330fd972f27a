//! Parses shares as users write them: `10%`, `0.5%`.
//!
//! Text and not a number, so that `0.5` can mean neither a half nor half a percent. Two digits
//! behind the point are as many as a share of calls needs, and are read exactly.

use schemars::{Schema, SchemaGenerator, json_schema};

/// What a share looks like.
const PATTERN: &str = r"^[0-9]{1,3}(\.[0-9]{1,2})?%$";
/// Characters of the longest one, `100.00%`.
const LONGEST: usize = 7;
/// Hundredths of a percent in a whole.
const WHOLE: u32 = 10_000;

/// Why a text is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a share in percent such as \"5%\" or \"0.25%\": at most two digits behind a point"
)]
pub(super) struct BadPercent;

/// A share in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hundredths(pub(super) u32);

impl Hundredths {
    /// As a part of 1.
    pub(super) fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }
}

impl std::fmt::Display for Hundredths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (percent, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{percent}%"),
            rest if rest % 10 == 0 => write!(f, "{percent}.{}%", rest / 10),
            rest => write!(f, "{percent}.{rest:02}%"),
        }
    }
}

/// Reads a share.
pub(super) fn parse_percent(text: &str) -> Result<Hundredths, BadPercent> {
    let number = text.strip_suffix('%').ok_or(BadPercent)?;
    let (percent, rest) = match number.split_once('.') {
        None => (number, "0"),
        Some((percent, rest)) => (percent, rest),
    };
    let digits = |text: &str, most: usize| {
        let fits = !text.is_empty() && text.len() <= most;
        let digits = fits && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let tenths = if rest.len() == 1 { 10 } else { 1 };
    let percent = digits(percent, 3).ok_or(BadPercent)?;
    let rest = digits(rest, 2).ok_or(BadPercent)?;
    Ok(Hundredths(percent * 100 + rest * tenths))
}

/// The schema of a share between two bounds, both in hundredths of a percent and both allowed.
pub(super) fn percent<const LEAST: u32, const MOST: u32>(_: &mut SchemaGenerator) -> Schema {
    let (least, most) = (Hundredths(LEAST), Hundredths(MOST));
    let (from, to) = (least.to_string(), most.to_string());
    let (from, to) = (from.trim_end_matches('%'), to.trim_end_matches('%'));
    json_schema!({
        "type": "string",
        "maxLength": LONGEST,
        "pattern": PATTERN,
        "x-kubernetes-validations": [{
            "rule": format!(
                "double(self.replace('%', '')) >= double('{from}') && \
                 double(self.replace('%', '')) <= double('{to}')"
            ),
            "message": format!("must be from {least} to {most}"),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_exactly_and_nothing_else_is() {
        let pattern = regex::Regex::new(PATTERN).unwrap();
        for (text, hundredths, again) in [
            ("10%", 1000, "10%"),
            ("0.5%", 50, "0.5%"),
            ("0.05%", 5, "0.05%"),
            ("0.01%", 1, "0.01%"),
            ("007.10%", 710, "7.1%"),
            ("100%", 10_000, "100%"),
            ("999.99%", 99_999, "999.99%"),
        ] {
            let read = parse_percent(text);
            assert_eq!(read, Ok(Hundredths(hundredths)), "{text}");
            assert_eq!(Hundredths(hundredths).to_string(), again);
            assert!(pattern.is_match(text) && text.len() <= LONGEST, "{text}");
        }
        for text in [
            "", "%", "10", "0.5", "1000%", "0.001%", ".5%", "5.%", "-1%", "+1%", "1 %", "1%%",
            "1e1%", "٣%", "1.2.3%",
        ] {
            assert_eq!(parse_percent(text), Err(BadPercent), "{text}");
            assert!(!pattern.is_match(text), "{text}");
        }
        assert_eq!(Hundredths(25).fraction(), 0.0025);
    }
}
