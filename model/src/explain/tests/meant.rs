//! Names of what is not there, and what may have been meant.

use super::*;

fn why(from: &str, to: &str) -> String {
    let ended = pod("done-1", "10.0.0.51", "api");
    let cluster = shop()
        .with(set(ended, "/status/phase", json!("Succeeded")))
        .with(namespace("bank"))
        .with(in_namespace(
            service("cart", "10.96.0.9", &[("http", 80)]),
            "bank",
        ))
        .with(in_namespace(pod("cart-1", "10.0.0.52", "cart"), "bank"));
    let status = explain(&cluster, &spec(from, to, "GET", "/"));
    assert_eq!(status.verdict, ExplanationVerdict::Unknown, "{status:?}");
    status.reason
}

#[test]
fn nearest_name_of_called_service_is_suggested() {
    for (to, reason) in [
        ("Service/apu", "there is no Service shop/apu"),
        (
            "Service/ap",
            "there is no Service shop/ap; you may mean api",
        ),
        (
            "Deployment/pai",
            "Deployment shop/pai has no pods that could be called; you may mean api",
        ),
        (
            "Pod/api1",
            "Pod shop/api1 has no pods that could be called; you may mean api-1",
        ),
        // What is of another namespace was not meant.
        ("Service/crat", "there is no Service shop/crat"),
        (
            "Deployment/crat",
            "Deployment shop/crat has no pods that could be called",
        ),
    ] {
        assert_eq!(why("Pod/client", to), reason);
    }
}

#[test]
fn every_workload_kind_of_graph_can_be_explained() {
    for (kind, may_be) in [
        ("Deployment", true),
        ("CronJob", true),
        ("Rollout", true),
        ("Widget", false),
    ] {
        for (from, to) in [(kind, "Pod"), ("Pod", kind)] {
            let spec = spec(&format!("{from}/x"), &format!("{to}/x"), "GET", "/");
            let asked = try_explain(&shop(), &spec, &Defaults::default());
            assert_eq!(asked.is_ok(), may_be, "{from} {to}: {asked:?}");
        }
    }
}

#[test]
fn what_has_ended_is_not_what_was_meant() {
    assert_eq!(
        why("Pod/client", "Pod/done-1"),
        "Pod shop/done-1 has no pods that could be called"
    );
    for (from, reason) in [
        ("Pod/done-1", "Pod shop/done-1 has no pods that could call"),
        (
            "Deployment/dnoe",
            "Deployment shop/dnoe has no pods that could call",
        ),
        (
            "Pod/cleint",
            "Pod shop/cleint has no pods that could call; you may mean client",
        ),
    ] {
        assert_eq!(why(from, "Service/api"), reason);
    }
}
