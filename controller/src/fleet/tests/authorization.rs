//! Which breaker reports count: those of accounts that may call.
//!
//! Claims: calls-68

use super::*;

const WEB: &str = "shop/web";
const STRANGERS: [&str; 2] = ["far/one", "far/two"];

/// Target `t`, by which account `web` may call port 8080 of `api`.
fn with_target(cluster: Cluster) -> Cluster {
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    cluster
        .with(cluster::tcp_route("ports", &[8080]))
        .with(cluster::target("t", "api", &["web"], rules))
}

/// The namespace of `api` in this mode.
fn in_mode(cluster: Cluster, mode: &str) -> Cluster {
    let namespace = cluster::namespace("shop");
    cluster.with(cluster::annotate(namespace, "weft.dev/access", mode))
}

fn with_auto_breaker() -> Cluster {
    with_breaker(&json!({}))
}

impl Bench {
    fn receive_for_api(&self, account: &str, breaker_report: v1::CircuitPulse) {
        let from = caller(account, &format!("uid of {account}"));
        self.receive(&from, "shop/api", "shop/api", breaker_report);
    }

    /// How many requests count, and of how many callers.
    fn counted(&self) -> Option<(u32, usize)> {
        let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
        let report = self.fleet.report(&policy, self.now)?;
        Some((report.requests, report.callers))
    }
}

#[test]
fn accounts_admitted_by_no_target_cannot_open_breaker() {
    for cluster in [
        // By the target alone, by the mode alone, and by both.
        with_target(with_auto_breaker()),
        in_mode(with_auto_breaker(), "deny"),
        in_mode(with_target(with_auto_breaker()), "deny"),
    ] {
        let mut bench = Bench::new(&cluster);
        for account in STRANGERS {
            bench.receive_for_api(account, seen(50, 50));
        }
        bench.passes(SECOND);
        assert!(
            bench.announced_states().is_empty(),
            "{:?}",
            bench.announced_states()
        );
        assert_eq!(bench.counted(), None, "nor is anything of it kept");
        assert_eq!(bench.fleet.own_since(0), (0, None), "or sent to others");
    }
    let mut bench = Bench::new(&in_mode(with_target(with_auto_breaker()), "deny"));
    bench.receive_for_api(WEB, seen(100, 0));
    for account in STRANGERS {
        bench.receive_for_api(account, seen(50, 50));
    }
    bench.passes(SECOND);
    assert!(
        bench.announced_states().is_empty(),
        "the median is that of who may call"
    );
    assert_eq!(bench.counted(), Some((100, 1)));
    bench.receive_for_api(WEB, seen(200, 200));
    bench.passes(SECOND);
    assert_eq!(bench.announced_states(), api(WireState::Open, 0));
}

#[test]
fn unauthorized_accounts_reported_by_replica_do_not_count() {
    let mut bench = Bench::new(&with_target(with_auto_breaker()));
    let open = Bench::new(&with_auto_breaker());
    open.receive_for_api(STRANGERS[0], seen(50, 50));
    open.receive_for_api(STRANGERS[1], seen(50, 50));
    let (_, news) = open.fleet.own_since(0);
    bench.fleet.receive(news.unwrap().pulses, bench.now);
    bench.passes(SECOND);
    assert!(
        bench.announced_states().is_empty(),
        "{:?}",
        bench.announced_states()
    );
}

#[test]
fn everybody_counts_where_everybody_may_call() {
    let plain = cluster::plain_pod("api-1", "10.0.0.11", "api");
    for cluster in [
        with_auto_breaker(),
        in_mode(with_target(with_auto_breaker()), "open"),
        in_mode(with_target(with_auto_breaker()), "audit"),
        // One pod has no proxy that could refuse a caller.
        with_target(with_auto_breaker()).with(plain),
    ] {
        let mut bench = Bench::new(&cluster);
        for account in STRANGERS {
            bench.receive_for_api(account, seen(50, 50));
        }
        bench.passes(SECOND);
        assert_eq!(bench.announced_states(), api(WireState::Open, 0));
        assert_eq!(bench.counted(), Some((100, 2)));
    }
}

