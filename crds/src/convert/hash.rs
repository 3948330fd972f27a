//! By which content is known again: one form of it, and a hash of that.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The value's content. Its maps are sorted, so that equal content has one text.
pub(super) fn canonical(value: &impl Serialize) -> String {
    json(value).to_string()
}

fn json(value: &impl Serialize) -> Value {
    // Structs and maps with text as keys, whose numbers came out of JSON.
    serde_json::to_value(value).expect("plain data must have a JSON form")
}

/// The first 16 hex digits of SHA-256 over the value's content, whatever the order
/// of its keys, bound to a purpose.
pub(super) fn hash(purpose: &str, value: &impl Serialize) -> String {
    let digest = Sha256::digest(format!("{purpose} {}", json(value)));
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
