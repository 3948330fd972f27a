//! How a check comes out, from best to worst in one order.
//!
//! The exit status and the colour of a line are read from it, so they cannot disagree. A
//! check that cannot be made is skipped with a reason, and is neither good nor bad.

use serde::Serialize;

use crate::output::table::Tone;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckStatus {
    Ok,
    Skipped,
    Warning,
    Error,
}

/// What a check finds; an error is the reason why it is skipped.
pub(super) type CheckResult = Result<(CheckStatus, String), String>;

impl CheckStatus {
    pub(super) fn shown(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Skipped => ("skipped", Tone::Plain),
            Self::Warning => ("warning", Tone::Warning),
            Self::Error => ("error", Tone::Bad),
        }
    }
}
