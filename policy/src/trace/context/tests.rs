//! The headers of real tracers, and of hostile ones.
//!
//! Claims: observe-91, observe-99

use proptest::prelude::*;

use super::*;

const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
const SHORT: u128 = 0x8448_eb21_1c80_319c;
const PARENT: u64 = 0xb7ad_6b71_6920_3331;
const OWN: u64 = 0x00f0_67aa_0ba9_02b7;

fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn context(trace: u128, sampling: SamplingDecision) -> Context {
    let ids = Some(Ids {
        trace,
        parent: PARENT,
    });
    Context { ids, sampling }
}

const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const W3C_OFF: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const ONE: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1";

#[test]
fn every_format_carries_trace_and_verdict() {
    use SamplingDecision::{Open, Sampled, Unsampled};
    let id = "0af7651916cd43dd8448eb211c80319c";
    let span = "b7ad6b7169203331";
    for (headers, expected) in [
        (vec![("traceparent", W3C)], context(TRACE, Sampled)),
        (vec![("traceparent", W3C_OFF)], context(TRACE, Unsampled)),
        // A later version may say more.
        (
            vec![(
                "traceparent",
                "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-what",
            )],
            context(TRACE, Sampled),
        ),
        (vec![("b3", ONE)], context(TRACE, Sampled)),
        (
            vec![("b3", "8448eb211c80319c-b7ad6b7169203331-0")],
            context(SHORT, Unsampled),
        ),
        (
            vec![("b3", "8448EB211C80319C-b7ad6b7169203331-d-05e3ac9a4f6e3b90")],
            context(SHORT, Sampled),
        ),
        (
            vec![("b3", "8448eb211c80319c-b7ad6b7169203331")],
            context(SHORT, Open),
        ),
        (
            vec![("x-b3-traceid", id), ("x-b3-spanid", span)],
            context(TRACE, Open),
        ),
        (
            vec![
                ("x-b3-traceid", id),
                ("x-b3-spanid", span),
                ("x-b3-sampled", "1"),
            ],
            context(TRACE, Sampled),
        ),
        (
            vec![
                ("x-b3-traceid", id),
                ("x-b3-spanid", span),
                ("x-b3-sampled", "false"),
            ],
            context(TRACE, Unsampled),
        ),
        (
            vec![
                ("x-b3-traceid", id),
                ("x-b3-spanid", span),
                ("x-b3-flags", "1"),
            ],
            context(TRACE, Sampled),
        ),
        // The first that is valid decides.
        (
            vec![("b3", "0"), ("traceparent", W3C)],
            context(TRACE, Sampled),
        ),
        (
            vec![("traceparent", "broken"), ("b3", ONE)],
            context(TRACE, Sampled),
        ),
    ] {
        assert_eq!(read(&map(&headers)), Some(expected), "{headers:?}");
    }
    for (headers, sampling) in [
        (("b3", "0"), Unsampled),
        (("b3", "1"), Sampled),
        (("b3", "d"), Sampled),
        (("x-b3-sampled", "0"), Unsampled),
        (("x-b3-flags", "1"), Sampled),
    ] {
        let expected = Context {
            ids: None,
            sampling,
        };
        assert_eq!(read(&map(&[headers])), Some(expected), "{headers:?}");
    }
}

