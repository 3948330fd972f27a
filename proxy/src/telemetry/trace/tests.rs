//! Which requests are recorded, and what that costs those that are not.
//!
//! Claims: observe-92, observe-93, observe-94

use http::{HeaderValue, Request};
use policy::share::Share;
use policy::trace::Format;

use super::*;

const RECEIVED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn config(share: &str, most_per_second: u32) -> Arc<TracingConfig> {
    Arc::new(TracingConfig {
        tracing: Tracing {
            collector: "http://collector:4317".parse().unwrap(),
            share: share.parse::<Share>().unwrap(),
            inject: vec![Format::TraceContext],
            most_per_second,
            paths: true,
        },
        resource: Vec::new(),
    })
}

fn tracer(share: &str, most_per_second: u32) -> Tracer {
    let tracer = Tracer::default();
    tracer.configure(Some(config(share, most_per_second)));
    tracer
}

fn headers(parent: Option<&'static str>) -> HeaderMap {
    let mut map = HeaderMap::new();
    if let Some(parent) = parent {
        map.insert("traceparent", HeaderValue::from_static(parent));
    }
    map
}

fn begin(tracer: &Tracer, map: &HeaderMap) -> SpanStart {
    begin_from(CameFrom::Application, tracer, map)
}

fn begin_from(from: CameFrom, tracer: &Tracer, map: &HeaderMap) -> SpanStart {
    tracer.begin(map, from, |_| {
        let parts = Request::new(()).into_parts().0;
        Span::of(&parts, Duration::ZERO, true)
    })
}

/// What is passed on, and whether a span is recorded.
fn passed(tracer: &Tracer, parent: Option<&'static str>) -> (String, bool) {
    let mut map = headers(parent);
    let span_start = begin(tracer, &map);
    let (SpanStart::Traced(trace)
    | SpanStart::Limited(Some(trace))
    | SpanStart::QueueFull(Some(trace))) = span_start
    else {
        let parent = map.get("traceparent").map(|one| one.to_str().unwrap());
        return (parent.unwrap_or_default().to_owned(), false);
    };
    trace.pass_on(&mut map);
    let parent = map["traceparent"].to_str().unwrap().to_owned();
    (parent, trace.span_id().is_some())
}

