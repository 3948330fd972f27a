//! What proxies are to tell of themselves.

use crate::{problem::Reason, testing::cluster::*};

const LOG_LEVEL: &str = "weft.dev/log-level";

fn annotated(of_namespace: Option<&str>, of_pod: Option<&str>) -> Cluster {
    let (mut ns, mut api) = (namespace("shop"), pod("api-1", "10.0.0.11", "api"));
    if let Some(level) = of_namespace {
        ns = annotate(ns, LOG_LEVEL, level);
    }
    if let Some(level) = of_pod {
        api = annotate(api, LOG_LEVEL, level);
    }
    shop().with(ns).with(api)
}

fn filter(cluster: &Cluster, pod: &str) -> String {
    let resolved = resolve_newest(&cluster.compile().0, pod, &[]);
    resolved.telemetry_named("telemetry").log_filter
}

#[test]
fn a_proxy_logs_what_its_pod_says_else_its_namespace_else_info() {
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
    // Control: the pod's own is nobody else's.
    let cluster = annotated(None, Some("debug"));
    assert_eq!(filter(&cluster, "client"), "info");
}

#[test]
fn a_level_that_cannot_be_read_is_told_with_its_field_and_changes_no_mode() {
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
fn a_proxy_that_does_not_know_of_it_is_not_told() {
    let cluster = annotated(None, Some("debug"));
    assert_eq!(cluster.resolve("api-1", &[]).names(), ["workload"]);
}
