//! Trace headers: which trace a message belongs to, by W3C trace context, or by B3 in one header or
//! in several.
//!
//! The first format that is valid decides, in this order. One that is not valid, because it is
//! damaged or there twice, counts as absent and is passed on unchanged: every other reader must
//! find it damaged too.
//!
//! `tracestate` and `baggage` are left alone here, but where a message is taken out of its trace.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

mod read;
mod write;

pub use read::read;
pub use write::{begin, pass_on};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The headers by which a message carries its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `traceparent` of W3C.
    TraceContext,
    /// `b3`.
    B3,
    /// `X-B3-TraceId` and those beside it.
    B3Multi,
}

/// Why a text is no [`Format`]; a clause that follows the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("holds {0:?}, but must be tracecontext, b3 or b3multi")]
pub struct NotAFormat(String);

impl Format {
    /// In the order in which they are asked.
    pub const ALL: [Self; 3] = [Self::TraceContext, Self::B3, Self::B3Multi];

    /// As users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TraceContext => "tracecontext",
            Self::B3 => "b3",
            Self::B3Multi => "b3multi",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = NotAFormat;

    fn from_str(text: &str) -> Result<Self, NotAFormat> {
        let known = Self::ALL.into_iter().find(|one| one.as_str() == text);
        known.ok_or_else(|| NotAFormat(text.chars().take(80).collect()))
    }
}

/// Whether the spans of a trace are recorded, as far as a span before has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingDecision {
    Sampled,
    Unsampled,
    /// The reader decides.
    Open,
}

/// Where in which trace a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Never 0.
    pub trace: u128,
    /// The span that sent the message; never 0.
    pub parent: u64,
}

/// What the headers of a message say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// `None`: only the sampling decision was sent, of a trace that is yet to begin.
    pub ids: Option<Ids>,
    pub sampling: SamplingDecision,
}

/// What the headers of a message are to say from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onward {
    /// Never 0.
    pub trace: u128,
    /// The span that sends the message on; never 0.
    pub span: u64,
    pub sampled: bool,
}

/// Takes a message out of whatever trace its sender says that it belongs to.
pub fn remove(map: &mut HeaderMap) {
    let b3 = [B3, B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS];
    for name in [TRACEPARENT, TRACESTATE].into_iter().chain(b3) {
        map.remove(name);
    }
}

/// The only value of a header; `None` where there is none, or more than one.
fn single<'a>(map: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = map.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
