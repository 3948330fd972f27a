//! After what requests to pods are named.
//!
//! Claims: calls-72, observe-138

use policy::route::names::{MAX_NAMES, Names};
use serde_json::{Value, json};

use crate::{
    fixtures::*,
    model::{Defaults, Model},
    problem::{Reason, Severity},
};

const ROUTES: &str = "weft.dev/routes";

fn api(groups: &str) -> Value {
    annotate(service("api", "10.96.0.1", &[("http", 80)]), ROUTES, groups)
}

fn matches(paths: &[&str]) -> Value {
    let each = paths.iter().map(
        |path| json!({"name": path.trim_start_matches('/'), "methods": ["*"], "pathRegex": path}),
    );
    each.collect()
}

fn protected_by(group: &str, matches: Option<&[&str]>) -> Value {
    let mut rule = json!({"kind": "HTTPRouteGroup", "name": group});
    if let Some(matches) = matches {
        rule["matches"] = json!(matches);
    }
    target(&format!("target-{group}"), "api", &["web"], json!([rule]))
}

/// What the proxy of a pod names requests after, as it reads it.
fn named(model: &Model, pod: &str) -> Vec<String> {
    let resolved = resolve_newest(model, pod, &[]);
    if !resolved.names().contains(&"routes") {
        return Vec::new();
    }
    let names = Names::try_from(&resolved.routes_named("routes")).unwrap();
    let matches = names.matches();
    matches
        .map(|(group, one)| format!("{}/{}", group.name(), one.name()))
        .collect()
}

fn reported_problems(cluster: &Cluster) -> Vec<(String, Reason, Severity, String)> {
    let (_, problems) = cluster.compile();
    let about = problems.list.into_iter().map(|problem| {
        let object = problem.object.to_string();
        (object, problem.reason, problem.severity, problem.message)
    });
    about.collect()
}

#[test]
fn only_own_groups_name_requests_of_service() {
    let groups = shop()
        .with(group("web", matches(&["/a", "/b"])))
        .with(group("cart", matches(&["/z", "/b"])))
        .with(group("other", matches(&["/c"])));
    let (model, problems) = groups.clone().with(api("web, cart")).compile();
    assert!(problems.list.is_empty(), "{:?}", problems.list);
    for pod in ["api-1", "api-2"] {
        assert_eq!(
            named(&model, pod),
            ["cart/z", "cart/b", "web/a", "web/b"],
            "{pod}"
        );
    }
    // Both are the same bytes, and once in memory.
    let of = |pod| resolve_newest(&model, pod, &[]).0.remove("routes").unwrap();
    assert!(std::sync::Arc::ptr_eq(&of("api-1"), &of("api-2")));
    assert!(named(&model, "client").is_empty());
    assert!(
        named(&groups.compile().0, "api-1").is_empty(),
        "no Service names any"
    );
}

#[test]
fn target_groups_name_requests_completely_without_annotation() {
    let protected = shop()
        .with(group("cart", matches(&["/a", "/b"])))
        .with(group("web", matches(&["/c"])))
        .with(protected_by("cart", Some(&["b"])));
    assert_eq!(named(&protected.compile().0, "api-1"), ["cart/a", "cart/b"]);
    let both = protected.clone().with(api("web"));
    assert_eq!(named(&both.compile().0, "api-1"), ["web/c"]);
    // Said to have none, and not readable.
    let none = protected.clone().with(api(""));
    assert!(named(&none.compile().0, "api-1").is_empty());
    let unreadable = protected.with(api("Cart!"));
    assert_eq!(
        named(&unreadable.compile().0, "api-1"),
        ["cart/a", "cart/b"]
    );
}

#[test]
fn a_service_of_another_namespace_names_nothing_here() {
    let foreign = in_namespace(api("cart"), "else");
    let endpoints = slice(
        "api-y",
        "api",
        &[("http", 8080)],
        &[endpoint("api-1", "10.0.0.11")],
    );
    let cluster = shop()
        .with(namespace("else"))
        .with(group("cart", matches(&["/a"])))
        .with(in_namespace(group("cart", matches(&["/b"])), "else"))
        .with(in_namespace(endpoints, "else"))
        .with(foreign);
    let (model, _) = cluster.compile();
    let entry = &model.index.pods[&crate::world::ObjectKey::new("shop", "api-1")];
    let mut leads = entry.led_to_by();
    assert!(leads.any(|(service, ..)| &*service.namespace == "else"));
    assert!(named(&model, "api-1").is_empty());
    let own = cluster.with(api("cart"));
    assert_eq!(named(&own.compile().0, "api-1"), ["cart/a"], "the control");
}

