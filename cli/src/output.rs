//! Prints results: tables for people, the API's own JSON or YAML for programs.

pub(crate) mod number;
pub(crate) mod table;

use serde::Serialize;
use serde_json::Value;

use crate::console::Console;
use crate::escape;
use crate::failure::Failure;

/// The values of `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns for a person.
    Table,
    /// More columns.
    Wide,
    /// As the API has it.
    Json,
    /// The same in YAML.
    Yaml,
    /// A graph for Graphviz.
    Dot,
    /// A graph for Mermaid, which Markdown shows.
    Mermaid,
    /// Text for an issue or a page.
    Markdown,
    /// Objects that would allow a call.
    Fix,
}

/// What most commands can print.
pub(crate) const COMMON: &[Format] = &[Format::Table, Format::Wide, Format::Json, Format::Yaml];

/// The same where a table has no more columns to show.
pub(crate) const NARROW: &[Format] = &[Format::Table, Format::Json, Format::Yaml];

impl Format {
    const ALL: [(&'static str, Self); 8] = [
        ("table", Self::Table),
        ("wide", Self::Wide),
        ("json", Self::Json),
        ("yaml", Self::Yaml),
        ("dot", Self::Dot),
        ("mermaid", Self::Mermaid),
        ("markdown", Self::Markdown),
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

    /// The format of `-o`; a table if there is none.
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
/// in quotes; and a text such as `no` is `false` to some readers where no quotes are around it.
/// A value with either is printed as JSON, which is YAML too.
///
/// # Errors
/// When it has no such form.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        Failure::unknown(format!("the answer has no YAML: {error}"))
    };
    let text = serde_yaml_ng::to_string(value).map_err(|error| bad(&error))?;
    let texts = serde_json::to_value(value).map_err(|error| bad(&error))?;
    if !escape::acts_but_for_lines(&text) && !is_misread(&texts) {
        return Ok(text);
    }
    let text = serde_json::to_string_pretty(value).map_err(|error| bad(&error))?;
    Ok(escape::yaml(&text))
}

/// Whether kubectl, or another reader of older YAML, takes a text of it for something else.
fn is_misread(value: &Value) -> bool {
    match value {
        Value::String(text) => is_misread_text(text),
        Value::Array(values) => values.iter().any(is_misread),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| is_misread_text(name) || is_misread(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Words for yes and no, and numbers in a notation that YAML 1.2 has no more.
fn is_misread_text(text: &str) -> bool {
    let answers = ["y", "n", "yes", "no", "on", "off"];
    if answers.iter().any(|word| word.eq_ignore_ascii_case(text)) {
        return true;
    }
    let number = text.trim_start_matches(['+', '-']);
    let begins = number.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let is_grouped = number.contains('_')
        && number
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || b"_.+-xob".contains(&byte));
    let by_sixty = number.contains(':')
        && number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b':');
    begins && (is_grouped || by_sixty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_yaml_turns_a_terminal_s_direction_of_writing() {
        let plain = serde_json::json!({"name": "cart", "text": "two\nlines"});
        assert!(yaml(&plain).unwrap().starts_with("name: cart\n"));
        for acts in [
            "\u{202e}",
            "\u{200b}",
            "\u{9b}2J",
            "\u{1b}[2J",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "\u{2069}",
            "\u{e0041}",
        ] {
            let value = serde_json::json!({"name": format!("a{acts}b")});
            let text = yaml(&value).unwrap();
            assert!(!escape::acts_but_for_lines(&text), "{text:?}");
            let back: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
            assert_eq!(back, value, "{text}");
        }
    }

    #[test]
    fn ambiguous_yaml_text_is_quoted() {
        for text in [
            "no", "Yes", "on", "OFF", "y", "1_000", "-0x1_0", "12:30", "1e3", "0b1", "0o7", "007",
            "null", "~", "true", ".inf", "-1", "",
        ] {
            let value = serde_json::json!({"name": text, "names": [{text: 1}]});
            let written = yaml(&value).unwrap();
            let quoted = [format!("\"{text}\""), format!("'{text}'")];
            let is_quoted = |part: &str| quoted.iter().any(|one| part.contains(one.as_str()));
            let (name, names) = written.split_once("names").unwrap();
            assert!(is_quoted(name) && is_quoted(names), "{text}: {written}");
            let back: Value = serde_yaml_ng::from_str(&written).unwrap();
            assert_eq!(back, value, "{written}");
        }
        for ordinary in [
            "cart-v1",
            "nope",
            "10.0.0.1:8080",
            "2026-11-02T09:00:00Z",
            "a_b",
            "shop/no",
            "v1_2",
            "^/items/7$",
        ] {
            let written = yaml(&serde_json::json!({"name": ordinary})).unwrap();
            assert_eq!(written.replace('\'', ""), format!("name: {ordinary}\n"));
        }
    }

    #[test]
    fn unsupported_format_is_usage_error_listing_supported_formats() {
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
