//! Weights as the oldest version writes them.

use serde_json::Value;

/// A quantity as v1alpha1 has it: a number, or a number with a suffix.
pub(crate) fn quantity(weight: &Value) -> Option<f64> {
    let written = match weight {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    let suffixes = [
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("Ki", 1024.0),
        ("", 1.0),
    ];
    let (suffix, factor) = suffixes
        .iter()
        .find(|(suffix, _)| written.ends_with(suffix))?;
    let number = written.strip_suffix(suffix)?;
    if !number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    Some(number.parse::<f64>().ok()? * factor)
}
