//! How answers are printed: tables for people, the API's own JSON or YAML for programs.

pub(crate) mod number;
pub(crate) mod table;

use serde::Serialize;

use crate::console::Console;
use crate::escape;
use crate::failure::Failure;

/// What `-o` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns for a person.
    Table,
    /// More columns.
    Wide,
    /// As the API says it.
    Json,
    /// The same in YAML.
    Yaml,
    /// A graph for Graphviz.
    Dot,
    /// A graph for Mermaid, which Markdown shows.
    Mermaid,
    /// Objects that would allow a call.
    Fix,
}

/// What most commands can print.
pub(crate) const COMMON: &[Format] = &[Format::Table, Format::Wide, Format::Json, Format::Yaml];

/// The same where a table has no more columns to show.
pub(crate) const NARROW: &[Format] = &[Format::Table, Format::Json, Format::Yaml];

impl Format {
    const ALL: [(&'static str, Self); 7] = [
        ("table", Self::Table),
        ("wide", Self::Wide),
        ("json", Self::Json),
        ("yaml", Self::Yaml),
        ("dot", Self::Dot),
        ("mermaid", Self::Mermaid),
        ("fix", Self::Fix),
    ];

    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, format)| *format == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether some command has an output of this name.
    #[must_use]
    pub(crate) fn is_name(text: &str) -> bool {
        Self::ALL.iter().any(|(name, _)| *name == text)
    }

    /// What `-o` said; a table if nothing.
    ///
    /// # Errors
    /// When the command has no such output, with those that it has.
    pub(crate) fn read(text: Option<&str>, allowed: &[Self]) -> Result<Self, Failure> {
        let Some(text) = text else {
            return Ok(Self::Table);
        };
        let found = Self::ALL
            .iter()
            .find(|(name, format)| *name == text && allowed.contains(format));
        found.map(|(_, format)| *format).ok_or_else(|| {
            let names: Vec<&str> = allowed.iter().map(|format| format.name()).collect();
            Failure::usage(format!(
                "-o {text}: this command prints {}",
                names.join(", ")
            ))
        })
    }
}

/// Prints a value as JSON or YAML; false for every other format, which is the caller's.
///
/// # Errors
/// When the output is closed, or the value has no such form.
pub(crate) fn data(
    console: &mut Console<'_>,
    format: Format,
    value: &impl Serialize,
) -> Result<bool, Failure> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value)
            .map(|text| escape::json(&text))
            .map_err(|error| Failure::unknown(format!("the answer has no JSON: {error}")))?,
        Format::Yaml => yaml(value)?,
        _ => return Ok(false),
    };
    console.line(text.trim_end())?;
    Ok(true)
}

/// The value as YAML. What a terminal would act upon YAML may hold as it is, and escapes only
/// in quotes; such a value is printed as JSON, which is YAML too.
///
/// # Errors
/// When it has no such form.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        Failure::unknown(format!("the answer has no YAML: {error}"))
    };
    let text = serde_yaml_ng::to_string(value).map_err(|error| bad(&error))?;
    if !escape::acts_but_for_lines(&text) {
        return Ok(text);
    }
    let text = serde_json::to_string_pretty(value).map_err(|error| bad(&error))?;
    Ok(escape::json(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_yaml_turns_a_terminal_s_direction_of_writing() {
        let plain = serde_json::json!({"name": "cart", "text": "two\nlines"});
        assert!(yaml(&plain).unwrap().starts_with("name: cart\n"));
        for acts in ["\u{202e}", "\u{200b}", "\u{9b}2J", "\u{1b}[2J", "\u{feff}"] {
            let value = serde_json::json!({"name": format!("a{acts}b")});
            let text = yaml(&value).unwrap();
            assert!(!escape::acts_but_for_lines(&text), "{text:?}");
            let back: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
            assert_eq!(back, value, "{text}");
        }
    }

    #[test]
    fn a_format_that_a_command_has_not_is_bad_usage_and_named_with_those_it_has() {
        assert!(matches!(Format::read(None, COMMON), Ok(Format::Table)));
        assert!(matches!(
            Format::read(Some("wide"), COMMON),
            Ok(Format::Wide)
        ));
        for bad in ["dot", "", "JSON", "xml"] {
            let Err(Failure::Usage(text)) = Format::read(Some(bad), COMMON) else {
                panic!("{bad}");
            };
            assert!(text.contains("table, wide, json, yaml"), "{text}");
        }
    }
}
