//! Settings of the access log: which requests a proxy logs, and where.
//!
//! Claims: observe-97

use std::fmt;
use std::str::FromStr;

/// One line of JSON for each on standard output.
const JSON: u8 = 1;
/// A record for each at the collector.
const OTLP: u8 = 2;
/// Only what failed or was refused.
const ERRORS: u8 = 4;

/// The words that a list may hold, in the order in which it is written.
const WORDS: [(&str, u8); 3] = [("json", JSON), ("otlp", OTLP), ("errors", ERRORS)];

/// Such as `off`, `json` or `json,otlp,errors`. Holding one proves that it can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessLog(u8);

/// Why a text is no [`AccessLog`]; a clause that follows the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is {0:?}, but must be {expected}", expected = AccessLog::EXPECTED)]
pub struct NotAnAccessLog(String);

impl AccessLog {
    /// What may be written.
    pub const EXPECTED: &str = "\"off\", \"json\", \"otlp\" or \"json,otlp\", the last three \
        also with \",errors\"";
    /// Nothing is written; the default.
    pub const OFF: Self = Self(0);
    /// Every request is a line of JSON.
    pub const JSON: Self = Self(JSON);

    /// As one byte, for [`Self::from_bits`].
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Of what [`Self::bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether any request is written down.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.0 != 0
    }

    /// Whether those that are written down are lines of JSON.
    #[must_use]
    pub const fn is_json(self) -> bool {
        self.0 & JSON != 0
    }

    /// Whether they go to the collector.
    #[must_use]
    pub const fn is_otlp(self) -> bool {
        self.0 & OTLP != 0
    }

    /// The same, without what goes to the collector.
    #[must_use]
    pub const fn without_otlp(self) -> Self {
        Self(self.0 & !OTLP)
    }

    /// Whether a request is written down that `failed` or was refused, or did not.
    #[must_use]
    pub const fn takes(self, failed: bool) -> bool {
        self.is_on() && (failed || self.0 & ERRORS == 0)
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_on() {
            return f.write_str("off");
        }
        let words = WORDS.iter().filter(|(_, bit)| self.0 & bit != 0);
        for (at, (word, _)) in words.enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl FromStr for AccessLog {
    type Err = NotAnAccessLog;

    fn from_str(text: &str) -> Result<Self, NotAnAccessLog> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let bad = || NotAnAccessLog(text.chars().take(80).collect());
        let mut bits = 0;
        for part in text.split(',') {
            let known = WORDS.iter().find(|(word, _)| *word == part);
            let (_, bit) = known.ok_or_else(bad)?;
            if bits & bit != 0 {
                return Err(bad());
            }
            bits |= bit;
        }
        // Only what, and not where.
        if bits == ERRORS {
            return Err(bad());
        }
        Ok(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for text in [
            "off",
            "json",
            "otlp",
            "json,errors",
            "json,otlp",
            "json,otlp,errors",
        ] {
            let log: AccessLog = text.parse().unwrap();
            assert_eq!(log.to_string(), text);
            assert_eq!(AccessLog::from_bits(log.bits()), log);
        }
        assert_eq!(
            "errors,json".parse::<AccessLog>().unwrap().to_string(),
            "json,errors"
        );
        let long = "json,".repeat(10_000);
        for text in [
            "",
            "text",
            "errors",
            "otlp,otlp",
            "off,otlp",
            "off,json",
            "json,",
            ",json",
            "json,json",
            "JSON",
            "json, errors",
            &long,
        ] {
            let error = text.parse::<AccessLog>().unwrap_err().to_string();
            assert!(error.contains("\",errors\""), "{error}");
            assert!(error.len() < 200, "{error}");
        }
    }

    #[test]
    fn of_errors_only_what_failed_is_written_down() {
        for (text, good, failed) in [
            ("off", false, false),
            ("json", true, true),
            ("json,errors", false, true),
        ] {
            let log: AccessLog = text.parse().unwrap();
            assert_eq!(
                (log.takes(false), log.takes(true)),
                (good, failed),
                "{text}"
            );
        }
    }
}
