//! Calls to a Service while a release shares them out.

use super::*;

#[test]
fn explanation_names_release_with_shares_of_both_sets() {
    let old = of_revision(pod("api-1", "10.0.0.11", "api"), "api", "v1");
    let new = of_revision(pod("api-2", "10.0.0.12", "api"), "api", "v2");
    let mut waits = endpoint("api-2", "10.0.0.12");
    waits["conditions"] = json!({"ready": false, "serving": false, "terminating": false});
    let endpoints = [endpoint("api-1", "10.0.0.11"), waits];
    let status = json!({
        "phase": "Progressing", "stable": {"revision": "v1"}, "candidate": {"revision": "v2"},
        "run": {"number": 1, "step": 2, "weight": 20},
    });
    let spec_of = json!({"service": "api", "deployment": "api"});
    let cluster = shop()
        .with(old)
        .with(gated(new, [true, false]))
        .with(kept(slice("api-x", "api", &[("http", 8080)], &endpoints)))
        .with(release("rel", spec_of, status));
    let status = explain(&cluster, &spec("Pod/client", "Service/api", "GET", "/"));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed);
    let routes = texts(&status, "route");
    for (set, share) in [("stable", 80), ("candidate", 20)] {
        let expected = format!("CanaryRelease shop/rel gives shop/api {set} {share} %");
        assert!(
            routes.iter().any(|text| text.starts_with(&expected)),
            "{routes:?}"
        );
    }
    let pods: Vec<(&str, &[String])> = status
        .backends
        .iter()
        .map(|backend| (&*backend.service, &*backend.pods))
        .collect();
    assert_eq!(pods.len(), 2, "{pods:?}");
    for (service, pod) in [
        ("shop/api candidate", "shop/api-2"),
        ("shop/api stable", "shop/api-1"),
    ] {
        let found = pods.iter().find(|(name, _)| *name == service);
        assert_eq!(found.unwrap().1, [pod.to_owned()], "{service}");
    }
}