#[test]
fn what_is_damaged_or_there_twice_is_no_trace() {
    let long = format!("{W3C}-{}", "a".repeat(60_000));
    let many = vec![("traceparent", W3C); 500];
    for value in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
        &long,
    ] {
        assert_eq!(read(&map(&[("traceparent", value)])), None, "{value:.80}");
    }
    for value in [
        "",
        "2",
        "-",
        "----",
        "8448eb211c80319c",
        "8448eb211c80319c-",
        "448eb211c80319c-b7ad6b7169203331-1",
        "0000000000000000-b7ad6b7169203331-1",
        "8448eb211c80319c-b7ad6b7169203331-x",
        "8448eb211c80319c-b7ad6b7169203331-1-",
        "8448eb211c80319c-b7ad6b7169203331-1-05e3ac9a4f6e3b90-1",
        "+448eb211c80319c-b7ad6b7169203331-1",
    ] {
        assert_eq!(read(&map(&[("b3", value)])), None, "{value}");
    }
    assert_eq!(read(&map(&many)), None);
    for headers in [
        vec![("x-b3-traceid", "8448eb211c80319c")],
        vec![("x-b3-spanid", "8448eb211c80319c"), ("x-b3-sampled", "1")],
        vec![
            ("x-b3-traceid", "8448eb211c80319c"),
            ("x-b3-traceid", "8448eb211c80319c"),
            ("x-b3-spanid", "b7ad6b7169203331"),
        ],
        vec![("x-b3-sampled", "1"), ("x-b3-sampled", "0")],
        vec![("x-b3-sampled", "yes")],
        vec![("x-b3-flags", "0")],
    ] {
        assert_eq!(read(&map(&headers)), None, "{headers:?}");
    }
}

fn onward(trace: u128, sampled: bool) -> Onward {
    Onward {
        trace,
        span: OWN,
        sampled,
    }
}

