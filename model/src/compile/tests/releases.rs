//! CanaryReleases become two sets of endpoints, and rules that share calls out between them.

use policy::name::{Kind, ObjectRef};
use policy::traffic::call::{Downstream, Mirror};
use policy::traffic::set::{Methods, Percent};
use serde_json::{Value, json};

use super::{failures, heavy_group, report};
use crate::{
    fixtures::*,
    problem::{
        ConditionType::{Accepted, ResolvedRefs},
        Reason, Severity,
    },
    world::{
        ObjectKey,
        collect::{Collector, News},
    },
};

const STABLE: &str = "endpoints/shop/api@stable:80";
const CANDIDATE: &str = "endpoints/shop/api@candidate:80";

/// Service `api` with pods of revision `v1`, and pods of `v2`: whether their containers are ready,
/// and their gates open.
fn mesh(stable: u8, candidates: &[[bool; 2]]) -> Cluster {
    let mut cluster = Cluster::default()
        .with(namespace("shop"))
        .with(node("node-a", "zone-a"))
        .with(pod("client", "10.0.0.1", "web"))
        .with(service("api", "10.96.0.1", &[("http", 80)]));
    let mut endpoints = Vec::new();
    for n in 0..stable {
        let (name, ip) = (format!("old-{n}"), format!("10.0.0.{}", 10 + n));
        cluster = cluster.with(of_revision(pod(&name, &ip, "api"), "api", "v1"));
        endpoints.push(endpoint(&name, &ip));
    }
    for (n, state) in candidates.iter().enumerate() {
        let (name, ip) = (format!("new-{n}"), format!("10.0.0.{}", 20 + n));
        let pod = of_revision(pod(&name, &ip, "api"), "api", "v2");
        cluster = cluster.with(gated(pod, *state));
        let mut endpoint = endpoint(&name, &ip);
        let ready = state[0] && state[1];
        endpoint["conditions"] = json!({"ready": ready, "serving": ready, "terminating": false});
        endpoints.push(endpoint);
    }
    let slice = slice("api-x", "api", &[("http", 8080)], &endpoints);
    cluster.with(kept(slice))
}

/// What a status orders for candidate `v2`.
fn order(phase: &str, step: u32, weight: u8) -> Value {
    json!({
        "phase": phase, "stable": {"revision": "v1", "pods": 3},
        "candidate": {"revision": "v2", "pods": 1},
        "run": {"number": 1, "step": step, "weight": weight},
    })
}

/// A release of Service and Deployment `api`.
fn api(status: Value) -> Value {
    with_steps(Value::Null, status)
}

fn with_steps(steps: Value, status: Value) -> Value {
    let mut spec = json!({"service": "api", "deployment": "api"});
    if steps != Value::Null {
        spec["steps"] = steps;
    }
    release("rel", spec, status)
}

fn splits(cluster: &Cluster) -> Vec<wire::v1::Split> {
    let resolved = cluster.resolve("client", &["10.96.0.1:80"]);
    resolved.service("service/shop/api:80").splits
}

/// For each rule whether it has matches, and the weights of both sets.
fn weights(cluster: &Cluster) -> Vec<(bool, [u32; 2])> {
    let splits = splits(cluster);
    let weights = splits.iter().map(|split| {
        let of = |set: &str| {
            let mut backends = split.backends.iter();
            let found = backends.find(|backend| backend.service == format!("api@{set}"));
            found.unwrap().weight
        };
        (split.matches.is_some(), [of("stable"), of("candidate")])
    });
    weights.collect()
}

