//! The log filter of a proxy: a level, and levels of single modules.
//!
//! It supports less than the filters of the library that logs: no spans and no fields. Any author
//! of pod annotations may write one, and every event is checked against it.
//!
//! Claims: observe-90

use std::str::FromStr;
use std::sync::Arc;

/// Longest filter in bytes: a dozen modules by their full paths.
const LONGEST: usize = 256;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Such as `info` or `warn,weft_proxy::control=debug`. Holding one proves that it can be
/// used. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(Arc<str>);

/// Why a text is no [`LogFilter`]; a clause that follows the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALogFilter {
    /// It is longer than any filter may be.
    #[error("has {0} bytes, but must have at most {LONGEST}")]
    TooLong(usize),
    /// One part of it, between commas, cut to a readable length.
    #[error("holds {0:?}, but must be {expected}", expected = LogFilter::EXPECTED)]
    Part(String),
}

impl LogFilter {
    /// What may be written.
    pub const EXPECTED: &str = "off, error, warn, info, debug or trace, or a list of module=level";

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The default.
impl Default for LogFilter {
    fn default() -> Self {
        Self("info".into())
    }
}

impl FromStr for LogFilter {
    type Err = NotALogFilter;

    fn from_str(text: &str) -> Result<Self, NotALogFilter> {
        if text.len() > LONGEST {
            return Err(NotALogFilter::TooLong(text.len()));
        }
        match text.split(',').find(|part| !is_usable(part)) {
            None => Ok(Self(text.into())),
            Some(part) => Err(NotALogFilter::Part(part.chars().take(80).collect())),
        }
    }
}

fn is_usable(part: &str) -> bool {
    let Some((module, level)) = part.split_once('=') else {
        return LEVELS.contains(&part);
    };
    let of_a_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    LEVELS.contains(&level) && !module.is_empty() && module.chars().all(of_a_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_pairs_of_module_and_level() {
        for good in ["info", "warn,proxy=debug", "proxy::tcp=trace", "off"] {
            let filter: LogFilter = good.parse().unwrap();
            assert_eq!(filter.as_str(), good);
        }
        let bad = [
            "",
            "loud",
            "a=b",
            "info,",
            "in fo",
            "a b=info",
            "=info",
            "INFO",
            "a[{f=.*}]=info",
            "info,[request{path=\"(a+)+$\"}]=trace",
        ];
        for bad in bad {
            assert!(bad.parse::<LogFilter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn log_filter_is_bounded_and_error_names_invalid_part() {
        let error = |text: &str| text.parse::<LogFilter>().unwrap_err().to_string();
        let longest = format!("{}=info", "m".repeat(LONGEST - 5));
        assert!(longest.parse::<LogFilter>().is_ok());
        assert_eq!(
            error(&format!("m{longest}")),
            "has 257 bytes, but must have at most 256"
        );
        let error = error("info,proxy=loud");
        assert!(
            error.starts_with("holds \"proxy=loud\", but must be off, "),
            "{error}"
        );
    }
}