fn passed(headers: &[(&'static str, &str)], onward: Onward) -> Vec<String> {
    let mut map = map(headers);
    pass_on(&mut map, onward, &[Format::TraceContext]);
    let mut lines: Vec<String> = map
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn own_span_becomes_parent_in_every_received_format() {
    let own = onward(TRACE, true);
    let w3c = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    assert_eq!(passed(&[("traceparent", W3C)], own), [w3c]);
    // The flag of how the id was drawn stays, unknown ones do not.
    let flags = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff";
    let kept = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-03";
    assert_eq!(passed(&[("traceparent", flags)], own), [kept]);
    let b3 = "b3: 0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-1-b7ad6b7169203331";
    assert_eq!(passed(&[("traceparent", W3C), ("b3", ONE)], own), [b3, w3c]);
    // An id of 64 bits stays one, and debug stays debug.
    let short = "b3: 8448eb211c80319c-00f067aa0ba902b7-d-b7ad6b7169203331";
    let debug = "8448eb211c80319c-b7ad6b7169203331-d";
    assert_eq!(passed(&[("b3", debug)], onward(SHORT, true)), [short]);
    assert_eq!(
        passed(
            &[
                ("x-b3-traceid", "8448eb211c80319c"),
                ("x-b3-spanid", "b7ad6b7169203331"),
                ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
                ("x-b3-sampled", "true"),
            ],
            onward(SHORT, true)
        ),
        [
            "x-b3-parentspanid: b7ad6b7169203331",
            "x-b3-sampled: true",
            "x-b3-spanid: 00f067aa0ba902b7",
            "x-b3-traceid: 8448eb211c80319c",
        ]
    );
}

#[test]
fn header_of_other_trace_or_none_passes_unchanged() {
    let w3c = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let other = "1111111111111111-2222222222222222-1";
    let lines = passed(&[("traceparent", W3C), ("b3", other)], onward(TRACE, true));
    assert_eq!(lines, [&format!("b3: {other}"), w3c]);
    let lines = passed(
        &[("traceparent", W3C), ("b3", "damaged")],
        onward(TRACE, true),
    );
    assert_eq!(lines, ["b3: damaged", w3c]);
}

#[test]
fn new_trace_is_sent_in_configured_formats() {
    for (format, expected) in [
        (
            Format::TraceContext,
            vec!["traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00"],
        ),
        (
            Format::B3,
            vec!["b3: 0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-0"],
        ),
        (
            Format::B3Multi,
            vec![
                "x-b3-sampled: 0",
                "x-b3-spanid: 00f067aa0ba902b7",
                "x-b3-traceid: 0af7651916cd43dd8448eb211c80319c",
            ],
        ),
    ] {
        let mut map = HeaderMap::new();
        pass_on(&mut map, onward(TRACE, false), &[format]);
        let mut lines: Vec<String> = map
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(lines, expected);
    }
    // What is damaged is replaced, in that format.
    let lines = passed(&[("traceparent", "damaged")], onward(TRACE, true));
    let w3c = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    assert_eq!(lines, [w3c]);
}

#[test]
fn sampling_decision_alone_starts_trace_in_its_format() {
    let own = onward(TRACE, true);
    assert_eq!(
        passed(&[("b3", "d")], own),
        ["b3: 0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-d"]
    );
    assert_eq!(
        passed(&[("x-b3-flags", "1")], own),
        [
            "x-b3-flags: 1",
            "x-b3-spanid: 00f067aa0ba902b7",
            "x-b3-traceid: 0af7651916cd43dd8448eb211c80319c",
        ]
    );
}

#[test]
fn open_sampling_decision_is_filled_in_onward() {
    let unsampled = Onward {
        trace: SHORT,
        span: PARENT,
        sampled: false,
    };
    assert_eq!(
        passed(&[("b3", "8448eb211c80319c-b7ad6b7169203331")], unsampled),
        ["b3: 8448eb211c80319c-b7ad6b7169203331-0"]
    );
    assert_eq!(
        passed(
            &[
                ("x-b3-traceid", "8448eb211c80319c"),
                ("x-b3-spanid", "b7ad6b7169203331")
            ],
            unsampled
        ),
        [
            "x-b3-sampled: 0",
            "x-b3-spanid: b7ad6b7169203331",
            "x-b3-traceid: 8448eb211c80319c",
        ]
    );
}

proptest! {
    /// Whatever came: nothing panics, and what was written is read by the next proxy as it
    /// was meant.
    #[test]
    fn passed_trace_context_is_read_back_unchanged(
        name in prop::sample::select(vec!["traceparent", "b3", "x-b3-traceid", "x-b3-sampled", "x-b3-flags"]),
        value in "[0-9a-f-]{0,70}|[ -~]{0,80}",
        trace in 1..u128::MAX,
        span in 1..u64::MAX,
        sampled: bool,
        inject in prop::sample::subsequence(Format::ALL.to_vec(), 1..=3),
    ) {
        let mut headers = map(&[(name, value.as_str())]);
        let came = read(&headers);
        let trace = came.and_then(|came| came.ids).map_or(trace, |ids| ids.trace);
        let decision = came.map_or(SamplingDecision::Open, |came| came.sampling);
        let sampled = match decision {
            SamplingDecision::Open => sampled,
            decision => decision == SamplingDecision::Sampled,
        };
        pass_on(&mut headers, Onward { trace, span, sampled }, &inject);
        let read = read(&headers).unwrap();
        let sampling = if sampled { SamplingDecision::Sampled } else { SamplingDecision::Unsampled };
        prop_assert_eq!(read, Context { ids: Some(Ids { trace, parent: span }), sampling });
    }
}

#[test]
fn trace_headers_are_kept_out_of_compression_tables() {
    for format in Format::ALL {
        let mut map = HeaderMap::new();
        begin(&mut map, onward(TRACE, false), &[format]);
        assert!(!map.is_empty());
        assert!(map.values().all(HeaderValue::is_sensitive), "{map:?}");
        assert_eq!(
            read(&map).map(|came| came.sampling),
            Some(SamplingDecision::Unsampled)
        );
    }
}

#[test]
fn message_without_its_trace_keeps_other_headers() {
    let mut headers = map(&[
        ("traceparent", W3C),
        ("tracestate", "a=1"),
        ("b3", "1"),
        ("x-b3-traceid", "8448eb211c80319c"),
        ("x-b3-spanid", "b7ad6b7169203331"),
        ("x-b3-parentspanid", "b7ad6b7169203331"),
        ("x-b3-sampled", "1"),
        ("x-b3-flags", "1"),
        ("baggage", "user=1"),
    ]);
    remove(&mut headers);
    assert_eq!(headers, map(&[("baggage", "user=1")]));
}