#[test]
fn candidate_set_holds_gated_pods_with_ready_containers() {
    let all = [[true, false], [false, false], [true, true]];
    let cluster = mesh(2, &all).with(api(order("Promoting", 4, 100)));
    let resolved = cluster.resolve("client", &["10.96.0.1:80"]);
    let old = ["10.0.0.10:8080", "10.0.0.11:8080"];
    assert_eq!(resolved.addresses(STABLE), old);
    let new = ["10.0.0.20:8080", "10.0.0.22:8080"];
    assert_eq!(resolved.addresses(CANDIDATE), new);
    // What unmeshed callers and other splits reach: Ready pods.
    let ready = ["10.0.0.10:8080", "10.0.0.11:8080", "10.0.0.22:8080"];
    assert_eq!(resolved.addresses("endpoints/shop/api:80"), ready);
    // Opening a gate does not warm a pod up again.
    let endpoints = resolved.endpoints(CANDIDATE).endpoints;
    let since: Vec<u64> = endpoints.iter().map(|one| one.ready_since).collect();
    assert_eq!(since, [1_767_225_900; 2]);
}

#[test]
fn pods_of_other_deployments_are_stable() {
    let other = of_revision(pod("other", "10.0.0.30", "api"), "other", "v2");
    let ends = [
        endpoint("old-0", "10.0.0.10"),
        endpoint("other", "10.0.0.30"),
    ];
    let cluster = mesh(1, &[])
        .with(other)
        .with(kept(slice("api-x", "api", &[("http", 8080)], &ends)))
        .with(api(order("Progressing", 2, 20)));
    let resolved = cluster.resolve("client", &["10.96.0.1:80"]);
    let both = ["10.0.0.10:8080", "10.0.0.30:8080"];
    assert_eq!(resolved.addresses(STABLE), both);
    assert!(resolved.addresses(CANDIDATE).is_empty());
}

#[test]
fn candidate_weight_is_step_capped_by_serving_pods() {
    type Case = (&'static str, u8, &'static [[bool; 2]], u8, u32);
    const GATED: [bool; 2] = [true, false];
    const OPEN: [bool; 2] = [true, true];
    const LOST: [bool; 2] = [false, false];
    let table: [Case; 11] = [
        ("Progressing", 3, &[GATED], 20, 20),
        ("Progressing", 3, &[GATED], 50, 25),
        ("Paused", 3, &[GATED, LOST], 50, 25),
        ("Progressing", 3, &[LOST], 50, 0),
        ("Progressing", 3, &[], 50, 0),
        ("Progressing", 0, &[GATED], 5, 100),
        ("Promoting", 1, &[OPEN, GATED], 100, 66),
        ("RolledBack", 3, &[GATED], 0, 0),
        ("RolledBack", 0, &[GATED], 0, 0),
        ("RolledBack", 1, &[OPEN, GATED], 50, 34),
        ("RolledBack", 0, &[OPEN], 50, 50),
    ];
    for (phase, stable, candidates, weight, expected) in table {
        let cluster = mesh(stable, candidates).with(api(order(phase, 2, weight)));
        let all = weights(&cluster);
        let case = format!("{phase} {stable} {candidates:?} {weight}");
        assert_eq!(all, [(false, [100 - expected, expected])], "{case}");
    }
}

#[test]
fn release_without_run_leads_no_calls() {
    for phase in ["Idle", "Waiting", "", "Unknown"] {
        let cluster = mesh(3, &[[true, false]]).with(api(order(phase, 1, 20)));
        assert!(splits(&cluster).is_empty(), "{phase}");
    }
    let mut suspended = api(order("Progressing", 1, 20));
    suspended["spec"]["suspend"] = json!(true);
    let forgotten = set(api(Value::Null), "/status", json!({"phase": "Progressing"}));
    let broken = set(
        api(order("Progressing", 1, 20)),
        "/spec/minRequests",
        json!(-1),
    );
    for object in [suspended, forgotten, broken] {
        let cluster = mesh(3, &[[true, false]]).with(object.clone());
        assert!(splits(&cluster).is_empty(), "{object}");
    }
}

