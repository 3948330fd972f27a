//! By which content is known again.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The first 16 hex digits of SHA-256 over what the value says, whatever the order
/// of its keys, bound to a purpose.
pub(super) fn hash(purpose: &str, value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("plain data must have a JSON form");
    let digest = Sha256::digest(format!("{purpose} {value}"));
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
