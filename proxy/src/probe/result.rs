//! What a probe or hook found.

/// The result of a probe or hook, in short; `Err` is a failure.
pub(crate) type ProbeResult = Result<String, String>;