#[test]
fn step_with_matches_has_its_rule_first() {
    let beta = json!([{"kind": "HTTPRouteGroup", "name": "beta"}]);
    let steps = json!([{"weight": 5}, {"weight": 60, "matches": beta}]);
    let cluster = mesh(1, &[[true, false]])
        .with(group(
            "beta",
            json!([{"name": "b", "headers": {"x-beta": ".+"}}]),
        ))
        .with(with_steps(steps.clone(), order("Progressing", 2, 60)));
    let half = (true, [50, 50]);
    assert_eq!(weights(&cluster), [half, (false, [95, 5])]);
    let origins = cluster.resolve("client", &["10.96.0.1:80"]);
    let origins = origins.published("service/shop/api:80").origins.len();
    assert_eq!(origins, 2, "the release and the group");
    // The group is missing: no request fits.
    let cluster = mesh(1, &[[true, false]]).with(with_steps(steps, order("Progressing", 2, 60)));
    assert_eq!(weights(&cluster), [half, (false, [95, 5])]);
    let none = splits(&cluster)[0].matches.clone();
    assert!(none.unwrap().matches.is_empty());
    let (_, problems) = cluster.compile();
    let missing = (Reason::RefNotFound, "spec.steps[1].matches[0].name");
    assert_eq!(failures(&problems, ResolvedRefs), [missing]);
}

#[test]
fn step_with_too_many_expressions_refuses_the_release() {
    let names = ["a", "b", "c", "d", "e"];
    let groups = names.map(|name| json!({"kind": "HTTPRouteGroup", "name": name}));
    let base = names.map(heavy_group);
    let base = base
        .into_iter()
        .fold(mesh(1, &[[true, false]]), Cluster::with);
    let failing = |count: usize| {
        let steps = json!([{"weight": 5}, {"weight": 60, "matches": &groups[..count]}]);
        let release = with_steps(steps, order("Progressing", 2, 60));
        let (_, problems) = base.clone().with(release).compile();
        let failing = failures(&problems, Accepted).into_iter();
        let failing = failing.map(|(reason, field)| (reason, field.to_owned()));
        failing.collect::<Vec<_>>()
    };
    assert!(failing(4).is_empty());
    let field = "spec.steps[1].matches".to_owned();
    assert_eq!(failing(5), [(Reason::Invalid, field)]);
}

#[test]
fn older_of_split_and_release_decides() {
    let running = || api(order("Progressing", 1, 20));
    let younger = || created(split("s", "api", &[("next", 1)]), 9);
    let older = || split("s", "api", &[("next", 1)]);
    let base = || mesh(3, &[[true, false]]).with(service("next", "10.96.0.2", &[("http", 80)]));
    let conflicted = |cluster: &Cluster, object: &str| {
        let (_, problems) = cluster.compile();
        let report = report(&problems, object);
        assert_eq!(report.accepted.reason, "Conflicted", "{object}");
        report.accepted.message.clone()
    };

    let cluster = base().with(running()).with(younger());
    assert_eq!(weights(&cluster), [(false, [80, 20])]);
    let message = conflicted(&cluster, "TrafficSplit s");
    let expected = "spec.service: CanaryRelease rel splits this Service already, and is older";
    assert_eq!(message, expected);
    // Also without a run: else its next one would move the calls of the split.
    let idle = base().with(api(order("Idle", 0, 0))).with(younger());
    assert!(splits(&idle).is_empty());
    conflicted(&idle, "TrafficSplit s");

    let late = created(running(), 9);
    let cluster = base().with(late.clone()).with(older());
    assert_eq!(splits(&cluster)[0].backends[0].service, "next");
    conflicted(&cluster, "CanaryRelease rel");

    // One with matches goes before.
    let some = json!([{"kind": "HTTPRouteGroup", "name": "some"}]);
    let some = set(older(), "/spec/matches", some);
    let cluster = base()
        .with(group("some", json!([{"name": "m", "methods": ["GET"]}])))
        .with(some)
        .with(late);
    let origins: Vec<String> = splits(&cluster)
        .into_iter()
        .map(|split| split.origin.unwrap().kind)
        .collect();
    assert_eq!(origins, ["TrafficSplit", "CanaryRelease"]);
}