#[test]
fn received_sampling_decision_overrides_own_share() {
    for share in ["0", "100"] {
        let tracer = tracer(share, 100);
        let (passed_on, recorded) = passed(&tracer, Some(RECEIVED));
        assert!(recorded, "{share}");
        assert!(passed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(
            passed_on.ends_with("-01") && passed_on != RECEIVED,
            "{passed_on}"
        );
        let untouched = (UNSAMPLED.to_owned(), false);
        assert_eq!(passed(&tracer, Some(UNSAMPLED)), untouched, "{share}");
    }
}

/// A silent peer has decided not to record. What it sends holds as from any other sender, and so
/// does what it left open.
#[test]
fn missing_trace_header_from_peer_means_not_sampled() {
    let tracer = tracer("100", 100);
    let recorded = |from, map: &HeaderMap| match begin_from(from, &tracer, map) {
        SpanStart::Traced(trace) => Some(trace.span_id().is_some()),
        SpanStart::Untouched => None,
        SpanStart::Limited(_) | SpanStart::QueueFull(_) => unreachable!(),
    };
    let mut left_open = HeaderMap::new();
    left_open.insert(
        "b3",
        HeaderValue::from_static("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"),
    );
    for (map, of_an_application, of_a_peer) in [
        (headers(None), Some(true), Some(false)),
        (headers(Some("damaged")), Some(true), Some(false)),
        (headers(Some(RECEIVED)), Some(true), Some(true)),
        (headers(Some(UNSAMPLED)), None, None),
        (left_open, Some(true), Some(true)),
    ] {
        assert_eq!(
            recorded(CameFrom::Application, &map),
            of_an_application,
            "{map:?}"
        );
        assert_eq!(recorded(CameFrom::Peer, &map), of_a_peer, "{map:?}");
    }
}

#[test]
fn local_trace_has_one_sampling_decision_passed_on() {
    let (all, none) = (tracer("100", 100), tracer("0", 100));
    let (first, recorded) = passed(&all, None);
    assert!(recorded && first.ends_with("-01"), "{first}");
    let (second, _) = passed(&all, None);
    assert_ne!(first, second);
    let (unsampled, recorded) = passed(&none, None);
    assert!(!recorded && unsampled.ends_with("-00"), "{unsampled}");
    // Whatever is damaged counts as nothing.
    let (anew, recorded) = passed(&none, Some("damaged"));
    assert!(!recorded && anew.ends_with("-00"), "{anew}");
}

// Claims: observability-13
#[test]
fn without_a_collector_nothing_is_touched() {
    let tracer = tracer("100", 100);
    // Control: with one a line of the access log waits for it.
    assert_eq!(tracer.record(vec![0; 100]), Ok(()));
    assert_eq!(tracer.records.take().len(), 1);
    tracer.configure(None);
    for parent in [Some(RECEIVED), Some(UNSAMPLED), Some("damaged"), None] {
        for from in [CameFrom::Application, CameFrom::Peer] {
            let span_start = tracer.begin(&headers(parent), from, |_| unreachable!("{parent:?}"));
            assert!(
                matches!(span_start, SpanStart::Untouched),
                "{parent:?}: {span_start:?}"
            );
        }
    }
    assert_eq!(
        passed(&tracer, Some(RECEIVED)),
        (RECEIVED.to_owned(), false)
    );
    assert_eq!(passed(&tracer, None), (String::new(), false));
    assert_eq!(tracer.record(vec![0; 100]), Err("off"));
    assert!(tracer.records.take().is_empty() && tracer.spans.take().is_empty());
}

/// A span that begins and is not recorded would cut the trace in two; so none begins, and the
/// headers state that.
#[tokio::test(start_paused = true)]
async fn beyond_the_spans_of_a_second_none_begins() {
    let tracer = tracer("100", 5);
    let recorded = |parent| (0..100).filter(|_| passed(&tracer, parent).1).count();
    assert_eq!(recorded(None), 5);
    // Of a trace that is recorded elsewhere, the headers stay as they were.
    assert_eq!(
        passed(&tracer, Some(RECEIVED)),
        (RECEIVED.to_owned(), false)
    );
    assert!(passed(&tracer, None).0.ends_with("-00"));
    assert!(matches!(
        begin(&tracer, &headers(None)),
        SpanStart::Limited(Some(_))
    ));
    assert!(matches!(
        begin(&tracer, &headers(Some(RECEIVED))),
        SpanStart::Limited(None)
    ));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(recorded(Some(RECEIVED)), 5);
}

/// A collector that takes nothing cuts no trace in two.
#[test]
fn while_no_more_spans_may_wait_none_begins() {
    let tracer = tracer("100", 10_000);
    let waiting = (0..10_000).take_while(|_| tracer.end(vec![0; 100])).count();
    assert_eq!(
        passed(&tracer, Some(RECEIVED)),
        (RECEIVED.to_owned(), false)
    );
    let (anew, recorded) = passed(&tracer, None);
    assert!(!recorded && anew.ends_with("-00"), "{anew}");
    // Control: what was taken makes room.
    assert!(tracer.spans.take().len() < waiting);
    assert!(passed(&tracer, Some(RECEIVED)).1);
}

/// By five standard deviations: one run of a million is red by chance.
// Claims: observability-11
#[test]
fn of_many_traces_the_share_is_recorded() {
    const TRACES: u32 = 20_000;
    let tracer = tracer("10", 10_000);
    let sampled = (0..TRACES).filter(|_| {
        // Sampled, whether there was room for it or not.
        !matches!(
            begin(&tracer, &HeaderMap::new()),
            SpanStart::Traced(trace) if trace.span_id().is_none()
        )
    });
    let sampled = f64::from(u32::try_from(sampled.count()).unwrap());
    let (expected, deviation) = (f64::from(TRACES) * 0.1, (f64::from(TRACES) * 0.09).sqrt());
    assert!((sampled - expected).abs() < 5.0 * deviation, "{sampled}");
}
