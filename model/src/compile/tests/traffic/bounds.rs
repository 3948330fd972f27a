//! Very many policies, and policies about very many Services: what each costs is bounded, and so is
//! what is reported of it.
//!
//! Claims: calls-30

use std::{sync::Arc, time::Duration};

use policy::traffic::bounds::{
    MIRRORS, OVERRIDE_LISTED, OVERRIDES, POLICIES_PER_NAMESPACE, SOURCES,
};
use prost::Message as _;
use serde_json::{Value, json};

use super::{of_namespace, policy, with_next};
use crate::{
    compile::tests::report,
    fixtures::{self as cluster, Cluster, *},
    model::{Defaults, Model},
    problem::{Problem, Problems, Reason, Severity},
    world::{ObjectKey, PodFacts, World},
};

/// What a proxy takes of one message is far more; this is what one port may add.
const MOST_BYTES: usize = 600 * 1024;

fn problems_of<'a>(problems: &'a Problems, name: &str) -> Vec<&'a Problem> {
    let of = problems.list.iter();
    of.filter(|one| &*one.object.name == name).collect()
}

/// With Services `s00`, `s01` and so on.
fn with_services(cluster: Cluster, number: u8) -> Cluster {
    (0..number).fold(cluster, |cluster, n| {
        let name = format!("s{n:02}");
        cluster.with(service(&name, &format!("10.96.1.{n}"), &[("http", 80)]))
    })
}

#[test]
fn policies_per_port_are_bounded_on_both_sides() {
    let path = "x".repeat(900);
    let matches: Vec<Value> = (0..64)
        .map(|n| json!({"name": format!("m{n}"), "pathRegex": format!("/{n}/{path}")}))
        .collect();
    let limits: Vec<Value> = (0..16)
        .map(|n| json!({"name": format!("l{n}"), "requests": 1}))
        .collect();
    let mut cluster = shop().with(group("big", json!(matches)));
    for n in 0..12 {
        let fields = json!({
            "routes": [{"kind": "HTTPRouteGroup", "name": "big"}],
            "sources": [{"kind": "ServiceAccount", "name": format!("a{n}")}],
            "timeouts": {}, "retry": {}, "priority": "Critical",
        });
        cluster = cluster.with(created(policy(&format!("p{n:02}"), &fields), n));
        let fields = set(fields, "/rateLimits", json!(limits));
        cluster = cluster.with(created(policy(&format!("q{n:02}"), &fields), 20 + n));
    }
    let (model, problems) = cluster.compile();
    let resolved = resolve_newest(&model, "client", &["10.96.0.1:80"]);
    let callers = resolved.policy_message("policy/shop/api:80").encoded_len();
    let guard = resolve_newest(&model, "api-1", &[]).guard_named("guard");
    assert!((100_000..MOST_BYTES).contains(&callers), "{callers}");
    assert!(guard.encoded_len() < MOST_BYTES, "{}", guard.encoded_len());
    // The first still counts, and the one that does not has a condition, once.
    assert!(report(&problems, "TrafficPolicy p00").accepted.status);
    let late = problems_of(&problems, "q11");
    assert_eq!(late.len(), 1, "{late:?}");
    assert_eq!(
        (late[0].reason, &*late[0].field),
        (Reason::Invalid, "spec.targetRef")
    );
    assert!(
        late[0].message.contains("512 KiB of shop/api:80"),
        "{late:?}"
    );
}

#[test]
fn policy_without_place_anywhere_gets_one_refusal() {
    let mut cluster = with_services(shop(), 40);
    for n in 0..70 {
        let source = json!([{"kind": "ServiceAccount", "name": format!("a{n}")}]);
        let one = of_namespace(
            &format!("p{n:02}"),
            &json!({"retry": {}, "sources": source}),
        );
        cluster = cluster.with(one);
    }
    let (_, problems) = cluster.compile();
    assert_eq!(problems.list.len(), 6, "{:?}", problems.list);
    let late = problems_of(&problems, "p69")[0];
    assert_eq!(
        (late.severity, late.reason),
        (Severity::Failure, Reason::Invalid)
    );
    assert!(late.message.contains("(and 40 more)"), "{late:?}");
}

#[test]
fn mesh_policy_effective_elsewhere_stays_accepted() {
    let spec = json!({"targetRef": {"kind": "Mesh"}, "retry": {"attempts": 0}});
    let mesh = in_namespace(cluster::traffic_policy("mesh", spec), "weft-system");
    let mut cluster = with_next(shop()).with(mesh);
    for n in 0..64 {
        let source = json!([{"kind": "ServiceAccount", "name": format!("a{n}")}]);
        let fields = json!({"retry": {}, "sources": source});
        cluster = cluster.with(policy(&format!("p{n:02}"), &fields));
    }
    let (_, problems) = cluster.compile();
    let conditions = report(&problems, "TrafficPolicy mesh");
    assert!(conditions.accepted.status, "{conditions:?}");
    assert_eq!(conditions.accepted.reason, "PartlyOverridden");
    assert!(
        conditions.accepted.message.contains("shop/api"),
        "{conditions:?}"
    );
}