#[test]
fn older_release_of_service_or_deployment_decides() {
    let second = |service: &str| {
        let spec = json!({"service": service, "deployment": "api"});
        created(release("second", spec, order("Progressing", 1, 50)), 9)
    };
    let base = || mesh(3, &[[true, false]]).with(service("other", "10.96.0.2", &[("http", 80)]));
    for service in ["api", "other"] {
        let cluster = base()
            .with(second(service))
            .with(api(order("Progressing", 1, 20)));
        assert_eq!(weights(&cluster), [(false, [80, 20])]);
        let (_, problems) = cluster.compile();
        let refused = report(&problems, "CanaryRelease second");
        assert_eq!(refused.accepted.reason, "Conflicted", "{service}");
        assert!(report(&problems, "CanaryRelease rel").accepted.status);
    }
}

#[test]
fn service_that_cannot_be_led_is_refused() {
    let unfit = |pointer: &str, value: Value| {
        let service = service("api", "10.96.0.1", &[("http", 80)]);
        let service = set(service, pointer, value);
        let cluster =
            mesh(3, &[[true, false]])
                .with(service)
                .with(api(order("Progressing", 1, 20)));
        let (model, problems) = cluster.compile();
        let entry = &model.index.services[&ObjectKey::new("shop", "api")];
        assert!(entry.splits.is_empty(), "{pointer}");
        let expected = [(Reason::UnsupportedService, "spec.service")];
        assert_eq!(failures(&problems, Accepted), expected, "{pointer}");
    };
    unfit("/spec/clusterIP", json!("None"));
    unfit("/spec/publishNotReadyAddresses", json!(true));
    unfit("/spec/selector", json!({}));
    unfit("/spec/internalTrafficPolicy", json!("Local"));
    unfit("/spec/type", json!("ExternalName"));

    let spec = json!({"service": "gone", "deployment": "api"});
    let cluster = mesh(3, &[]).with(release("rel", spec, Value::Null));
    let (_, problems) = cluster.compile();
    let missing = [(Reason::RefNotFound, "spec.service")];
    assert_eq!(failures(&problems, ResolvedRefs), missing);
}

/// Reasons and fields of all warnings.
fn warnings(cluster: &Cluster) -> Vec<(Reason, String)> {
    let (_, problems) = cluster.compile();
    let warned = problems.list.into_iter();
    let warned = warned.filter(|one| one.severity == Severity::Warning);
    warned.map(|one| (one.reason, one.field)).collect()
}

#[test]
fn pods_that_a_release_does_not_fit_are_reported() {
    let idle = || api(Value::Null);
    assert!(warnings(&mesh(3, &[]).with(idle())).is_empty());
    let field = || "spec.deployment".to_owned();
    let none = warnings(&mesh(0, &[]).with(idle()));
    assert_eq!(none, [(Reason::RefNotFound, field())]);
    let plain = of_revision(plain_pod("old-0", "10.0.0.10", "api"), "api", "v1");
    let plain = warnings(&mesh(3, &[]).with(plain).with(idle()));
    assert_eq!(plain, [(Reason::NotEnforced, field())]);
    let ends = [endpoint("old-0", "10.0.0.10")];
    let shared = mesh(3, &[])
        .with(service("admin", "10.96.0.2", &[("http", 80)]))
        .with(slice("admin-x", "admin", &[("http", 8080)], &ends))
        .with(idle());
    assert_eq!(warnings(&shared), [(Reason::SharedPods, field())]);
}

#[test]
fn service_without_pod_of_deployment_is_no_reference() {
    let spec = json!({"service": "lonely", "deployment": "api"});
    let cluster = mesh(0, &[[true, true]])
        .with(service("lonely", "10.96.0.2", &[("http", 80)]))
        .with(release("rel", spec, Value::Null));
    let (_, problems) = cluster.compile();
    let expected = [(Reason::RefNotFound, "spec.deployment")];
    assert_eq!(failures(&problems, ResolvedRefs), expected);
}

