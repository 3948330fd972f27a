//! What a probe or hook found.

/// What a probe or hook found, in a few words; `Err` is a failure.
pub(crate) type ProbeResult = Result<String, String>;
