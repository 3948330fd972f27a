//! TrafficPolicies become rules for callers and pods, and conditions for their authors.
//!
//! Claims: calls-39

mod bounds;
mod conditions;
mod elsewhere;
mod needs;
mod places;
mod pods;
mod reasons;
mod second_reader;

use policy::traffic::{
    EffectivePolicy,
    call::{FallbackTo, Timeouts},
    guard::{OverloadMode, Priority},
};
use serde_json::{Value, json};

use crate::{
    fixtures::{self as cluster, Cluster, *},
    model::Model,
};

/// About Service `api`, with these fields.
fn about_api(fields: &Value) -> Value {
    let mut spec = json!({"targetRef": {"kind": "Service", "name": "api"}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

fn policy(name: &str, fields: &Value) -> Value {
    cluster::traffic_policy(name, about_api(fields))
}

fn of_namespace(name: &str, fields: &Value) -> Value {
    let spec = set(
        about_api(fields),
        "/targetRef",
        json!({"kind": "Namespace"}),
    );
    cluster::traffic_policy(name, spec)
}

/// The policy that the callers of `api` receive.
fn client_policy(cluster: &Cluster) -> EffectivePolicy {
    resolve_newest(&cluster.compile().0, "client", &["10.96.0.1:80"]).policy("shop/api:80")
}

fn request(effective: &EffectivePolicy) -> Option<u64> {
    let rule = effective.timeouts.rules.first()?;
    let Timeouts { request, .. } = rule.then.as_ref()?.section;
    request.map(|time| time.as_secs())
}

fn names(model: &Model, pod: &str) -> Vec<String> {
    let got = resolve_newest(model, pod, &["10.96.0.1:80"]);
    got.names().into_iter().map(str::to_owned).collect()
}

#[test]
fn nothing_is_sent_where_no_policy_speaks() {
    let (model, _) = shop().compile();
    for pod in ["client", "api-1"] {
        let names = names(&model, pod);
        assert!(
            !names
                .iter()
                .any(|name| name.starts_with("policy/") || name == "guard")
        );
    }
}

#[test]
fn callers_get_their_sections_and_pods_get_theirs() {
    let cluster = shop().with(policy(
        "all",
        &json!({
            "timeouts": {"request": "7s"}, "retry": {"attempts": 2}, "priority": "Critical",
            "rateLimits": [{"name": "each", "requests": 5}], "overload": {},
        }),
    ));
    let (model, _) = cluster.compile();
    let effective = resolve_newest(&model, "client", &["10.96.0.1:80"]).policy("shop/api:80");
    assert_eq!(request(&effective), Some(7));
    assert_eq!(
        effective.retry.rules[0].origin.to_string(),
        "TrafficPolicy shop/all"
    );
    assert!(effective.rate_limits.rules.is_empty() && effective.overload.rules.is_empty());
    assert_eq!(effective.priority.rules.len(), 1, "they hold back by class");
    assert!(!names(&model, "client").contains(&"guard".to_owned()));

    let guard = resolve_newest(&model, "api-1", &[]).guard();
    let port = &guard.ports[&8080];
    assert_eq!(port.rate_limits.rules[0].origin.rule_name(), Some("each"));
    assert_eq!(
        port.priority.rules[0].then.as_ref().unwrap().section,
        Priority::Critical
    );
    assert_eq!((port.overload.rules.len(), port.retry.rules.len()), (1, 0));
    assert_eq!(request(port), Some(7), "for callers outside the mesh");
    assert_eq!(guard.read_only, None);
}

#[test]
fn closest_target_decides_section_by_section() {
    let cluster = shop()
        .with(of_namespace("wide", &json!({"timeouts": {"request": "9s"}, "retry": {"attempts": 3}})))
        .with(policy("near", &json!({"timeouts": {"request": "4s"}})))
        .with(cluster::traffic_policy(
            "port",
            json!({"targetRef": {"kind": "Service", "name": "api", "port": 80}, "sticky": {"type": "Caller"}}),
        ));
    let effective = client_policy(&cluster);
    assert_eq!(request(&effective), Some(4));
    let retry = effective.retry.rules[0].then.as_ref().unwrap();
    assert_eq!(retry.section.attempts, 3);
    assert_eq!(&**effective.sticky.rules[0].origin.name(), "port");
}

#[test]
fn mesh_policy_reaches_every_namespace_and_wins_when_enforced() {
    let mesh = |enforce: bool| {
        let spec =
            json!({"targetRef": {"kind": "Mesh"}, "enforce": enforce, "retry": {"attempts": 0}});
        in_namespace(cluster::traffic_policy("mesh", spec), "weft-system")
    };
    let near = policy("near", &json!({"retry": {"attempts": 5}}));
    let attempts = |cluster: &Cluster| {
        client_policy(cluster).retry.rules[0]
            .then
            .as_ref()
            .unwrap()
            .section
            .attempts
    };
    assert_eq!(attempts(&shop().with(mesh(false))), 0);
    assert_eq!(attempts(&shop().with(mesh(false)).with(near.clone())), 5);
    assert_eq!(attempts(&shop().with(mesh(true)).with(near.clone())), 0);
    let elsewhere = in_namespace(mesh(true), "shop");
    assert_eq!(attempts(&shop().with(elsewhere).with(near)), 5);
}

/// Beside retries: each part that holds without any object, and what pods are held to.
#[test]
fn sections_disabled_by_enforced_mesh_policy_stay_disabled() {
    let mesh = |enforce: bool| {
        let spec = json!({
            "targetRef": {"kind": "Mesh"}, "enforce": enforce,
            "ejection": {"consecutiveFailures": 0}, "balance": {"warmup": "0s"},
            "overload": {"mode": "Disabled"},
        });
        in_namespace(cluster::traffic_policy("mesh", spec), "weft-system")
    };
    let on = json!({
        "ejection": {"consecutiveFailures": 3}, "balance": {"warmup": "30s"}, "overload": {},
    });
    // Of which the endpoints come that a split chooses.
    let of_next = set(
        about_api(&on),
        "/targetRef",
        json!({"kind": "Service", "name": "next"}),
    );
    let shop = with_next(shop())
        .with(split("s", "api", &[("next", 1)]))
        .with(of_namespace("wide", &on))
        .with(cluster::traffic_policy("of-next", of_next))
        .with(policy("near", &on));
    let said = |enforce: bool| {
        let (model, _) = shop.clone().with(mesh(enforce)).compile();
        let client = resolve_newest(&model, "client", &["10.96.0.1:80"]);
        ["shop/api:80", "shop/next:80"].map(|name| {
            let received = client.policy(name);
            let ejection = received.ejection.rules[0].then.as_ref().unwrap();
            let balance = received.balance.rules[0].then.as_ref().unwrap();
            (ejection.consecutive_failures, balance.warmup.as_secs())
        })
    };
    assert_eq!(said(true), [(0, 0); 2]);
    assert_eq!(said(false), [(3, 30); 2], "control: what is closer decides");
    let guarded = |enforce: bool| {
        let (model, _) = shop.clone().with(mesh(enforce)).compile();
        ["api-1", "next-1"].map(|pod| {
            let guard = resolve_newest(&model, pod, &[]).guard();
            let rule = &guard.ports[&8080].overload.rules[0];
            rule.then.as_ref().unwrap().mode
        })
    };
    assert_eq!(guarded(true), [OverloadMode::Off; 2]);
    assert_eq!(guarded(false), [OverloadMode::Adaptive; 2], "control");
}

#[test]
fn policy_is_limited_to_existing_routes_and_callers() {
    let route = |name: &str, matches: &[&str]| json!({"kind": "HTTPRouteGroup", "name": name, "matches": matches});
    let reads = group(
        "reads",
        json!([
            {"name": "get", "methods": ["GET"]}, {"name": "head", "methods": ["HEAD"]},
        ]),
    );
    let with = |routes: Value| {
        shop()
            .with(reads.clone())
            .with(policy("p", &json!({"retry": {}, "routes": routes})))
    };
    let matches = |cluster: &Cluster| match &client_policy(cluster).retry.rules[0].when {
        policy::route::Match::AnyOf(matches) => matches.len(),
        policy::route::Match::Always => usize::MAX,
    };
    assert_eq!(matches(&with(json!([route("reads", &["get"])]))), 1);
    assert_eq!(
        matches(&with(json!([{"kind": "HTTPRouteGroup", "name": "reads"}]))),
        2
    );
    assert_eq!(
        matches(&with(json!([
            route("reads", &["get"]),
            route("gone", &["x"])
        ]))),
        1
    );
    // A group that is missing fits nothing, and never everything.
    for nothing in [
        json!([route("gone", &["get"])]),
        json!([route("reads", &["gone"])]),
    ] {
        let cluster = with(nothing);
        let (model, _) = cluster.compile();
        assert!(!names(&model, "client").contains(&"policy/shop/api:80".to_owned()));
    }
    let no_caller = json!([{"kind": "IdentityBinding", "name": "gone"}]);
    let cluster = shop().with(policy("p", &json!({"retry": {}, "sources": no_caller})));
    assert!(!names(&cluster.compile().0, "client").contains(&"policy/shop/api:80".to_owned()));
}

/// `next` serves copies, with a pod of its own.
fn with_next(cluster: Cluster) -> Cluster {
    cluster
        .with(cluster::pod("next-1", "10.0.0.21", "next"))
        .with(service("next", "10.96.0.2", &[("http", 80)]))
        .with(slice(
            "next-x",
            "next",
            &[("http", 8080)],
            &[endpoint("next-1", "10.0.0.21")],
        ))
}

#[test]
fn caller_gets_endpoints_of_every_policy_destination() {
    let cluster = with_next(shop()).with(policy("p", &json!({"fallback": {"service": "next"}})));
    let (model, _) = cluster.compile();
    let names = names(&model, "client");
    assert!(
        names.contains(&"endpoints/shop/next:80".to_owned()),
        "{names:?}"
    );
    let effective = client_policy(&cluster);
    let fallback = effective.fallback.rules[0].then.as_ref().unwrap();
    assert!(
        matches!(&fallback.section.to, FallbackTo::Service(service) if &*service.name == "next")
    );
    // A proxy that cannot use the policy needs none of it.
    let old = cluster.resolve("client", &["10.96.0.1:80"]);
    assert!(!old.names().contains(&"endpoints/shop/next:80"));
    assert!(!old.names().iter().any(|name| name.starts_with("policy/")));
}

#[test]
fn mirror_only_pods_may_call_what_every_mirror_allows() {
    let mirror = |name: &str, allow: &[&str]| {
        let mirror = json!([{"service": "next", "percent": 10, "allowTcp": allow}]);
        let spec = about_api(
            &json!({"mirror": mirror, "sources": [{"kind": "ServiceAccount", "name": name}]}),
        );
        cluster::traffic_policy(name, spec)
    };
    let cluster = with_next(shop())
        .with(mirror("a", &["db:5432", "cache:6379"]))
        .with(mirror("b", &["cache:6379", "other.data:1"]));
    let (model, problems) = cluster.compile();
    let accepted = problems
        .reports
        .values()
        .all(|report| report.accepted.status);
    assert!(accepted, "{:?}", problems.list);
    let guard = resolve_newest(&model, "next-1", &[]).guard();
    let allowed = guard.read_only.unwrap();
    assert_eq!(allowed.len(), 1);
    assert_eq!(
        (&*allowed[0].service.name, allowed[0].port),
        ("cache", 6379)
    );
    assert!(!names(&model, "api-1").contains(&"guard".to_owned()));
}

#[test]
fn shared_port_counts_rate_limit_once() {
    let cluster = shop()
        .with(service("second", "10.96.0.3", &[("http", 90)]))
        .with(slice(
            "second-x",
            "second",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
        .with(of_namespace(
            "n",
            &json!({"rateLimits": [{"name": "l", "requests": 1}]}),
        ))
        .with(policy(
            "p",
            &json!({"rateLimits": [{"name": "l", "requests": 2}]}),
        ));
    let guard = resolve_newest(&cluster.compile().0, "api-1", &[]).guard();
    let rules = &guard.ports[&8080].rate_limits.rules;
    let mut origins: Vec<String> = rules.iter().map(|rule| rule.origin.to_string()).collect();
    origins.sort();
    assert_eq!(
        origins,
        ["TrafficPolicy shop/n rule l", "TrafficPolicy shop/p rule l"]
    );
}
