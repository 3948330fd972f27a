//! Continues W3C trace context: the proxy takes part in a trace that the
//! application began, under a span id of its own, and begins none itself.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;

struct Reader<'a>(&'a HeaderMap);

impl Extractor for Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Writer<'a>(&'a mut HeaderMap);

impl Injector for Writer<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

/// Replaces the parent span of a valid `traceparent` by a span of this proxy.
/// Returns the trace id for the access log.
pub fn pass_on(map: &mut HeaderMap) -> Option<String> {
    if !map.contains_key("traceparent") {
        return None;
    }
    let propagator = TraceContextPropagator::new();
    let context = propagator.extract(&Reader(map));
    let parent = context.span().span_context().clone();
    if !parent.is_valid() {
        return None;
    }
    let own = SpanContext::new(
        parent.trace_id(),
        SpanId::from_bytes(rand::random::<u64>().max(1).to_be_bytes()),
        parent.trace_flags(),
        false,
        parent.trace_state().clone(),
    );
    let trace = own.trace_id().to_string();
    propagator.inject_context(
        &Context::new().with_remote_span_context(own),
        &mut Writer(map),
    );
    Some(trace)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::pass_on;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_goes_on_under_a_span_of_the_proxy() {
        let mut map = HeaderMap::new();
        map.insert("traceparent", HeaderValue::from_static(PARENT));
        map.insert("tracestate", HeaderValue::from_static("vendor=1"));
        assert_eq!(
            pass_on(&mut map).as_deref(),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
        let after = map.get("traceparent").unwrap().to_str().unwrap();
        assert!(
            after.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && after.ends_with("-01")
        );
        assert_ne!(after, PARENT);
        assert_eq!(map.get("tracestate").unwrap(), "vendor=1");
    }

    #[test]
    fn a_request_without_a_trace_gets_none_and_a_broken_one_stays_as_it_is() {
        let mut map = HeaderMap::new();
        assert!(pass_on(&mut map).is_none());
        assert!(map.is_empty());
        map.insert("traceparent", HeaderValue::from_static("broken"));
        assert!(pass_on(&mut map).is_none());
        assert_eq!(map.get("traceparent").unwrap(), "broken");
    }
}
