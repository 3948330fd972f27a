//! The breakers of the two sets of a Service during a release.

use super::*;

#[test]
fn breaker_of_candidate_opens_apart_until_release_ends() {
    let pod = |name: &str, ip: &str, revision: &str| {
        cluster::of_revision(cluster::pod(name, ip, "api"), "api", revision)
    };
    let status = json!({
        "phase": "Progressing", "candidate": {"revision": "v2"}, "run": {"step": 2, "weight": 20},
    });
    let spec = json!({"service": "api", "deployment": "api"});
    let released = with_breaker(&json!({}))
        .with(pod("api-1", "10.0.0.11", "v1"))
        .with(pod("api-2", "10.0.0.12", "v2"))
        .with(cluster::release("rel", spec, status));
    let mut bench = Bench::new(&released);
    bench.send_report_of("web", "shop/api", "shop/api@candidate", seen(1000, 1000));
    bench.send_report_of("web", "shop/api", "shop/api@stable", seen(1000, 0));
    bench.passes(SECOND);
    assert_eq!(
        bench.announced_states(),
        [("shop/api@candidate".to_owned(), WireState::Open, 0)]
    );
    let without = with_breaker(&json!({}));
    bench.models.send_replace(Some(compiled(&without)));
    bench.passes(SECOND);
    assert!(bench.announced_states().is_empty());
}