#[test]
fn policy_overridden_by_many_warns_once_per_section() {
    let mut cluster = with_services(shop(), 30).with(of_namespace(
        "wide",
        &json!({"timeouts": {}, "retry": {}, "overload": {}}),
    ));
    for n in 0..30 {
        let spec = json!({
            "targetRef": {"kind": "Service", "name": format!("s{n:02}")},
            "timeouts": {}, "retry": {},
        });
        cluster = cluster.with(cluster::traffic_policy(&format!("p{n:02}"), spec));
    }
    let (_, problems) = cluster.compile();
    let reported = problems_of(&problems, "wide");
    let fields: Vec<&str> = reported.iter().map(|one| &*one.field).collect();
    assert_eq!(fields, ["spec.retry", "spec.timeouts"], "{reported:?}");
    assert!(
        reported[0].message.contains("TrafficPolicy shop/p00"),
        "{reported:?}"
    );
}

#[test]
fn unenforced_section_is_reported_once() {
    let mut cluster = with_services(shop(), 20)
        .with(cluster::plain_pod("plain", "10.0.0.31", "api"))
        .with(of_namespace("wide", &json!({"overload": {}})));
    for n in 0..20 {
        cluster = cluster.with(slice(
            &format!("s{n:02}-x"),
            &format!("s{n:02}"),
            &[("http", 8080)],
            &[endpoint("plain", "10.0.0.31")],
        ));
    }
    let (_, problems) = cluster.compile();
    let reported = problems_of(&problems, "wide");
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_eq!(reported[0].reason, Reason::NotEnforced);
    assert!(
        reported[0].message.contains("shop/s00 (and 19 more)"),
        "{reported:?}"
    );
}

#[test]
fn namespace_policy_never_redirects_service_to_itself() {
    let mirrors = json!([
        {"service": "next", "percent": 5, "downstream": "Any"},
        {"service": "api", "percent": 5, "downstream": "Any"},
    ]);
    let near = json!({"fallback": {"service": "next"}, "mirror": mirrors});
    let mesh = json!({"targetRef": {"kind": "Mesh"}, "fallback": {"response": {"status": 503}}});
    let cluster = with_next(shop())
        .with(of_namespace("near", &near))
        .with(in_namespace(
            cluster::traffic_policy("mesh", mesh),
            "weft-system",
        ));
    let (model, _) = cluster.compile();
    for (at, service, fallback, copies) in [
        ("10.96.0.1:80", "shop/api:80", "near", "next"),
        ("10.96.0.2:80", "shop/next:80", "mesh", "api"),
    ] {
        let effective = resolve_newest(&model, "client", &[at]).policy(service);
        assert_eq!(
            &**effective.fallback.rules[0].origin.name(),
            fallback,
            "{service}"
        );
        let mirrors = &effective.mirror.rules[0].then.as_ref().unwrap().section;
        let to: Vec<&str> = mirrors.iter().map(|one| &*one.service.name).collect();
        assert_eq!(to, [copies], "{service}");
    }
}

#[test]
fn fallback_lacking_port_has_no_effect_there() {
    let cluster = with_next(shop())
        .with(service("api", "10.96.0.1", &[("http", 80), ("more", 81)]))
        .with(policy("near", &json!({"fallback": {"service": "next"}})))
        .with(of_namespace(
            "wide",
            &json!({"fallback": {"response": {"status": 503}}}),
        ));
    let (model, problems) = cluster.compile();
    for (port, winner) in [(80, "near"), (81, "wide")] {
        let at = format!("10.96.0.1:{port}");
        let effective =
            resolve_newest(&model, "client", &[&at]).policy(&format!("shop/api:{port}"));
        assert_eq!(
            &**effective.fallback.rules[0].origin.name(),
            winner,
            "{port}"
        );
    }
    let resolved_refs = &report(&problems, "TrafficPolicy near").resolved_refs;
    assert!(
        resolved_refs
            .message
            .contains("next has no port 81; there is no fallback"),
        "{resolved_refs:?}"
    );
}

/// So many policies with the content of the only one of this cluster.
fn many_of(cluster: &Cluster, number: usize) -> World {
    let mut world = cluster.world();
    let facts = world.policies.values().next().unwrap().clone();
    let key = |n: usize| ObjectKey::new("shop", &format!("p{n:04}"));
    let all = (0..number).map(|n| (key(n), Arc::clone(&facts)));
    world.policies = Arc::new(all.collect());
    world
}

