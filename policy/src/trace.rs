//! Tracing decisions: which traces are recorded, which collector gets their spans, and how a
//! message carries its trace.

mod collector;
pub mod context;

pub use collector::{Collector, NotACollector, Otlp};
pub use context::Format;

use crate::share::Share;

/// Spans that one proxy may begin in a second, at most and at least.
pub const MOST_PER_SECOND: std::ops::RangeInclusive<u32> = 1..=10_000;

/// What one proxy reports of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Where spans are sent.
    pub collector: Collector,
    /// Of the traces that begin at the proxy, those that are recorded.
    pub share: Share,
    /// How the requests of such traces say which one they belong to; never empty.
    pub inject: Vec<Format>,
    /// Spans that begin in a second, of [`MOST_PER_SECOND`].
    pub most_per_second: u32,
    /// Whether a span shows the path of its request.
    pub paths: bool,
}
