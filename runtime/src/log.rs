//! Structured logs on standard error, and the log level that may be changed while the process runs.
//!
//! Standard output is left alone: access logs and commands own it.
//!
//! No event waits for the reader of standard error ([`crate::log_writer`]), so a process
//! calls [`flush`] before it ends.
//!
//! A process has one log, and an event does not show which of the workloads it is about. So none of
//! them sets the level for all: each has a [`LevelRequest`], and the log has the most verbose level
//! that any of them requests. Otherwise the last one would silence the others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing::{Level, error, info, warn};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, registry, reload};

use crate::log_writer::{FLUSH_WITHIN, LogWriter};

static LOG: OnceLock<Log> = OnceLock::new();

/// What is asked for, by the number of the request; `None`: what the process was started with.
type Requests = BTreeMap<u64, Option<String>>;

static REQUESTS: Mutex<Requests> = Mutex::new(Requests::new());

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
/// `level` is a filter such as `info` or `info,proxy=debug`; empty means `info`. `acts_upon`:
/// whether a terminal acts upon a character, which is escaped then.
///
/// # Errors
/// A level that is not understood, or a second call in one process.
pub fn init(level: &str, format: Format, acts_upon: fn(char) -> bool) -> Result<(), BadLog> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = LogWriter::to("log", std::io::stderr())?;
    let events = fmt::layer().with_writer(lines.events(acts_upon));
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

/// The log level that one part of the process requests, for as long as it is kept.
#[derive(Debug)]
pub struct LevelRequest {
    number: u64,
}

impl LevelRequest {
    /// Requests the level that the process was started with.
    #[must_use]
    pub fn of_the_start() -> Self {
        let mut requests = REQUESTS.lock();
        let last = requests.last_key_value().map(|(number, _)| *number);
        let number = last.map_or(0, |last| last + 1);
        requests.insert(number, None);
        // Others may have asked for less.
        change_or_warn(&requests);
        Self { number }
    }

    /// Requests another filter from now on; `None`: the one that the process was started
    /// with. A process that has no log yet keeps none.
    ///
    /// # Errors
    /// A level that is not understood: what was asked for before stays.
    pub fn set(&self, level: Option<&str>) -> Result<(), BadLog> {
        if let Some(level) = level {
            filter(level)?;
        }
        let mut requests = REQUESTS.lock();
        requests.insert(self.number, level.map(str::to_owned));
        change_level(&requests)
    }
}

impl Drop for LevelRequest {
    fn drop(&mut self) {
        let mut requests = REQUESTS.lock();
        requests.remove(&self.number);
        change_or_warn(&requests);
    }
}

fn change_or_warn(requests: &Requests) {
    if let Err(error) = change_level(requests) {
        warn!(%error, "the log's level stays");
    }
}

/// Logs what any of these requests, and where there are none, as the process was started.
fn change_level(requests: &Requests) -> Result<(), BadLog> {
    let Some(log) = LOG.get() else { return Ok(()) };
    let requested = requests.values();
    let mut requested: BTreeSet<&str> = requested
        .map(|level| level.as_deref().unwrap_or(&log.level))
        .collect();
    if requested.is_empty() {
        requested.insert(&log.level);
    }
    let filters: Vec<Targets> = requested
        .iter()
        .map(|level| filter(level))
        .collect::<Result<_, _>>()?;
    let together = filters.into_iter().reduce(|all, more| either(&all, &more));
    let next = together.unwrap_or_default();
    // One alone is reported as it was written.
    let level = match requested.first() {
        Some(only) if requested.len() == 1 => (*only).to_owned(),
        _ => next.to_string(),
    };
    let failed = |reason| BadLog::Change {
        level: level.clone(),
        reason,
    };
    let same = log.filter.with_current(|current| *current == next);
    if same.map_err(failed)? {
        return Ok(());
    }
    // Said before it is done: afterwards the log may be silent.
    info!(filter = level.as_str(), "the log's level changes");
    log.filter.reload(next).map_err(failed)
}

/// Logs all that one of the two logs. Of a module that both name it is the higher level; of one
/// that only one of them names, the level of the other for the module around it counts as well.
fn either(one: &Targets, other: &Targets) -> Targets {
    let default = |filter: &Targets| filter.default_level().unwrap_or(LevelFilter::OFF);
    let named = one.iter().chain(other.iter()).map(|(target, _)| {
        let level = level_of(one, target).max(level_of(other, target));
        (target.to_owned(), level)
    });
    let named: Targets = named.collect();
    named.with_default(default(one).max(default(other)))
}

fn level_of(filter: &Targets, target: &str) -> LevelFilter {
    let levels = [
        Level::TRACE,
        Level::DEBUG,
        Level::INFO,
        Level::WARN,
        Level::ERROR,
    ];
    let highest = levels
        .into_iter()
        .find(|level| filter.would_enable(target, level));
    highest.map_or(LevelFilter::OFF, LevelFilter::from_level)
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
    fn of_two_filters_all_is_logged_that_either_logs() {
        let read = |level: &str| filter(level).unwrap();
        let shown = |one: &str, other: &str| either(&read(one), &read(other)).to_string();
        for (one, other, both) in [
            ("info", "off", "info"),
            ("warn", "debug", "debug"),
            ("off", "off", "off"),
            // What only one names has the higher of its level and of the other's default.
            ("info,proxy=debug", "warn", "proxy=debug,info"),
            ("info,proxy=off", "warn", "proxy=warn,info"),
            // Of a module within one that the other names.
            (
                "off,proxy::net=warn",
                "off,proxy=debug",
                "proxy::net=debug,proxy=debug,off",
            ),
            // A filter without a default logs nothing else.
            ("proxy=debug", "h2=info", "proxy=debug,h2=info,off"),
        ] {
            assert_eq!(shown(one, other), both, "{one} and {other}");
            assert_eq!(shown(other, one), both, "{other} and {one}");
        }
    }

    #[test]
    fn invalid_log_level_is_named_in_error() {
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
