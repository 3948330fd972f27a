//! Writes YAML that parsers of YAML 1.1 and of 1.2 read alike.
//!
//! Helm and kubectl parse YAML 1.1, in which `on`, `off`, `yes`, `no`, `y` and `n` are booleans
//! and `1:30` is a number; our own writer and parser follow YAML 1.2, in which they are strings.
//! Scalars on which the two differ are quoted here.

use std::io;

use serde::Serialize;
use serde_yaml_ng::Value;

/// Words that are no text in YAML 1.1.
const WORDS: &[&str] = &[
    "y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off",
    "OFF", "true", "True", "TRUE", "false", "False", "FALSE", "null", "Null", "NULL", "~", "=",
    "<<", ".inf", ".Inf", ".INF", "-.inf", "+.inf", ".nan", ".NaN", ".NAN",
];
/// What stands around a word until it is quoted; no text of ours holds either.
const OPEN: &str = "WEFT-QUOTE-";
const CLOSE: &str = "-QUOTE-END";

/// Whether a reader of YAML 1.1 may take the plain text for a boolean, nothing or a number.
#[must_use]
pub(crate) fn is_misread(text: &str) -> bool {
    WORDS.contains(&text) || is_number(text)
}

/// Wider than the numbers and dates of YAML 1.1: quoting one too many is harmless.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let based = |prefix: &str| {
        let rest = digits.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'_'))
    };
    let plain = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.bytes().any(|b| b.is_ascii_digit())
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || b"_.:eE+-TtZz ".contains(&b));
    plain || based("0x") || based("0o") || based("0b")
}

/// The text of a value, in which every reader finds the same.
///
/// # Errors
/// When the value has no YAML form.
pub(crate) fn to_string(value: &impl Serialize) -> io::Result<String> {
    let value = serde_yaml_ng::to_value(value).map_err(io::Error::other)?;
    let text = serde_yaml_ng::to_string(&marked(&value)).map_err(io::Error::other)?;
    let text = text.replace(OPEN, "'").replace(CLOSE, "'");
    let read: Value = serde_yaml_ng::from_str(&text).map_err(io::Error::other)?;
    if read != value {
        let text = "the YAML with its quotes is not what was written";
        return Err(io::Error::other(text));
    }
    Ok(text)
}

/// The value with marks around every text that would be misread without quotes. The writer
/// quotes by itself what is a number in YAML 1.2, too, and leaves marked text plain.
fn marked(value: &Value) -> Value {
    match value {
        Value::String(text) if is_misread(text) => Value::String(format!("{OPEN}{text}{CLOSE}")),
        Value::Sequence(all) => Value::Sequence(all.iter().map(marked).collect()),
        Value::Mapping(all) => {
            let all = all.iter().map(|(key, one)| (marked(key), marked(one)));
            Value::Mapping(all.collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde::Deserialize as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::{smi, weft};

    #[test]
    fn only_yaml_1_1_ambiguous_values_are_quoted() {
        let value = json!({"on": "Off", "list": ["y", "1:30", "010", "2027-01-31", "5xx", "25ms"],
            "truth": true, "number": 8, "text": "on and off"});
        let text = to_string(&value).unwrap();
        for quoted in ["'on': 'Off'", "'y'", "'1:30'", "'010'", "'2027-01-31'"] {
            assert!(text.contains(quoted), "{quoted}: {text}");
        }
        for plain in [
            "- 5xx\n",
            "- 25ms\n",
            "truth: true\n",
            "number: 8\n",
            "text: on and off\n",
        ] {
            assert!(text.contains(plain), "{plain}: {text}");
        }
    }

    /// Keys and values of an enumeration that an author would have to quote.
    fn misread(schema: &Value, at: &str, found: &mut Vec<String>) {
        match schema {
            Value::Object(all) => {
                for (key, below) in all {
                    if is_misread(key) {
                        found.push(format!("{at}.{key}"));
                    }
                    // cert-manager takes no other word, and the manual quotes it.
                    if key == "csi.cert-manager.io/is-ca" {
                        continue;
                    }
                    if key == "enum" {
                        let words = below.as_array().into_iter().flatten();
                        let words = words.filter_map(Value::as_str);
                        let words = words.filter(|word| is_misread(word));
                        found.extend(words.map(|word| format!("{at}: {word}")));
                    }
                    misread(below, &format!("{at}.{key}"), found);
                }
            }
            Value::Array(all) => {
                for (i, below) in all.iter().enumerate() {
                    misread(below, &format!("{at}[{i}]"), found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn no_definition_field_or_choice_needs_quoting() {
        let smi = smi::definitions("weft-system").into_iter();
        let mut found = Vec::new();
        let mut read = 0;
        for (plural, definition) in smi.chain(weft::definitions()) {
            for version in definition["spec"]["versions"].as_array().unwrap() {
                read += 1;
                // Users write no status by hand.
                let top = &version["schema"]["openAPIV3Schema"]["properties"];
                let top = top.as_object().unwrap().iter();
                for (field, schema) in top.filter(|(field, _)| *field != "status") {
                    misread(schema, &format!("{plural}.{field}"), &mut found);
                }
            }
        }
        assert!(read > 10, "{read}");
        assert_eq!(found, Vec::<String>::new());
    }

    /// Every YAML text that users are shown: files of examples, blocks of pages, the values
    /// of the chart.
    fn shown() -> Vec<(String, String)> {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let own = ["everything", "release", "experiment"];
        let own = own.map(|name| top.join(format!("crds/src/weft/{name}.yaml")));
        let mut files = Vec::from(own);
        files.push(top.join("charts/weft/values.yaml"));
        for folder in ["docs", "docs/examples", "."] {
            let entries = fs::read_dir(top.join(folder)).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let mut texts = Vec::new();
        for file in files {
            let name = file.display().to_string();
            match file.extension().and_then(|end| end.to_str()) {
                Some("yaml" | "yml") => texts.push((name, fs::read_to_string(file).unwrap())),
                Some("md") => {
                    let page = fs::read_to_string(file).unwrap();
                    let blocks = page.split("```yaml\n").skip(1);
                    let blocks = blocks.map(|block| block.split("```").next().unwrap_or_default());
                    texts.extend(blocks.map(|block| (name.clone(), block.to_owned())));
                }
                _ => {}
            }
        }
        texts
    }

    fn words(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(all) => {
                for (key, below) in all {
                    if is_misread(key) {
                        found.push(format!("{at}.{key}"));
                    }
                    // cert-manager takes no other word, and the manual quotes it.
                    if key == "csi.cert-manager.io/is-ca" {
                        continue;
                    }
                    words(below, &format!("{at}.{key}"), found);
                }
            }
            Value::Array(all) => all.iter().for_each(|below| words(below, at, found)),
            Value::String(text) if WORDS.contains(&text.as_str()) => {
                found.push(format!("{at}: {text}"));
            }
            _ => {}
        }
    }

    #[test]
    fn examples_contain_no_yaml_1_1_ambiguous_values() {
        let texts = shown();
        assert!(texts.len() > 20, "{}", texts.len());
        let mut found = Vec::new();
        for (location, text) in texts {
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let value = Value::deserialize(document);
                let value = value.unwrap_or_else(|error| panic!("{location}: {error}"));
                words(&value, &location, &mut found);
            }
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
