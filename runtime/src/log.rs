//! Structured logs on standard error.
//!
//! Standard output is left alone: access logs and commands own it.
//!
//! No event waits for the reader of standard error ([`crate::log_writer`]), so whoever
//! ends the process calls [`flush`] first.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::OnceLock;

use tracing::{error, info};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, registry, reload};

use crate::log_writer::{FLUSH_WITHIN, LogWriter};

static LOG: OnceLock<Log> = OnceLock::new();

/// The log of the process.
struct Log {
    lines: LogWriter,
    /// What it was started with.
    level: String,
    filter: reload::Handle<Targets, Registry>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One readable line per event; coloured in a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = BadLog;

    fn from_str(text: &str) -> Result<Self, BadLog> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(BadLog::Format(other.to_owned())),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BadLog {
    #[error("log level {level:?} is not understood: {reason}")]
    Level { level: String, reason: String },
    #[error("log level {level:?} could not be put in force: {reason}")]
    Change {
        level: String,
        reason: reload::Error,
    },
    #[error("log format {0:?} is neither text nor json")]
    Format(String),
    #[error("logging was set up before")]
    Twice,
    #[error("the log's thread could not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts logging for the whole process and makes every panic a log event.
///
/// `level` is a filter such as `info` or `info,proxy=debug`; empty means `info`.
///
/// # Errors
/// A level that is not understood, or a second call in one process.
pub fn init(level: &str, format: Format) -> Result<(), BadLog> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = LogWriter::to("log", std::io::stderr())?;
    let events = fmt::layer().with_writer(lines.clone());
    let started = match format {
        Format::Text => {
            let events = events.with_ansi(std::io::stderr().is_terminal());
            registry().with(filter).with(events).try_init()
        }
        Format::Json => {
            let events = events.json().flatten_event(true);
            registry().with(filter).with(events).try_init()
        }
    };
    started.map_err(|_| BadLog::Twice)?;
    let log = Log {
        lines,
        level: level.to_owned(),
        filter: handle,
    };
    LOG.set(log).map_err(|_| BadLog::Twice)?;
    log_panics();
    Ok(())
}

/// Logs by another filter from now on; `None`: by the one that the process was started
/// with. A process that has no log yet keeps none.
///
/// # Errors
/// A level that is not understood: the filter before stays.
pub fn change_level(level: Option<&str>) -> Result<(), BadLog> {
    let Some(log) = LOG.get() else { return Ok(()) };
    let level = level.unwrap_or(&log.level);
    let next = filter(level)?;
    let failed = |reason| BadLog::Change {
        level: level.to_owned(),
        reason,
    };
    let same = log.filter.with_current(|current| *current == next);
    if same.map_err(failed)? {
        return Ok(());
    }
    // Said before it is done: afterwards the log may be silent.
    info!(filter = level, "the log's level changes");
    log.filter.reload(next).map_err(failed)
}

/// Waits until what was logged is written, for a moment at most.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.lines.flush(FLUSH_WITHIN);
    }
}

/// Levels by module and no more: filters by field need regular expressions, which would lie
/// in every proxy's memory for this alone.
fn filter(level: &str) -> Result<Targets, BadLog> {
    let level = if level.is_empty() { "info" } else { level };
    level.parse().map_err(|reason: ParseError| BadLog::Level {
        level: level.to_owned(),
        reason: reason.to_string(),
    })
}

/// A release build aborts on panic, so the hook is the last code that can say
/// where it happened; the span of the task names the task.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string);
        error!(message_text = message, place, "panicked");
        flush();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_may_name_single_modules_and_may_be_empty() {
        for level in ["", "info", "warn,proxy=debug"] {
            assert!(filter(level).is_ok(), "{level:?}");
        }
    }

    #[test]
    fn level_that_is_not_understood_is_named_in_the_error() {
        let error = filter("proxy=loudest").unwrap_err().to_string();
        assert!(error.contains("proxy=loudest"), "{error}");
    }

    #[test]
    fn format_is_text_or_json_and_nothing_else() {
        assert_eq!("text".parse::<Format>().unwrap(), Format::Text);
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert!("xml".parse::<Format>().is_err());
    }
}