#[test]
fn missing_group_or_bad_list_is_reported_on_service() {
    let cart = shop().with(group("cart", matches(&["/a"])));
    let missing = cart.clone().with(api("cart,gone"));
    assert_eq!(named(&missing.compile().0, "api-1"), ["cart/a"]);
    let reported = reported_problems(&missing);
    let [(object, reason, severity, message)] = reported.as_slice() else {
        panic!("{reported:?}");
    };
    assert_eq!(
        (object.as_str(), *reason),
        ("Service shop/api", Reason::RefNotFound)
    );
    assert_eq!(*severity, Severity::Failure);
    assert!(message.contains("HTTPRouteGroup gone"), "{message}");
    let (_, problems) = missing.compile();
    assert_eq!(
        problems.list[0].field,
        "metadata.annotations[weft.dev/routes]"
    );
    let bad = reported_problems(&cart.with(api("Cart!")));
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!((bad[0].1, bad[0].2), (Reason::Invalid, Severity::Warning));
    assert!(bad[0].3.contains("\"Cart!\""), "{bad:?}");
}

#[test]
fn route_names_are_bounded_to_64_and_64_kib() {
    let paths: Vec<String> = (0..=MAX_NAMES).map(|at| format!("/p{at:02}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    // One group has 64 matches at most.
    let (some, others) = paths.split_at(33);
    let many = shop()
        .with(group("cart", matches(some)))
        .with(group("till", matches(others)))
        .with(api("cart,till"));
    let names = named(&many.compile().0, "api-1");
    assert_eq!((names.len(), names[63].as_str()), (MAX_NAMES, "till/p63"));
    let reported = reported_problems(&many);
    assert_eq!(
        (reported.len(), reported[0].1),
        (1, Reason::Invalid),
        "{reported:?}"
    );
    assert!(reported[0].3.contains("65 matches"), "{reported:?}");

    // Nine of 8 KiB each.
    let wide = (0..9).map(|at| {
        let values: Vec<Value> = (0..8)
            .map(|n| json!({format!("x-{n}"): "v".repeat(1000)}))
            .collect();
        json!({"name": format!("m{at}"), "methods": ["*"], "headers": values})
    });
    let wide = shop().with(group("cart", wide.collect())).with(api("cart"));
    let names = named(&wide.compile().0, "api-1");
    assert!((7..9).contains(&names.len()), "{names:?}");
}

#[test]
fn proxy_without_route_name_capability_receives_none() {
    let cluster = shop()
        .with(group("cart", matches(&["/a"])))
        .with(api("cart"));
    assert_eq!(cluster.resolve("api-1", &[]).names(), ["workload"]);
}

#[test]
fn route_name_change_concerns_only_renamed_pods() {
    let defaults = Defaults::default();
    let before = shop()
        .with(group("cart", matches(&["/a"])))
        .with(group("unused", matches(&["/u"])))
        .with(api("cart"));
    let (model, problems) = before.compile();
    for pod in ["api-1", "api-2", "client"] {
        let _ = named(&model, pod);
    }
    let problems = std::sync::Arc::new(problems);
    let changed = |object: Value| {
        let world = before.clone().with(object).world();
        let (after, _, changes) = Model::compile_after(&world, &defaults, &model, &problems);
        let pods: std::collections::BTreeSet<String> =
            changes.pods().map(|pod| pod.name.to_string()).collect();
        (pods.into_iter().collect::<Vec<_>>(), named(&after, "api-1"))
    };
    let group_changes = changed(group("cart", matches(&["/b"])));
    assert_eq!(
        group_changes,
        (vec!["api-1".into(), "api-2".into()], vec!["cart/b".into()])
    );
    let (pods, names) = changed(group("unused", matches(&["/x"])));
    assert_eq!((pods.len(), names), (0, vec!["cart/a".to_owned()]));
    let (pods, names) = changed(api("unused"));
    assert_eq!((pods.len(), names), (2, vec!["unused/u".to_owned()]));
}
