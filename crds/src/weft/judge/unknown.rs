//! Fields that the kind does not have. The API server takes them away without a word
//! unless its client asks for more, so whoever still sees them says which was meant.

use std::sync::LazyLock;

use serde_json::Value;

use crate::{
    near::near,
    smi::{
        judge::{Code, Mistakes},
        schema,
    },
    weft::TrafficPolicySpec,
};

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<TrafficPolicySpec>);
/// Fields of one object that are told; nobody writes more by mistake.
const MOST_TOLD: usize = 8;
/// Characters of a field's name that are shown.
const LONGEST_NAME: usize = 64;

/// Warns of every field that has no meaning.
pub(super) fn fields(written: &Value, mistakes: &mut Mistakes) {
    let mut left = MOST_TOLD;
    below("spec", written, &SCHEMA, &mut left, mistakes);
}

/// Goes no deeper than the schema does.
fn below(at: &str, value: &Value, schema: &Value, left: &mut usize, mistakes: &mut Mistakes) {
    match value {
        Value::Object(fields) => {
            let Some(known) = schema["properties"].as_object() else {
                return;
            };
            for (name, value) in fields {
                if let Some(schema) = known.get(name) {
                    below(&format!("{at}.{name}"), value, schema, left, mistakes);
                    continue;
                }
                if *left == 0 {
                    return;
                }
                *left -= 1;
                let meant = near(name, known.keys().map(String::as_str));
                let meant = meant.map_or(String::new(), |known| format!("; {known} is one"));
                let name: String = name.chars().take(LONGEST_NAME).collect();
                let text = format!("is no field of this kind and has no effect{meant}");
                mistakes.warn(Code::FieldIgnored, format!("{at}.{name}"), text);
            }
        }
        Value::Array(entries) if schema["items"]["properties"].is_object() => {
            for (i, entry) in entries.iter().enumerate() {
                if *left == 0 {
                    return;
                }
                below(
                    &format!("{at}[{i}]"),
                    entry,
                    &schema["items"],
                    left,
                    mistakes,
                );
            }
        }
        _ => {}
    }
}
