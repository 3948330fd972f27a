//! What proxies are to report of themselves.
//!
//! Claims: observe-90, observe-93, observe-97

use std::sync::Arc;

use policy::share::Share;
use policy::trace::{Format, Tracing};

use crate::{fixtures::*, model::Defaults, problem::Reason};

const LOG_LEVEL: &str = "weft.dev/log-level";
const SAMPLING: &str = "weft.dev/trace-sampling";

fn annotated(of_namespace: Option<&str>, of_pod: Option<&str>) -> Cluster {
    annotated_with(LOG_LEVEL, of_namespace, of_pod)
}

fn annotated_with(name: &str, of_namespace: Option<&str>, of_pod: Option<&str>) -> Cluster {
    let (mut ns, mut api) = (namespace("shop"), pod("api-1", "10.0.0.11", "api"));
    if let Some(value) = of_namespace {
        ns = annotate(ns, name, value);
    }
    if let Some(value) = of_pod {
        api = annotate(api, name, value);
    }
    shop().with(ns).with(api)
}

/// The chart's values for traces.
fn traced() -> Defaults {
    Defaults {
        tracing: Some(Arc::new(Tracing {
            collector: "http://collector.observability:4317".parse().unwrap(),
            share: Share::ONE_PERCENT,
            inject: vec![Format::B3],
            most_per_second: 7,
            paths: false,
        })),
        ..Defaults::default()
    }
}

fn filter(cluster: &Cluster, pod: &str) -> String {
    let resolved = resolve_newest(&cluster.compile().0, pod, &[]);
    resolved.telemetry_named("telemetry").log_filter
}

#[test]
fn log_level_comes_from_pod_then_namespace_then_info() {
    for (of_namespace, of_pod, expected) in [
        (None, None, "info"),
        (Some("warn"), None, "warn"),
        (
            Some("warn"),
            Some("info,weft_proxy=debug"),
            "info,weft_proxy=debug",
        ),
        (None, Some("off"), "off"),
        (Some("warn"), Some("loud"), "warn"),
        (Some("a[{b=.*}]=info"), Some(""), "info"),
    ] {
        let cluster = annotated(of_namespace, of_pod);
        let got = filter(&cluster, "api-1");
        assert_eq!(got, expected, "{of_namespace:?} {of_pod:?}");
    }
    // Control: the pod's own holds for no other pod.
    let cluster = annotated(None, Some("debug"));
    assert_eq!(filter(&cluster, "client"), "info");
}

#[test]
fn unreadable_log_level_is_reported_and_changes_no_mode() {
    let (good, bad) = (annotated(None, None), annotated(None, Some("loud")));
    let (good, bad) = (good.compile(), bad.compile());
    assert!(good.1.list.is_empty(), "{:?}", good.1.list);
    let [problem] = bad.1.list.as_slice() else {
        panic!("{:?}", bad.1.list)
    };
    assert_eq!(problem.reason, Reason::Invalid);
    assert_eq!(problem.object.to_string(), "Pod shop/api-1");
    assert_eq!(problem.field, "metadata.annotations[weft.dev/log-level]");
    assert!(problem.message.contains("\"loud\""), "{}", problem.message);
    let workload = |model| resolve_newest(model, "api-1", &[]).workload();
    assert_eq!(workload(&bad.0), workload(&good.0));
}

#[test]
fn trace_sampling_comes_from_pod_then_namespace_then_chart() {
    let telemetry_of = |cluster: &Cluster, defaults: &Defaults, pod: &str| {
        let resolved = resolve_newest(&cluster.compile_with(defaults).0, pod, &[]);
        resolved.telemetry_named("telemetry").tracing
    };
    for (of_namespace, of_pod, millionths) in [
        (None, None, 10_000),
        (Some("5"), None, 50_000),
        (Some("5"), Some("0.01"), 100),
        (None, Some("100"), 1_000_000),
        (Some("5"), Some("all"), 50_000),
        (Some("-1"), None, 10_000),
    ] {
        let cluster = annotated_with(SAMPLING, of_namespace, of_pod);
        let tracing = telemetry_of(&cluster, &traced(), "api-1").unwrap();
        assert_eq!(tracing.share, millionths, "{of_namespace:?} {of_pod:?}");
        assert_eq!(tracing.collector, "http://collector.observability:4317");
        assert_eq!((tracing.most_per_second, tracing.paths), (7, false));
        assert_eq!(tracing.inject, ["b3"]);
        let of_it = |name: &str| tracing.resource.iter().find(|one| one.name == name);
        assert_eq!(of_it("k8s.pod.name").unwrap().value, "api-1");
        // Without an endpoint nothing is reported, whatever is requested.
        assert_eq!(telemetry_of(&cluster, &Defaults::default(), "api-1"), None);
    }
    // Control: the pod's own holds for no other pod.
    let cluster = annotated_with(SAMPLING, None, Some("100"));
    let other = telemetry_of(&cluster, &traced(), "client").unwrap();
    assert_eq!(other.share, 10_000);
}

#[test]
fn access_log_comes_from_pod_then_namespace_then_off() {
    const ACCESS_LOG: &str = "weft.dev/access-log";
    for (of_namespace, of_pod, expected) in [
        (None, None, "off"),
        (Some("json"), None, "json"),
        (Some("json"), Some("json,errors"), "json,errors"),
        (Some("json"), Some("off"), "off"),
        (Some("json,errors"), Some("text"), "json,errors"),
    ] {
        let cluster = annotated_with(ACCESS_LOG, of_namespace, of_pod);
        let (model, problems) = cluster.compile();
        let resolved = resolve_newest(&model, "api-1", &[]).telemetry_named("telemetry");
        assert_eq!(resolved.access_log, expected, "{of_namespace:?} {of_pod:?}");
        let bad = of_pod == Some("text");
        assert_eq!(problems.list.len(), usize::from(bad));
        let field = "metadata.annotations[weft.dev/access-log]";
        assert!(problems.list.iter().all(|problem| problem.field == field));
    }
}

#[test]
fn unreadable_trace_sampling_is_reported_with_field() {
    let (_, bad) = annotated_with(SAMPLING, Some("half"), Some("101")).compile();
    let mut found: Vec<String> = bad
        .list
        .iter()
        .map(|problem| format!("{} {}", problem.object, problem.field))
        .collect();
    found.sort();
    let field = "metadata.annotations[weft.dev/trace-sampling]";
    let expected = [
        format!("Namespace shop {field}"),
        format!("Pod shop/api-1 {field}"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn proxy_without_telemetry_capability_receives_none() {
    let cluster = annotated(None, Some("debug"));
    assert_eq!(cluster.resolve("api-1", &[]).names(), ["workload"]);
}
