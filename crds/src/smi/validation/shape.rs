//! Deserializes a spec, or reports where its structure is not that of its kind.
//!
//! Deserializing into types alone accepts too much: a list in the place of an object would be read
//! by position, in the order in which our types happen to declare their fields, and lists that
//! refer to lists multiply. Where another product's schema was in force, objects with both may be
//! stored.

use serde_json::{Value, json};

use super::{Code, Mistake, Mistakes, Validate, ValidationContext};

/// Fields that hold objects wherever they stand.
const OBJECTS: [&str; 6] = [
    "spec",
    "status",
    "destination",
    "schemes",
    "podLabelSelector",
    "matchLabels",
];

/// The most entries of lists, as the schemas have them. `matches` of a split has a bound
/// of its own.
const BOUNDS: [(&str, usize); 7] = [
    ("sources", 256),
    ("rules", 64),
    ("backends", 64),
    ("matches", 64),
    ("methods", 32),
    ("ports", 128),
    ("spiffeIdentities", 64),
];

/// Characters of a field's name that its path shows; ours have at most 17.
const LONGEST_NAME: usize = 64;

/// What the spec of an object means, as it stands in JSON. An absent one is an empty one.
pub fn spec<S: Validate>(
    written: Option<&Value>,
    at: &ValidationContext<'_>,
) -> (S::Validated, Vec<Mistake>) {
    let Some(written) = written else {
        return S::default().validate(at);
    };
    match read::<S>(written) {
        Ok(spec) => {
            let (validated, mut mistakes) = spec.validate(at);
            let mut more = Mistakes::default();
            S::besides(written, &mut more);
            mistakes.extend(more.0);
            mistakes.truncate(super::MOST_MISTAKES);
            (validated, mistakes)
        }
        Err(mistakes) => (S::unreadable(written, at), mistakes.0),
    }
}

/// Reads, or reports everything that stands against it.
fn read<S: Validate>(written: &Value) -> Result<S, Mistakes> {
    let mut mistakes = Mistakes::default();
    check("spec", "spec", written, &mut mistakes);
    S::misshapen(written, &mut mistakes);
    if mistakes.0.is_empty() {
        match S::deserialize(written) {
            Ok(spec) => return Ok(spec),
            Err(error) => {
                let fails = |part: Value| S::deserialize(part).is_err();
                let field = blamed("spec", written, &fails);
                let text = format!("cannot be read: {error}");
                mistakes.refuse(Code::Unreadable, field, text);
            }
        }
    }
    for mistake in &mut mistakes.0 {
        mistake.text = format!("{}; {}", mistake.text, S::UNREADABLE);
    }
    Err(mistakes)
}

/// Reports that a list or map is too long. One that only another product's schema can have
/// let in is not read at all.
pub(super) fn check_count(field: &str, found: usize, most: usize, mistakes: &mut Mistakes) {
    if found > most {
        let text = format!("has {found} entries, but may have {most}");
        mistakes.refuse(Code::Unreadable, field, text);
    }
}

/// Reports that a list stands where an object must.
pub(crate) fn check_object(field: &str, value: &Value, mistakes: &mut Mistakes) {
    if value.is_array() {
        let text = "is a list, but must be an object";
        mistakes.refuse(Code::Unreadable, field, text);
    }
}

fn check(at: &str, name: &str, value: &Value, mistakes: &mut Mistakes) {
    match value {
        Value::Object(fields) => {
            // Headers have two shapes, and a reader of their own.
            for (name, value) in fields.iter().filter(|(name, _)| *name != "headers") {
                check(&below(at, name), name, value, mistakes);
            }
        }
        Value::Array(_) if OBJECTS.contains(&name) => check_object(at, value, mistakes),
        Value::Array(entries) => {
            if let Some((_, most)) = BOUNDS.iter().find(|(bounded, _)| *bounded == name) {
                check_count(at, entries.len(), *most, mistakes);
                if entries.len() > *most {
                    return;
                }
            }
            for (i, entry) in entries.iter().enumerate() {
                let at = format!("{at}[{i}]");
                if entry.is_array() {
                    check_object(&at, entry, mistakes);
                } else {
                    check(&at, "", entry, mistakes);
                }
            }
        }
        _ => {}
    }
}

/// The path of a field. Names may have any length, and every entry below repeats them.
fn below(at: &str, name: &str) -> String {
    let shown: String = name.chars().take(LONGEST_NAME).collect();
    format!("{at}.{shown}")
}

/// The innermost field that makes reading fail. Every field may be absent, so each part
/// can be read without its neighbours, and shows whether it is to blame.
fn blamed(at: &str, value: &Value, fails: &dyn Fn(Value) -> bool) -> String {
    match value {
        Value::Object(fields) if !fails(json!({})) => {
            for (name, value) in fields {
                let alone = |part: Value| fails(json!({ (name.as_str()): part }));
                if alone(value.clone()) {
                    return blamed(&below(at, name), value, &alone);
                }
            }
        }
        Value::Array(entries) if !fails(json!([])) => {
            for (i, entry) in entries.iter().enumerate() {
                let alone = |part: Value| fails(Value::Array(vec![part]));
                if alone(entry.clone()) {
                    return blamed(&format!("{at}[{i}]"), entry, &alone);
                }
            }
        }
        _ => {}
    }
    at.to_owned()
}
