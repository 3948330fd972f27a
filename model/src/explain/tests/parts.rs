//! Which part of the calls ends how, at which pods, and by whose proxies.
//!
//! Claims: observe-39

use super::*;

const ACCESS: &str = "weft.dev/access";

/// Of each part its backend, share, verdict and reason, at how many endpoints, and their names.
fn parts(status: &ExplanationStatus) -> Vec<String> {
    let parts = status.backends.iter().map(|one| {
        let verdict = format!("{} {}", one.verdict.as_str(), one.reason);
        let (verdict, pods) = (verdict.trim_end(), one.pods.join(" "));
        let (service, share, judged) = (&one.service, one.share, one.judged);
        format!("{service} {share} {verdict}, {judged}: {pods}")
    });
    parts.collect()
}

fn call(path: &str) -> ExplanationSpec {
    spec("Pod/client", "Service/api", "GET", path)
}

#[test]
fn pods_with_different_verdicts_are_reported_separately() {
    let closed = annotate(pod("api-1", "10.0.0.11", "api"), ACCESS, "deny");
    let status = explain(&shop().with(closed), &call("/"));
    assert_eq!(status.verdict, ExplanationVerdict::Mixed, "{status:?}");
    assert_eq!(
        parts(&status),
        [
            "shop/api 0.5 Allowed, 1: shop/api-2",
            "shop/api 0.5 Refused not-allowed, 1: shop/api-1"
        ]
    );
    for one in &status.backends {
        assert_eq!((one.ready, one.endpoints), (2, 2), "of the whole backend");
    }
    assert_eq!(status.refused_by, ["Deployment shop/api"]);
    let access = texts(&status, "access");
    assert_eq!(access[0], "shop/api-2: auto (the chart's), open");
    assert!(access[1].starts_with("shop/api-1: deny ("), "{access:?}");
    // What holds for both names neither.
    let wire = texts(&status, "wire");
    assert_eq!(wire.len(), 1, "{wire:?}");
    assert!(wire[0].starts_with("mutual TLS as "), "{wire:?}");
    // Control: pods that judge alike are one part.
    let status = explain(&shop(), &call("/"));
    let whole = "shop/api 1 Allowed, 2: shop/api-1 shop/api-2";
    assert_eq!(parts(&status), [whole]);
    assert!(status.refused_by.is_empty(), "{status:?}");
}

#[test]
fn pods_refusing_for_different_reasons_stay_separate() {
    let other = annotate(pod("api-2", "10.0.0.12", "other"), ACCESS, "deny");
    let status = explain(&read_only().with(other), &call("/a%2Fb"));
    assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    assert_eq!(
        parts(&status),
        [
            "shop/api 0.5 Refused not-allowed, 1: shop/api-2",
            "shop/api 0.5 Refused bad-request, 1: shop/api-1"
        ]
    );
}

#[test]
fn lines_about_some_split_backends_name_them() {
    let endpoints = [("v2-1", "10.0.0.21"), ("v2-2", "10.0.0.22")];
    let endpoints = endpoints.map(|(name, ip)| endpoint(name, ip));
    let closed = annotate(pod("v2-1", "10.0.0.21", "v2"), ACCESS, "deny");
    let cluster = shop()
        .with(closed)
        .with(pod("v2-2", "10.0.0.22", "v2"))
        .with(service("v2", "10.96.0.2", &[("http", 80)]))
        .with(slice("v2-x", "v2", &[("http", 8080)], &endpoints))
        .with(split("s", "api", &[("api", 90), ("v2", 10)]));
    let status = explain(&cluster, &call("/"));
    assert_eq!(
        parts(&status),
        [
            "shop/api 0.9 Allowed, 2: shop/api-1 shop/api-2",
            "shop/v2 0.05 Allowed, 1: shop/v2-2",
            "shop/v2 0.05 Refused not-allowed, 1: shop/v2-1"
        ]
    );
    assert_eq!(status.refused_by, ["Deployment shop/v2"]);
    let wire = texts(&status, "wire");
    let of = |name: &str| {
        format!("shop/{name}: mutual TLS as spiffe://cluster.local/ns/shop/sa/{name}; ")
    };
    assert!(wire[0].starts_with(&of("api")), "{wire:?}");
    assert!(wire[1].starts_with(&of("v2")), "{wire:?}");
    let access = texts(&status, "access");
    assert_eq!(
        access[0],
        "shop/api and shop/v2-2: auto (the chart's), open"
    );
    assert!(access[1].starts_with("shop/v2-1: deny ("), "{access:?}");
}

