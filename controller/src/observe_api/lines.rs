//! Streamed responses: one JSON object on a line after the other.
//!
//! The API server cuts what it takes for a plain call after 60 s. So a stream ends by itself before
//! that, and reports it; its reader requests it again and is authorized anew.
//!
//! Paths and headers in it come from any caller, and `kubectl get --raw` prints them as they are:
//! what a terminal acts upon is escaped.
//!
//! Claims: observe-16

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use policy::terminal::escaped_json;
use serde::Serialize;

use crate::aggregated::server::{ApiResponse, whole};

/// From a stream's begin to its end.
pub(super) const LIFE: Duration = Duration::from_secs(50);

/// These lines, as they come.
pub(super) fn answer(lines: impl Stream<Item = Bytes> + Send + 'static) -> ApiResponse {
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
    let mut answer = whole(StatusCode::OK, Bytes::new());
    *answer.body_mut() = StreamBody::new(frames).boxed_unsync();
    answer
}

/// One line.
pub(super) fn line(message: &impl Serialize) -> Bytes {
    let mut line = escaped_json(serde_json::to_string(message).unwrap_or_default());
    line.push('\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::line;

    #[test]
    fn stream_line_escapes_terminal_characters_and_keeps_meaning() {
        let message = json!({"path": "/caf\u{e9}\n\u{202e}x\u{9b}2J"});
        let line = line(&message);
        let text = std::str::from_utf8(&line).unwrap();
        assert_eq!(text, "{\"path\":\"/caf\u{e9}\\n\\u202ex\\u009b2J\"}\n");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), message);
    }
}
