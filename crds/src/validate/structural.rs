//! Validates a value by a structural schema as the API server does before it calls any webhook:
//! missing fields, other types, values out of bounds, fields that the version lacks.
//!
//! Fields that the schema does not name are passed over; they are reported with the names.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Number, Value};

use crate::{
    near::hint,
    smi::validation::{Code, Mistakes},
};

/// Levels that are followed; no schema of ours has as many.
const LEVELS: usize = 32;
/// Characters of a name or a value that are shown.
const LONGEST_SHOWN: usize = 64;
/// What the API server takes for a text of format `date-time`.
const DATE_TIME: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\
                         ([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";
/// Beyond this no number is a whole one of 64 bits.
const LARGEST_WHOLE: f64 = 9.2e18;

/// The least and the most of what is counted, as a schema names them, and what that is.
type Bounds = (&'static str, &'static str, &'static str);
const FIELDS: Bounds = ("minProperties", "maxProperties", "fields");
const ENTRIES: Bounds = ("minItems", "maxItems", "entries");
const CHARACTERS: Bounds = ("minLength", "maxLength", "characters");

/// Refuses everything in `value`, which stands at path `at`, that the schema does not let in.
/// The path of a whole object is empty.
pub(super) fn walk(at: &str, value: &Value, schema: &Value, mistakes: &mut Mistakes) {
    let mut walker = Walker {
        mistakes,
        patterns: HashMap::new(),
    };
    walker.value(at, value, schema, LEVELS);
}

/// Takes away each null that stands where none may: the API server does so before it judges,
/// where no default takes its place. One that is an entry of a list stays.
pub(super) fn drop_nulls(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| match field(name, schema) {
            Some(schema) if value.is_null() => is_nullable(schema),
            Some(schema) => {
                drop_nulls(value, schema);
                true
            }
            None => true,
        }),
        Value::Array(entries) if schema["items"].is_object() => {
            for entry in entries {
                drop_nulls(entry, &schema["items"]);
            }
        }
        _ => {}
    }
}

struct Walker<'s, 'm> {
    mistakes: &'m mut Mistakes,
    /// Each that was met, read once.
    patterns: HashMap<&'s str, Option<Regex>>,
}

impl<'s> Walker<'s, '_> {
    fn value(&mut self, at: &str, value: &Value, schema: &'s Value, levels: usize) {
        let Some(levels) = levels.checked_sub(1) else {
            return;
        };
        if value.is_null() && is_nullable(schema) {
            return;
        }
        if let Some(wanted) = missed(value, schema) {
            let text = format!("is {}, but must be {wanted}", described(value));
            self.mistakes.refuse(Code::Unreadable, at, text);
            return;
        }
        match value {
            Value::Object(fields) => self.object(at, fields, schema, levels),
            Value::Array(entries) => self.list(at, entries, schema, levels),
            Value::String(text) => self.text(at, text, schema),
            Value::Number(number) => self.number(at, number, schema),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn object(&mut self, at: &str, fields: &Map<String, Value>, schema: &'s Value, levels: usize) {
        if !self.counted(at, fields.len(), schema, FIELDS) {
            return;
        }
        let known = &schema["properties"];
        // A null that may not be one is taken away before anything is judged.
        let is_there = |name: &str| {
            let value = fields.get(name);
            value.is_some_and(|value| !value.is_null() || is_nullable(&known[name]))
        };
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !is_there(name) {
                let text = "is missing, but must be written";
                self.mistakes
                    .refuse(Code::Unreadable, below(at, name), text);
            }
        }
        let rules = schema["x-kubernetes-validations"].as_array();
        for rule in rules.into_iter().flatten() {
            let refused = rule["rule"].as_str().and_then(refused_field);
            if let Some(name) = refused.filter(|&name| is_there(name)) {
                let text = rule["message"].as_str().unwrap_or_default();
                self.mistakes.invalid(below(at, name), text);
            }
        }
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            if let Some(schema) = field(name, schema) {
                self.value(&below(at, name), value, schema, levels);
            }
        }
    }

    fn list(&mut self, at: &str, entries: &[Value], schema: &'s Value, levels: usize) {
        if !self.counted(at, entries.len(), schema, ENTRIES) {
            return;
        }
        for (i, entry) in entries.iter().enumerate() {
            self.value(&format!("{at}[{i}]"), entry, &schema["items"], levels);
        }
    }

    fn text(&mut self, at: &str, text: &str, schema: &'s Value) {
        if !self.counted(at, text.chars().count(), schema, CHARACTERS) {
            return;
        }
        if let Some(known) = schema["enum"].as_array() {
            let known: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
            if !known.contains(&text) {
                let meant = hint(text, known.iter().copied());
                let known = known.join(", ");
                let text = format!("is {}, but must be one of {known}{meant}", quoted(text));
                self.mistakes.invalid(at, text);
            }
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !self.matches(text, pattern)
        {
            let text = format!("is {}, but must match {pattern}", quoted(text));
            self.mistakes.invalid(at, text);
        }
        if schema["format"] == "date-time" && !self.matches(text, DATE_TIME) {
            let wanted = "a time such as \"2027-01-31T00:00:00Z\"";
            let text = format!("is {}, but must be {wanted}", quoted(text));
            self.mistakes.invalid(at, text);
        }
    }

    fn matches(&mut self, text: &str, pattern: &'s str) -> bool {
        let read = || Regex::new(pattern).ok();
        let known = self.patterns.entry(pattern).or_insert_with(read);
        known.as_ref().is_none_or(|known| known.is_match(text))
    }

    fn number(&mut self, at: &str, number: &Number, schema: &Value) {
        let (least, most) = (&schema["minimum"], &schema["maximum"]);
        let Some(found) = number.as_f64() else {
            return;
        };
        if least.as_f64().is_some_and(|least| found < least) {
            let text = format!("is {number}, but must be at least {least}");
            self.mistakes.invalid(at, text);
        }
        if most.as_f64().is_some_and(|most| found > most) {
            let text = format!("is {number}, but must be at most {most}");
            self.mistakes.invalid(at, text);
        }
    }

    /// Whether there are not so many that they are not checked one by one.
    fn counted(&mut self, at: &str, found: usize, schema: &Value, bounds: Bounds) -> bool {
        let (least, most, what) = bounds;
        let bound = |name: &str| {
            let bound = schema[name].as_u64();
            bound.and_then(|bound| usize::try_from(bound).ok())
        };
        if let Some(least) = bound(least).filter(|least| found < *least) {
            let text = format!("has {found} {what}, but must have at least {least}");
            self.mistakes.invalid(at, text);
        }
        let most = bound(most).filter(|most| found > *most);
        if let Some(most) = most {
            let text = format!("has {found} {what}, but may have {most}");
            self.mistakes.invalid(at, text);
        }
        most.is_none()
    }
}

/// What may stand in a field; `None` if the schema does not name it.
fn field<'s>(name: &str, schema: &'s Value) -> Option<&'s Value> {
    let others = &schema["additionalProperties"];
    let known = schema["properties"].get(name);
    known.or_else(|| others.is_object().then_some(others))
}