#[test]
fn callers_with_different_results_get_shares_by_count() {
    let on =
        |name: &str, ip: &str, node: &str| set(pod(name, ip, "web"), "/spec/nodeName", json!(node));
    let local = set(
        service("api", "10.96.0.1", &[("http", 80)]),
        "/spec/internalTrafficPolicy",
        json!("Local"),
    );
    let cluster = shop()
        .with(on("front-1", "10.0.0.61", "node-a"))
        .with(on("front-2", "10.0.0.62", "node-a"))
        .with(on("front-3", "10.0.0.63", "node-b"))
        .with(local);
    let query = spec("Deployment/front", "Service/api", "GET", "/");
    let status = explain(&cluster, &query);
    let [pass, fail] = &*status.backends else {
        panic!("{status:?}");
    };
    assert!((pass.share - 2.0 / 3.0).abs() < 1e-9, "{pass:?}");
    assert!((fail.share - 1.0 / 3.0).abs() < 1e-9, "{fail:?}");
    assert_eq!((pass.ready, pass.judged, pass.endpoints), (2, 2, 2));
    assert_eq!((fail.ready, fail.judged, fail.endpoints), (0, 0, 2));
    assert_eq!(
        (fail.verdict, fail.reason.as_str()),
        (ExplanationVerdict::Refused, "no-endpoint")
    );
    // No pod was called, so the callers' own proxies refuse.
    assert_eq!(status.refused_by, ["Deployment shop/front"]);
}

#[test]
fn unmeshed_caller_without_endpoint_is_refused_by_no_proxy() {
    let cluster = shop().with(service("empty", "10.96.0.3", &[("http", 80)]));
    let meshed = explain(&cluster, &spec("Pod/client", "Service/empty", "GET", "/"));
    assert_eq!(meshed.refused_by, ["Pod shop/client"]);
    let status = explain(&cluster, &outside("Service/empty"));
    assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    assert!(status.refused_by.is_empty(), "{status:?}");
}

#[test]
fn first_refusing_pods_are_named_and_all_counted() {
    let (mut cluster, mut endpoints) = (shop(), Vec::new());
    for number in 10..30 {
        let (name, ip) = (format!("api-{number}"), format!("10.0.1.{number}"));
        cluster = cluster.with(annotate(pod(&name, &ip, "api"), ACCESS, "deny"));
        endpoints.push(endpoint(&name, &ip));
    }
    let cluster = cluster.with(slice("api-x", "api", &[("http", 8080)], &endpoints));
    let status = explain(&cluster, &call("/"));
    let [one] = &*status.backends else {
        panic!("{status:?}");
    };
    assert_eq!((one.judged, one.pods.len()), (20, 8), "{one:?}");
    assert_eq!(one.pods[0], "shop/api-10");
    // The line about all but one names some of them and says how many others there are.
    let cluster = cluster.with(pod("api-29", "10.0.1.29", "api"));
    let access = texts(&explain(&cluster, &call("/")), "access");
    assert_eq!(access[0], "shop/api-29: auto (the chart's), open");
    let first = "shop/api-10, shop/api-11, shop/api-12, shop/api-13 and 15 more: deny (";
    assert!(access[1].starts_with(first), "{access:?}");
}
