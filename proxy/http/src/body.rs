//! The body type of messages that the proxy passes on: frames of bytes, one box per message.

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

#[must_use]
pub fn empty() -> Body {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

#[must_use]
pub fn text(content: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}