fn mirrors(cluster: &Cluster) -> Vec<Mirror> {
    let (model, _) = cluster.compile();
    let resolved = resolve_newest(&model, "client", &["10.96.0.1:80"]);
    if !resolved.0.contains_key("policy/shop/api:80") {
        return Vec::new();
    }
    let rules = resolved.policy("shop/api:80").mirror.rules;
    let sections = rules.iter().filter_map(|rule| rule.then.as_ref());
    sections.flat_map(|one| one.section.to_vec()).collect()
}

#[test]
fn mirror_step_copies_safe_requests_to_candidate() {
    let steps = json!([{"mirror": 10}, {"weight": 20}]);
    let at = |step, weight| {
        let release = with_steps(steps.clone(), order("Progressing", step, weight));
        mesh(3, &[[true, false]]).with(release)
    };
    let copies = mirrors(&at(1, 0));
    let [copy] = &*copies else {
        panic!("{copies:?}");
    };
    assert_eq!(copy.service.to_string(), "shop/api@candidate");
    let settings = (copy.percent, copy.methods.clone(), copy.downstream);
    let expected = (Percent::at_most(10), Methods::SAFE, Downstream::Any);
    assert_eq!(settings, expected);
    assert_eq!(weights(&at(1, 0)), [(false, [100, 0])]);
    assert!(mirrors(&at(2, 20)).is_empty());

    let own = json!({
        "targetRef": {"kind": "Service", "name": "api"},
        "mirror": [{"service": "next", "percent": 5, "downstream": "Any"}],
        "sticky": {"type": "Caller"},
    });
    let cluster = at(1, 0)
        .with(service("next", "10.96.0.2", &[("http", 80)]))
        .with(traffic_policy("p", own));
    let services: Vec<String> = mirrors(&cluster)
        .iter()
        .map(|one| one.service.to_string())
        .collect();
    assert_eq!(services, ["shop/next"]);
    let said = warnings(&cluster);
    for expected in [
        (Reason::PartlyOverridden, "spec.steps".to_owned()),
        (Reason::DependentCalls, "spec.service".to_owned()),
    ] {
        assert!(said.contains(&expected), "{said:?}");
    }
}

#[test]
fn pods_report_early_only_while_counted() {
    let reports = |cluster: &Cluster, pod: &str| {
        let resolved = cluster.resolve(pod, &[]);
        resolved.workload().early_reports
    };
    for (phase, expected) in [
        ("Idle", false),
        ("Waiting", true),
        ("Progressing", true),
        ("Paused", true),
        ("Promoting", true),
        ("RolledBack", false),
    ] {
        let cluster = mesh(1, &[[true, false]]).with(api(order(phase, 1, 20)));
        for pod in ["old-0", "new-0"] {
            assert_eq!(reports(&cluster, pod), expected, "{phase} {pod}");
        }
        assert!(!reports(&cluster, "client"), "{phase}");
    }
}

#[test]
fn counts_in_a_status_change_no_fact() {
    let cluster = mesh(3, &[[true, false]]);
    let mut collector = Collector::default();
    let mut status = order("Progressing", 2, 20);
    apply(&mut collector, &api(status.clone()));
    for object in cluster.objects() {
        apply(&mut collector, object);
    }
    status["checks"] = json!([{"name": "errorRate", "candidate": {"requests": 7, "bad": 1}}]);
    status["run"]["state"] = json!("evidence");
    status["candidate"]["pods"] = json!(2);
    assert_eq!(apply(&mut collector, &api(status.clone())), News::None);
    // A rollback does not wait for other changes.
    status["phase"] = json!("RolledBack");
    status["run"]["weight"] = json!(0);
    assert_eq!(apply(&mut collector, &api(status)), News::Urgent);
}

#[test]
fn release_is_needed_where_its_service_is_called() {
    let object = ObjectRef::new(Kind::CanaryRelease, "shop", "rel");
    let through = |phase| {
        let cluster = mesh(3, &[[true, false]]).with(api(order(phase, 2, 20)));
        cluster.compile().0.called_through(&object)
    };
    let service = "destination/10.96.0.1:80".to_owned();
    assert_eq!(through("Progressing"), [service].into());
    assert!(through("Idle").is_empty());
}