/// So many pods like `client`, in place of all that there are.
fn many_pods(cluster: &Cluster, number: usize) -> World {
    let mut world = cluster.world();
    let client = Arc::clone(&world.pods[&ObjectKey::new("shop", "client")]);
    let one = |n: usize| {
        let facts = PodFacts {
            uid: format!("uid-{n}").into(),
            ips: Vec::new(),
            ..PodFacts::clone(&client)
        };
        let key = ObjectKey::new("shop", &format!("client-{n:05}"));
        (key, Arc::new(facts))
    };
    world.pods = Arc::new((0..number).map(one).collect());
    world
}

#[test]
fn policy_sources_by_labels_are_limited_to_10000_pods() {
    let client = pod("client", "10.0.0.1", "web");
    let schemes = json!({"podLabelSelector": {"matchLabels": {"app": "many"}}});
    let fields = json!({
        "retry": {},
        "sources": [{"kind": "IdentityBinding", "name": "many"}],
    });
    let cluster = shop()
        .with(set(client, "/metadata/labels/app", json!("many")))
        .with(binding("many", schemes))
        .with(policy("p", &fields));
    for (number, fits) in [(10_000, true), (10_001, false)] {
        let world = many_pods(&cluster, number);
        let (_, problems) = Model::compile(&world, &Defaults::default());
        let accepted = &report(&problems, "TrafficPolicy p").accepted;
        assert_eq!(accepted.status, fits, "{number}: {accepted:?}");
        if !fits {
            assert_eq!(accepted.reason, "Invalid");
            let says = "spec.sources: name 10001 pods; only 10000 are allowed";
            assert!(accepted.message.contains(says), "{accepted:?}");
        }
    }
}

/// As many overrides as one policy may have, each with as many Services as it may name.
fn most_overrides(to: &dyn Fn(usize) -> String) -> Vec<Value> {
    let each = (0..OVERRIDES).map(|one| {
        let names = (0..OVERRIDE_LISTED).map(|n| to(one * OVERRIDE_LISTED + n));
        json!({"to": names.collect::<Vec<String>>()})
    });
    each.collect()
}

#[test]
fn many_missing_references_are_truncated_and_counted() {
    const KEPT: usize = 8;
    let unbound = (0..SOURCES).map(|n| json!({"kind": "IdentityBinding", "name": format!("b{n}")}));
    let unbound: Vec<Value> = unbound.collect();
    let mut overrides = most_overrides(&|n| format!("gone-{n}"));
    for one in &mut overrides {
        one["sources"] = json!(unbound);
        one["forwarders"] = json!(unbound);
    }
    let cluster = shop().with(policy("p", &json!({"overrides": overrides})));
    let world = many_of(&cluster, POLICIES_PER_NAMESPACE);
    let (_, problems) = Model::compile(&world, &Defaults::default());
    let most = POLICIES_PER_NAMESPACE * 2 * KEPT;
    assert!(problems.list.len() <= most, "{}", problems.list.len());
    let named = OVERRIDES * (OVERRIDE_LISTED + 2 * SOURCES);
    for name in ["p0000", "p0999"] {
        let resolved_refs = &report(&problems, &format!("TrafficPolicy {name}")).resolved_refs;
        assert_eq!(
            (resolved_refs.status, resolved_refs.reason),
            (false, "RefNotFound")
        );
        let rest = format!("; and {} more", named - KEPT);
        assert!(resolved_refs.message.ends_with(&rest), "{resolved_refs:?}");
        assert!(
            resolved_refs.message.contains("there is no "),
            "{resolved_refs:?}"
        );
    }
}

/// CPU time of this thread.
fn on_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

/// Each looked through the sections of all, which made some 2 000 000 000 names.
#[test]
fn read_only_mirror_cost_is_independent_of_policy_count() {
    let mirrors = (0..MIRRORS).map(|n| json!({"service": format!("s{n:02}"), "percent": 1}));
    let fields = json!({
        "mirror": mirrors.collect::<Vec<Value>>(),
        "overrides": most_overrides(&|_| "next".to_owned()),
    });
    let cluster = with_services(with_next(shop()), 4).with(policy("p", &fields));
    // The fastest of some tries: what runs beside it takes caches, but none of this time.
    let fastest = |number: usize| {
        let world = many_of(&cluster, number);
        let took = (0..3).map(|_| {
            let started = on_cpu();
            let (_, problems) = Model::compile(&world, &Defaults::default());
            let took = on_cpu() - started;
            let mut reported = problems.list.iter();
            assert!(reported.all(|one| one.reason != Reason::NotGuarded));
            took
        });
        took.min().unwrap()
    };
    let (few, many) = (fastest(100), fastest(POLICIES_PER_NAMESPACE));
    assert!(many < few * 10 * 3, "{few:?} for 100, {many:?} for 1000");
}
