//! The cluster's time, taken from the responses of its API server.
//!
//! A clock of the user's machine that is ten minutes ahead would make calls of the last minute
//! long past, and certificates that last seem ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use k8s_openapi::jiff::fmt::strtime;
use k8s_openapi::jiff::tz::TimeZone;

/// The time of the last response that had one; shared by all requests.
#[derive(Clone, Default)]
pub(super) struct Clock {
    /// Seconds since 1970; 0 if no response had a time.
    server_time: Arc<AtomicU64>,
}

impl Clock {
    /// Takes it from the header of a response.
    pub(super) fn note(&self, head: &HeaderMap) {
        let server_time = date(head).and_then(|seconds| u64::try_from(seconds).ok());
        if let Some(server_time) = server_time {
            self.server_time.store(server_time, Ordering::Relaxed);
        }
    }

    /// The time of the last response; `own` if none had one.
    pub(super) fn now(&self, own: SystemTime) -> SystemTime {
        match self.server_time.load(Ordering::Relaxed) {
            0 => own,
            server_time => SystemTime::UNIX_EPOCH + Duration::from_secs(server_time),
        }
    }
}

/// When a response was sent, in seconds since 1970, by its sender's clock.
#[must_use]
pub(crate) fn date(head: &HeaderMap) -> Option<i64> {
    http_date(head.get(header::DATE)?.to_str().ok()?)
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<i64> {
    let at = strtime::parse("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
    let at = at.to_datetime().ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn clock_follows_last_response_with_date() {
        let (clock, own) = (Clock::default(), SystemTime::now());
        assert_eq!(clock.now(own), own);
        let mut head = HeaderMap::new();
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "yesterday"] {
            head.insert(header::DATE, date.parse().unwrap());
            clock.note(&head);
            let server_time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
            assert_eq!(clock.clone().now(own), server_time);
        }
    }
}
