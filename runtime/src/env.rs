//! Reads the environment into typed settings and reports every error at once, so that fixing a
//! manifest takes one restart and not one per typo.
//!
//! ```
//! # use runtime::env::EnvReader;
//! struct Settings { namespace: String, port: u16 }
//! let mut reader = EnvReader::from_map([("NAMESPACE", "weft-system")]);
//! let namespace = reader.required("NAMESPACE");
//! let port = reader.or("PORT", 8443);
//! let settings = reader.finish_with(|| Some(Settings { namespace: namespace?, port }));
//! assert_eq!(settings.map(|s| (s.namespace, s.port)).ok(), Some(("weft-system".into(), 8443)));
//! ```

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

/// Longest part of a value that an error repeats, in characters.
const SHOWN: usize = 80;

/// Reads variables and remembers what was wrong with them.
pub struct EnvReader {
    lookup: Box<dyn Fn(&str) -> Found>,
    mistakes: Vec<Mistake>,
}

enum Found {
    Text(String),
    Missing,
    NotUnicode,
}

impl fmt::Debug for EnvReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvReader")
            .field("mistakes", &self.mistakes)
            .finish_non_exhaustive()
    }
}

/// One variable and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub variable: String,
    pub problem: String,
}

/// Every mistake that was found, in the order of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEnv {
    pub mistakes: Vec<Mistake>,
}

impl std::error::Error for BadEnv {}

impl Display for BadEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the environment is not usable")?;
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            write!(f, "{separator}{} {}", mistake.variable, mistake.problem)?;
        }
        Ok(())
    }
}

impl EnvReader {
    /// Reads the environment of this process.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn from_env() -> Self {
        Self::over(|name| match std::env::var(name) {
            Ok(text) => Found::Text(text),
            Err(std::env::VarError::NotPresent) => Found::Missing,
            Err(std::env::VarError::NotUnicode(_)) => Found::NotUnicode,
        })
    }

    /// Reads from pairs instead of the environment.
    pub fn from_map<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let map: HashMap<String, String> = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self::over(move |name| map.get(name).cloned().map_or(Found::Missing, Found::Text))
    }

    fn over(lookup: impl Fn(&str) -> Found + 'static) -> Self {
        Self {
            lookup: Box::new(lookup),
            mistakes: Vec::new(),
        }
    }

    /// A value that must be set and not empty. None means that a mistake was
    /// noted and [`EnvReader::finish`] will fail.
    pub fn required<T>(&mut self, name: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match self.text(name) {
            Some(text) => self.parse(name, &text),
            None => {
                // A value that is not Unicode has been noted by `text` already.
                if !self.mistakes.iter().any(|m| m.variable == name) {
                    self.mistake(name, "is required and not set");
                }
                None
            }
        }
    }

    /// A value that may be absent; an empty one counts as absent.
    pub fn optional<T>(&mut self, name: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(name)?;
        self.parse(name, &text)
    }

    /// A value with a default. A value that is set and wrong is still a mistake.
    pub fn or<T>(&mut self, name: &str, default: T) -> T
    where
        T: FromStr,
        T::Err: Display,
    {
        self.optional(name).unwrap_or(default)
    }

    /// A comma separated list; blanks around entries and empty entries do not
    /// count. Absent is the empty list.
    pub fn list<T>(&mut self, name: &str) -> Vec<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(name).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .filter_map(|entry| self.parse(name, entry))
            .collect()
    }

    /// A length of time such as `250ms`, `60s`, `5m` or `24h`.
    pub fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.text(name) else {
            return default;
        };
        parse_duration(&text).unwrap_or_else(|| {
            self.wrong(name, &text, "expected a number with ms, s, m or h");
            default
        })
    }

    /// Notes a mistake that only the caller can see, for example two values
    /// that exclude each other.
    pub fn mistake(&mut self, name: &str, problem: impl Into<String>) {
        self.mistakes.push(Mistake {
            variable: name.to_owned(),
            problem: problem.into(),
        });
    }

    /// Ends reading.
    ///
    /// # Errors
    /// Every mistake since the reader was made.
    pub fn finish(self) -> Result<(), BadEnv> {
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(BadEnv {
                mistakes: self.mistakes,
            })
        }
    }

    /// Ends reading and puts the settings together; `?` on each required value
    /// is what `assemble` is for.
    ///
    /// # Errors
    /// Every mistake since the reader was made.
    pub fn finish_with<T>(mut self, assemble: impl FnOnce() -> Option<T>) -> Result<T, BadEnv> {
        let assembled = assemble();
        if assembled.is_none() && self.mistakes.is_empty() {
            self.mistake("settings", "could not be put together");
        }
        let mistakes = self.mistakes;
        match assembled {
            Some(settings) if mistakes.is_empty() => Ok(settings),
            _ => Err(BadEnv { mistakes }),
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match (self.lookup)(name) {
            Found::Text(text) if text.is_empty() => None,
            Found::Text(text) => Some(text),
            Found::Missing => None,
            Found::NotUnicode => {
                self.mistake(name, "is not valid UTF-8");
                None
            }
        }
    }

    fn parse<T>(&mut self, name: &str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(reason) => {
                self.wrong(name, text, &reason.to_string());
                None
            }
        }
    }

    // Else its text is made in every place that reads a variable.
    #[cold]
    fn wrong(&mut self, name: &str, text: &str, reason: &str) {
        let shown: String = text.chars().take(SHOWN).collect();
        self.mistake(name, format!("has the value {shown:?}: {reason}"));
    }
}