fn is_nullable(schema: &Value) -> bool {
    schema["nullable"] == true
}

/// What the value must be and is not.
fn missed(value: &Value, schema: &Value) -> Option<&'static str> {
    let is_either = schema["x-kubernetes-int-or-string"] == true;
    let (fits, wanted) = match schema["type"].as_str() {
        _ if is_either => {
            let fits = is_whole(value) || value.is_string();
            (fits, "a whole number or a text")
        }
        Some("object") => (value.is_object(), "an object"),
        Some("array") => (value.is_array(), "a list"),
        Some("string") => (value.is_string(), "a text"),
        Some("integer") => (is_whole(value), "a whole number"),
        Some("number") => (value.is_number(), "a number"),
        Some("boolean") => (value.is_boolean(), "true or false"),
        _ => return None,
    };
    (!fits).then_some(wanted)
}

/// `1.0` is one to the API server, too.
fn is_whole(value: &Value) -> bool {
    let fraction = value.as_f64().filter(|_| value.is_f64());
    value.is_i64()
        || fraction.is_some_and(|number| number.fract() == 0.0 && number.abs() < LARGEST_WHOLE)
}

/// The field that a rule refuses wherever it is set, if the rule does that and no more.
pub(super) fn refused_field(rule: &str) -> Option<&str> {
    let name = rule.strip_prefix("!has(self.")?.strip_suffix(')')?;
    let is_name = name.bytes().all(|letter| letter.is_ascii_alphanumeric());
    is_name.then_some(name)
}

fn described(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The text in quotes, or its beginning.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// The path of a field. A name with dots stands in brackets.
fn below(at: &str, name: &str) -> String {
    let shown: String = name.chars().take(LONGEST_SHOWN).collect();
    if shown.contains(['.', '[']) {
        return format!("{at}[{shown}]");
    }
    if at.is_empty() {
        return shown;
    }
    format!("{at}.{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_non_nullable_nulls_are_dropped() {
        let text = json!({"type": "string"});
        let schema = json!({"type": "object", "properties": {
            "plain": text, "free": {"type": "string", "nullable": true},
            "list": {"type": "array", "items": {"properties": {"name": text}}},
            "labels": {"type": "object", "additionalProperties": text}}});
        let mut value = json!({"plain": null, "free": null, "strange": null,
            "list": [null, {"name": null}], "labels": {"a": null, "b": "c"}});
        drop_nulls(&mut value, &schema);
        let left = json!({"free": null, "strange": null, "list": [null, {}],
            "labels": {"b": "c"}});
        assert_eq!(value, left);
    }
}
