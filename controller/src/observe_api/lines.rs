//! Answers that go on: one JSON object on a line after the other.
//!
//! The API server cuts what it takes for a plain call after 60 s. So a stream ends by
//! itself before that, and says so; its reader asks again and is authorized anew.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
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
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
