//! What answers in place of a Service without endpoints, or in place of one that a request avoids.
//!
//! Claims: observe-38

use super::*;

/// The shop with Service `empty`, which has no endpoint, and a policy about it.
fn empty(policy: Value) -> Cluster {
    let about = json!({"kind": "Service", "name": "empty"});
    shop()
        .with(service("empty", "10.96.0.3", &[("http", 80)]))
        .with(traffic_policy("spare", set(policy, "/targetRef", about)))
}

fn to_api() -> Cluster {
    empty(json!({"fallback": {"service": "api"}}))
}

fn call() -> ExplanationSpec {
    spec("Pod/client", "Service/empty", "POST", "/")
}

#[test]
fn fallback_of_service_without_endpoints_is_followed() {
    let status = explain(&to_api(), &call());
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    assert_eq!((status.reason.as_str(), &status.fix), ("", &None));
    assert_eq!(
        texts(&status, "route"),
        [
            "shop/empty; 0 of 0 endpoints may take calls; no-endpoint: TrafficPolicy shop/spare \
             asks Service shop/api instead, of which 2 of 2 endpoints may take calls"
        ]
    );
    let route = status.steps.iter().find(|one| one.step == "route").unwrap();
    assert_eq!(route.objects, ["TrafficPolicy shop/spare"]);
    assert!(texts(&status, "wire")[0].contains("/sa/api"), "{status:?}");
    assert_eq!(status.backends[0].ready, 0, "of what was called");
    // So is that of a split without a backend.
    let split = to_api().with(split("s", "empty", &[("api", 0)]));
    assert_eq!(
        explain(&split, &call()).verdict,
        ExplanationVerdict::Allowed
    );

    let fallback = empty(json!({"fallback": {"response": {"status": 200, "body": "later"}}}));
    let status = explain(&fallback, &call());
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    assert!(texts(&status, "route")[0].contains("TrafficPolicy shop/spare answers 200"));
}

#[test]
fn inapplicable_or_failing_fallback_leaves_result_unchanged() {
    let refused = |cluster: &Cluster, spec: &ExplanationSpec| {
        let status = explain(cluster, spec);
        assert_eq!(
            (status.verdict, status.reason.as_str()),
            (ExplanationVerdict::Refused, "no-endpoint"),
            "{status:?}"
        );
        status
    };
    refused(&to_api(), &outside("Service/empty"));
    let overload = json!({"fallback": {"service": "api", "when": ["Overload"]}});
    refused(&empty(overload), &call());
    let fallback = json!({"fallback": {"response": {"status": 200}}});
    let bytes = ExplanationSpec {
        method: None,
        path: None,
        tcp: true,
        ..call()
    };
    refused(&empty(fallback), &bytes);
    let next = service("next", "10.96.0.4", &[("http", 80)]);
    let too = empty(json!({"fallback": {"service": "next"}})).with(next);
    let status = refused(&too, &call());
    let route = &texts(&status, "route")[0];
    assert!(
        route.contains("shop/next instead, of which 0 of 0"),
        "{route}"
    );
    assert!(status.fix.unwrap().commands[0].contains("endpointslices"));
    // Where its pods refuse, the fix repairs their refusal.
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let closed = to_api().with(tcp_route("ports", &[8080])).with(target(
        "closed",
        "api",
        &["absent"],
        rules,
    ));
    let status = refused(&closed, &call());
    assert_eq!(status.http_status, Some(503));
    assert_eq!(status.refused_by, ["Pod shop/client"], "who answers it");
    let after = applied(closed, &status.fix.unwrap().objects);
    assert_eq!(
        explain(&after, &call()).verdict,
        ExplanationVerdict::Allowed
    );
}

#[test]
fn possible_request_override_is_mentioned_but_not_followed() {
    let sources = json!([{"kind": "ServiceAccount", "name": "web"}]);
    let policy = json!({
        "targetRef": {"kind": "Service", "name": "api"},
        "overrides": [{"to": ["next"], "sources": sources}],
    });
    let cluster = shop()
        .with(service("next", "10.96.0.4", &[("http", 80)]))
        .with(traffic_policy("try", policy));
    let status = explain(&cluster, &spec("Pod/client", "Service/api", "GET", "/"));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    assert_eq!(
        texts(&status, "route")[1],
        "TrafficPolicy shop/try lets requests with weft-route choose shop/next; that is not \
         followed here"
    );
    // Without a proxy the header is not read.
    let status = explain(&cluster, &outside("Service/api"));
    assert_eq!(texts(&status, "route").len(), 1, "{status:?}");
}
