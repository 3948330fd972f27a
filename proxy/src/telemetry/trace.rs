//! Reads W3C trace context, for the access log.
//!
//! The proxy exports no span, so it writes none: a span id of its own would be a
//! parent that no collector ever receives, and would cut the application's trace in
//! two. The headers pass as they came.

use http::{HeaderMap, HeaderName};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;

struct HeaderExtractor<'a>(&'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// The trace that a message belongs to, if its `traceparent` is valid.
pub(crate) fn id(map: &HeaderMap) -> Option<String> {
    if !map.contains_key("traceparent") {
        return None;
    }
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(map));
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id().to_string())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::id;

    fn with(parent: &'static str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert("traceparent", HeaderValue::from_static(parent));
        map
    }

    #[test]
    fn a_valid_parent_names_its_trace() {
        let map = with("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let trace = id(&map);
        assert_eq!(trace.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    }

    #[test]
    fn a_broken_parent_and_none_name_no_trace() {
        for parent in [
            "broken",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert_eq!(id(&with(parent)), None, "{parent}");
        }
        assert_eq!(id(&HeaderMap::new()), None);
    }
}