/// `None` for anything but digits followed by a unit, and on overflow. One number only, as the
/// chart's schema has it, and not the sums of several that policies may write.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn every_mistake_is_reported_in_one_go() {
        let mut reader =
            EnvReader::from_map([("PORT", "http"), ("ADDRESS", "here"), ("LIST", "1,x,3")]);
        assert_eq!(reader.required::<u16>("PORT"), None);
        assert_eq!(reader.required::<String>("NAME"), None);
        assert_eq!(reader.optional::<SocketAddr>("ADDRESS"), None);
        assert_eq!(reader.list::<u16>("LIST"), [1, 3]);

        let error = reader.finish().unwrap_err();
        let variables: Vec<&str> = error.mistakes.iter().map(|m| m.variable.as_str()).collect();
        assert_eq!(variables, ["PORT", "NAME", "ADDRESS", "LIST"]);
        assert!(
            error.to_string().contains("NAME is required and not set"),
            "{error}"
        );
        assert!(
            error.to_string().contains(r#"PORT has the value "http""#),
            "{error}"
        );
    }

    #[test]
    fn default_replaces_missing_value_but_not_invalid_one() {
        let mut reader = EnvReader::from_map([("EMPTY", ""), ("WRONG", "many")]);
        assert_eq!(reader.or("ABSENT", 7), 7);
        assert_eq!(reader.or("EMPTY", 7), 7);
        assert_eq!(reader.or("WRONG", 7), 7);
        assert_eq!(reader.finish().unwrap_err().mistakes.len(), 1);
    }

    #[test]
    fn empty_value_does_not_satisfy_required() {
        let mut reader = EnvReader::from_map([("NAME", "")]);
        assert_eq!(reader.required::<String>("NAME"), None);
        assert!(reader.finish().is_err());
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("60s", Some(Duration::from_secs(60))),
            ("5m", Some(Duration::from_secs(300))),
            ("24h", Some(Duration::from_secs(86_400))),
            ("60", None),
            ("", None),
            ("h", None),
            ("-5s", None),
            ("1.5h", None),
            ("5d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn list_ignores_blanks_and_empty_entries() {
        let mut reader = EnvReader::from_map([("NAMES", " a , b,, c,")]);
        assert_eq!(reader.list::<String>("NAMES"), ["a", "b", "c"]);
        assert!(reader.list::<String>("ABSENT").is_empty());
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn settings_are_assembled_only_without_mistakes() {
        let mut reader = EnvReader::from_map([("A", "1"), ("B", "x")]);
        let a = reader.required::<u8>("A");
        let b = reader.or::<u8>("B", 2);
        assert!(reader.finish_with(|| Some((a?, b))).is_err());

        let mut reader = EnvReader::from_map([("A", "1")]);
        let a = reader.required::<u8>("A");
        assert_eq!(reader.finish_with(|| Some((a?, 2))).unwrap(), (1, 2));
    }

    #[test]
    fn long_value_is_cut_in_the_message() {
        let mut reader = EnvReader::from_map([("PORT", "x".repeat(10_000))]);
        reader.optional::<u16>("PORT");
        assert!(reader.finish().unwrap_err().to_string().len() < 300);
    }
}