#[test]
fn report_counts_with_partial_rule_but_not_other_port() {
    let rule = |kind: &str, name: &str| json!([{"kind": kind, "name": name}]);
    let reads = json!([{"name": "reads", "methods": ["GET"], "pathRegex": "/items"}]);
    for (rules, counts) in [
        (rule("TCPRoute", "other"), false),
        (rule("TCPRoute", "ports"), true),
        (rule("HTTPRouteGroup", "some"), true),
        (rule("HTTPRouteGroup", "gone"), false),
    ] {
        let cluster = with_auto_breaker()
            .with(cluster::tcp_route("ports", &[8080]))
            .with(cluster::tcp_route("other", &[9090]))
            .with(cluster::group("some", reads.clone()))
            .with(cluster::target("t", "api", &["web"], rules.clone()));
        let bench = Bench::new(&in_mode(cluster, "deny"));
        bench.receive_for_api(WEB, seen(10, 0));
        assert_eq!(bench.counted().is_some(), counts, "{rules}");
    }
}

#[test]
fn breaker_reports_count_only_from_label_selected_pods() {
    let label =
        |pod: serde_json::Value, app: &str| cluster::set(pod, "/metadata/labels/app", json!(app));
    let schemes = json!({"podLabelSelector": {"matchLabels": {"app": "front"}}});
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let target = cluster::target("t", "api", &["front"], rules);
    let target = cluster::set(target, "/spec/sources/0/kind", json!("IdentityBinding"));
    let cluster = with_auto_breaker()
        .with(label(cluster::pod("front-1", "10.0.0.31", "web"), "front"))
        .with(label(cluster::pod("back-1", "10.0.0.32", "web"), "back"))
        .with(cluster::binding("front", schemes))
        .with(cluster::tcp_route("ports", &[8080]))
        .with(target);
    let bench = Bench::new(&cluster);
    for _ in 0..2 {
        for uid in ["uid-back-1", "uid-front-1"] {
            let from = caller(WEB, uid);
            bench.receive(&from, "shop/api", "shop/api", seen(10, 0));
        }
    }
    assert_eq!(bench.counted(), Some((20, 1)));
}

#[test]
fn rights_are_those_of_the_newest_model() {
    let bench = Bench::new(&in_mode(with_auto_breaker(), "deny"));
    bench.receive_for_api(WEB, seen(10, 0));
    assert_eq!(bench.counted(), None);
    let admitted = in_mode(with_target(with_auto_breaker()), "deny");
    bench.models.send_replace(Some(compiled(&admitted)));
    bench.receive_for_api(WEB, seen(10, 0));
    assert_eq!(bench.counted(), Some((10, 1)));
    let refused = in_mode(with_auto_breaker(), "deny");
    bench.models.send_replace(Some(compiled(&refused)));
    bench.receive_for_api(WEB, seen(10, 0));
    assert_eq!(bench.counted(), Some((10, 1)));
}

#[test]
fn service_without_endpoints_has_no_callers() {
    let empty = cluster::slice("api-x", "api", &[("http", 8080)], &[]);
    let bench = Bench::new(&with_auto_breaker().with(empty));
    bench.receive_for_api(WEB, seen(10, 10));
    assert_eq!(bench.counted(), None);
}

#[test]
fn authorizations_are_cached_per_account_and_bounded_per_report() {
    let cluster = in_mode(with_target(with_auto_breaker()), "deny");
    let compiled = compiled(&cluster);
    let circuit = v1::Circuit {
        service: "shop/api".to_owned(),
        backend: "shop/api".to_owned(),
        port: 80,
    };
    let key = Key::read(&circuit).unwrap();
    let mut authorizations = Authorizations::default();
    let mut ask = |account: &str, left: &mut usize| {
        let from = caller(account, "uid");
        authorizations.allow(&compiled, &key, &from, left)
    };
    assert_eq!(ask(WEB, &mut 0), None, "nothing is known");
    let mut left = LOOKED_AT;
    assert_eq!(ask(WEB, &mut left), Some(true));
    // One pod says yes: its only target, and the source of that.
    assert_eq!(left, LOOKED_AT - 2);
    assert_eq!(ask(STRANGERS[0], &mut left), Some(false));
    assert_eq!(left, LOOKED_AT - 2 - 2 * 2, "each of two pods says no");
    for (account, allowed) in [(WEB, true), (STRANGERS[0], false)] {
        assert_eq!(ask(account, &mut 0), Some(allowed), "it is remembered");
    }
}
