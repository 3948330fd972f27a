//! Reads fields of an object's JSON, each with its path, and says what is wrong with them.

/// Why a part of an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Broken {
    /// Path of the field, such as `spec.rules[1].filters[0]`.
    pub path: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}
