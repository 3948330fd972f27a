//! Reports fields that the kind does not have. The API server drops them silently unless its
//! client wants warnings, so every check that still sees them reports which field was meant.

use serde_json::Value;

use super::{Code, Mistakes};
use crate::near::near;

/// Fields of one object that are reported; no user writes more by mistake.
const MAX_LISTED: usize = 8;
/// Characters of a field's name that are shown.
const LONGEST_NAME: usize = 64;
/// Letters that a beginning must have to stand for the whole name.
const SHORTEST_BEGINNING: usize = 3;

/// Warns of every field of `written`, which stands at path `at`, that has no meaning by the
/// schema of `kind`. The path of a whole object is empty.
pub(crate) fn unknown_fields(
    kind: &str,
    at: &str,
    written: &Value,
    schema: &Value,
    mistakes: &mut Mistakes,
) {
    let mut reader = SchemaReader {
        kind,
        left: MAX_LISTED,
        mistakes,
    };
    reader.below(at, written, schema);
}

struct SchemaReader<'a> {
    kind: &'a str,
    left: usize,
    mistakes: &'a mut Mistakes,
}

impl SchemaReader<'_> {
    /// Goes no deeper than the schema does.
    fn below(&mut self, at: &str, value: &Value, schema: &Value) {
        match value {
            Value::Object(fields) => {
                let Some(known) = schema["properties"].as_object() else {
                    return;
                };
                for (name, value) in fields {
                    if let Some(schema) = known.get(name) {
                        self.below(&path(at, name), value, schema);
                        continue;
                    }
                    if self.left == 0 {
                        return;
                    }
                    self.left -= 1;
                    let meant = meant(name, || known.keys().map(String::as_str));
                    let meant = meant.map_or(String::new(), |known| format!("; {known} is one"));
                    let name: String = name.chars().take(LONGEST_NAME).collect();
                    let kind = self.kind;
                    let text = format!("is no field of {kind} and has no effect{meant}");
                    let field = path(at, &name);
                    self.mistakes.warn(Code::FieldIgnored, field, text);
                }
            }
            Value::Array(entries) if schema["items"]["properties"].is_object() => {
                for (i, entry) in entries.iter().enumerate() {
                    if self.left == 0 {
                        return;
                    }
                    self.below(&format!("{at}[{i}]"), entry, &schema["items"]);
                }
            }
            _ => {}
        }
    }
}

fn path(at: &str, name: &str) -> String {
    if at.is_empty() {
        return name.to_owned();
    }
    format!("{at}.{name}")
}

/// The field whose name is near, else one that the written name begins, or that begins it, as
/// `match` and `matches` do.
fn meant<'a, I: Iterator<Item = &'a str>>(written: &str, known: impl Fn() -> I) -> Option<&'a str> {
    let begins = |known: &&str| {
        written.len().min(known.len()) >= SHORTEST_BEGINNING
            && (known.starts_with(written) || written.starts_with(known))
    };
    near(written, known()).or_else(|| known().find(begins))
}
