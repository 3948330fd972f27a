//! Parses annotation `weft.dev/faults`: whether experiments may harm the calls of a namespace, and
//! which share of them.
//!
//! Nothing is allowed by default, and what cannot be read allows nothing: putting calls at risk
//! takes the right to write the Namespace.

use super::share::parse_percent;
use crate::labels::{FAULTS_ALLOWED, FAULTS_STOPPED};

/// What stands before the largest share.
const SHARE: &str = "share=";
/// Millionths in a hundredth of a percent.
const MILLIONTHS: u32 = 100;
/// Hundredths of a percent in a whole.
const WHOLE: u32 = 10_000;

/// What the annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultLimit {
    /// Experiments may harm at most this share of its calls, in millionths.
    UpTo(u32),
    /// Nothing is harmed; on the mesh's own namespace, in the whole mesh.
    Stopped,
}

/// Why a value says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be \"allowed\", a largest share such as \"share=5%\", or \"stopped\"")]
pub struct BadFaultLimit;

/// Reads the annotation.
///
/// # Errors
/// When the value says nothing.
pub fn parse_faults(text: &str) -> Result<FaultLimit, BadFaultLimit> {
    match text {
        FAULTS_ALLOWED => return Ok(FaultLimit::UpTo(WHOLE * MILLIONTHS)),
        FAULTS_STOPPED => return Ok(FaultLimit::Stopped),
        _ => {}
    }
    let share = text.strip_prefix(SHARE).ok_or(BadFaultLimit)?;
    let share = parse_percent(share).map_err(|_| BadFaultLimit)?;
    if share.0 <= WHOLE {
        Ok(FaultLimit::UpTo(share.0 * MILLIONTHS))
    } else {
        Err(BadFaultLimit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_annotation_allows_what_it_says_and_nothing_else() {
        for (text, most) in [
            ("allowed", 1_000_000),
            ("share=5%", 50_000),
            ("share=0.25%", 2500),
            ("share=100%", 1_000_000),
            ("share=0%", 0),
        ] {
            assert_eq!(parse_faults(text), Ok(FaultLimit::UpTo(most)), "{text}");
        }
        assert_eq!(parse_faults("stopped"), Ok(FaultLimit::Stopped));
        for text in [
            "",
            "yes",
            "Allowed",
            "share=",
            "share=5",
            "5%",
            "share=101%",
        ] {
            assert_eq!(parse_faults(text), Err(BadFaultLimit), "{text}");
        }
    }
}
