//! Reads responses of the API server: the time of the cluster, a body up to a bound, and streamed
//! lines.
//!
//! With a clock of the user's machine that is ten minutes ahead, calls of the last minute would
//! look long past, and valid certificates expired. An endless body would fill the memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use k8s_openapi::jiff::fmt::strtime;
use k8s_openapi::jiff::tz::TimeZone;
use kube::client::Body;

use crate::failure::Failure;

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

/// The error of a response that exceeds this max number of bytes.
#[derive(Debug)]
pub(super) struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(most) = *self;
        let (number, unit) = match most >> 20 {
            0 => (most >> 10, "KiB"),
            number => (number, "MiB"),
        };
        write!(
            f,
            "the answer is too long to be read, longer than {number} {unit}; ask for less, such as one \
             namespace"
        )
    }
}

impl std::error::Error for TooLong {}

/// The whole body of a response that has at most `most` bytes.
pub(crate) async fn whole(body: Body, most: usize) -> kube::Result<Bytes> {
    let bytes = Limited::new(body, most).collect().await;
    // The error that ended the body is returned itself, not wrapped in another error.
    let bytes = bytes.map_err(|error| match error.downcast::<kube::Error>() {
        Ok(error) => *error,
        Err(error) if error.is::<LengthLimitError>() => {
            kube::Error::Service(Box::new(TooLong(most)))
        }
        Err(error) => kube::Error::Service(error),
    });
    Ok(bytes?.to_bytes())
}

/// Bytes of one line. A request with all its headers has a tenth of that.
const LONGEST: usize = 256 * 1024;

/// The rest of a streamed response, line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    what: String,
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn of(what: &str, body: Body) -> Self {
        Self {
            what: what.to_owned(),
            body,
            buffer: Vec::new(),
        }
    }

    /// The next line, without its end; `None` after the last.
    ///
    /// # Errors
    /// When the connection breaks, or a line is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            let broken = |why: &str| Failure::unknown(format!("{}: {why}", self.what));
            if self.buffer.len() > LONGEST {
                return Err(broken("a line is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(broken(&error.to_string())),
            }
        }
    }
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
