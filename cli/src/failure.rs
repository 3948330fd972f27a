//! The exit status of a command, and its error.
//!
//! Scripts read the exit status, so there are only four: 0 yes or fine, 1 no (refused, a failed
//! check, something would break), 2 bad usage or bad input, 3 it could not be found out.

use std::process::ExitCode;

/// The result of a command that found one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Yes, or done, or fine.
    Yes,
    /// No, refused, or something is wrong.
    No,
    /// Not known, as the output itself says.
    Unknown,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command or its input cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// No request could be sent, or no response came.
    #[error("{0}")]
    Unknown(String),
    /// The user is refused, or nothing serves such requests: the next one will end the same way.
    #[error("{0}")]
    Denied(String),
    /// The reader of the output has closed it: no message is left to print.
    #[error("the output was closed")]
    Closed,
}

impl Failure {
    /// Bad usage or bad input.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// It could not be found out.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self::Unknown(text.into())
    }

    /// The message for the user; none if no message is read.
    #[must_use]
    pub(crate) fn words(&self) -> Option<&str> {
        match self {
            Self::Usage(text) | Self::Unknown(text) | Self::Denied(text) => Some(text),
            Self::Closed => None,
        }
    }
}

impl From<std::io::Error> for Failure {
    /// Of writing the output; files and connections have errors of their own.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Unknown(format!("the output could not be written: {error}")),
        }
    }
}

/// The exit status of a command.
#[must_use]
pub fn status(ended: &Result<Conclusion, Failure>) -> u8 {
    match ended {
        Ok(Conclusion::Yes) | Err(Failure::Closed) => 0,
        Ok(Conclusion::No) => 1,
        Err(Failure::Usage(_)) => 2,
        Ok(Conclusion::Unknown) | Err(Failure::Unknown(_) | Failure::Denied(_)) => 3,
    }
}

/// The same, as `main` returns it.
#[must_use]
pub(crate) fn exit_code(ended: &Result<Conclusion, Failure>) -> ExitCode {
    ExitCode::from(status(ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_outcome_has_its_exit_status() {
        assert_eq!(status(&Ok(Conclusion::Yes)), 0);
        assert_eq!(status(&Ok(Conclusion::No)), 1);
        assert_eq!(status(&Err(Failure::usage("x"))), 2);
        assert_eq!(status(&Err(Failure::unknown("x"))), 3);
        assert_eq!(status(&Err(Failure::Denied("x".to_owned()))), 3);
        assert_eq!(status(&Ok(Conclusion::Unknown)), 3);
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(
            status(&Err(closed.into())),
            0,
            "`weft stat deploy | head -1`"
        );
    }
}
