//! `Share`: a part of many, in millionths, and which of many it selects: new traces that are
//! recorded, attempts that a FaultExperiment harms.
//!
//! Claims: observe-93

use std::fmt;
use std::str::FromStr;

/// In millionths, so that a percentage may have four digits behind its point.
const WHOLE: u32 = 1_000_000;
/// Millionths in a percent.
const PERCENT: u32 = WHOLE / 100;
/// Digits behind the point.
const DIGITS: usize = 4;

/// A share, in millionths. Holding one proves that it is at most the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

/// Why a text is no [`Share`]; a clause that follows the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is {0:?}, but must be {expected}", expected = Share::EXPECTED)]
pub struct NotAShare(String);

impl Share {
    /// What may be written.
    pub const EXPECTED: &str =
        "a percentage from 0 to 100 with at most four digits behind the point, such as \"0.5\"";
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(WHOLE);
    pub const ONE_PERCENT: Self = Self(PERCENT);

    /// `None` for more than all.
    #[must_use]
    pub const fn of_millionths(millionths: u32) -> Option<Self> {
        if millionths <= WHOLE {
            Some(Self(millionths))
        } else {
            None
        }
    }

    /// In millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Whether it takes this one, by a number that was drawn from all of `u64`. A larger share
    /// takes all that a smaller one does.
    #[must_use]
    pub const fn takes(self, drawn: u64) -> bool {
        // Scaled without the bias of a remainder.
        (drawn as u128 * WHOLE as u128) >> 64 < self.0 as u128
    }
}

impl FromStr for Share {
    type Err = NotAShare;

    /// A percentage such as `1`, `0.01` or `100`.
    fn from_str(text: &str) -> Result<Self, NotAShare> {
        let bad = || NotAShare(text.chars().take(80).collect());
        let (whole, behind) = match text.split_once('.') {
            Some((_, "")) => return Err(bad()),
            Some((whole, behind)) => (whole, behind),
            None => (text, ""),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || !digits(whole) {
            return Err(bad());
        }
        if behind.len() > DIGITS || !digits(behind) {
            return Err(bad());
        }
        let whole: u32 = whole.parse().map_err(|_| bad())?;
        let behind: u32 = format!("{behind:0<DIGITS$}").parse().map_err(|_| bad())?;
        Self::of_millionths(whole * PERCENT + behind).ok_or_else(bad)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, behind) = (self.0 / PERCENT, self.0 % PERCENT);
        if behind == 0 {
            return write!(f, "{whole}");
        }
        let behind = format!("{behind:0DIGITS$}");
        write!(f, "{whole}.{}", behind.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_parses_and_prints_exactly() {
        for (text, millionths) in [
            ("0", 0),
            ("0.0001", 1),
            ("0.5", 5_000),
            ("1", 10_000),
            ("33.3", 333_000),
            ("100", 1_000_000),
        ] {
            let share: Share = text.parse().unwrap();
            assert_eq!(share.millionths(), millionths, "{text}");
            assert_eq!(share.to_string(), text);
        }
        assert_eq!("100.0000".parse::<Share>().unwrap().millionths(), WHOLE);
        assert_eq!("007".parse::<Share>().unwrap().to_string(), "7");
    }

    #[test]
    fn invalid_percentage_is_refused_with_allowed_range() {
        let long = "1".repeat(10_000);
        for text in [
            "", ".", "-1", "+1", "1.", ".5", "100.0001", "101", "0.00001", "1e1", "1 ", "1%",
            "NaN", "inf", "½", &long,
        ] {
            let error = text.parse::<Share>().unwrap_err().to_string();
            assert!(error.contains("from 0 to 100"), "{error}");
            assert!(error.len() < 250, "{error}");
        }
    }

    #[test]
    fn share_selects_its_fraction_of_all_draws() {
        const DRAWS: u64 = 1_000_000;
        let taken = |text: &str| {
            let share: Share = text.parse().unwrap();
            let step = u64::MAX / DRAWS;
            (0..DRAWS).filter(|at| share.takes(at * step)).count()
        };
        assert_eq!(taken("0"), 0);
        for (text, expected) in [("1", 10_000_i64), ("10", 100_000), ("50", 500_000)] {
            let off = i64::try_from(taken(text)).unwrap() - expected;
            assert!(off.abs() <= 300, "{text}: {off}");
        }
        let all: Share = "100".parse().unwrap();
        assert_eq!(all, Share::ALL);
        assert!(all.takes(u64::MAX) && all.takes(0));
        assert!(!Share::NONE.takes(0));
    }
}
