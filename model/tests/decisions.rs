//! What the proxies decide is what the objects say.
//!
//! Random clusters go the whole way that a cluster's objects go: conversion to the
//! stored version, translation, compilation, resolution for one pod, bytes on the
//! wire, and the proxy's own decision. The answer must be the one that the naive
//! evaluator reads straight from the text.
//!
//! Claims: attack-1, attack-9, observe-57, smi-3

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "decisions/changes.rs"]
mod changes;
#[path = "decisions/coverage.rs"]
mod coverage;
#[path = "decisions/mesh.rs"]
mod mesh;

use std::collections::BTreeMap;

use oracle::{Call, Shares, Traffic, World, generate::SHOP, random::Random, seeds::seeds};

use coverage::Coverage;
use mesh::Mesh;

/// Requests for which access is compared; `make fuzz` compares others, and
/// `WEFT_TEST_MORE` is how many times as many.
const REQUESTS: usize = 100_000;
/// Requests sent into each world.
const PER_WORLD: usize = 50;

#[test]
fn hundred_thousand_requests_are_decided_as_objects_define() {
    let mut coverage = Coverage::default();
    let requests = REQUESTS * more();
    for seed in seeds((requests / PER_WORLD) as u64) {
        let mut random = Random::new(seed);
        let world = World::random(&mut random);
        let mesh = Mesh::new(&world);
        coverage.world(&world);
        for _ in 0..PER_WORLD {
            let call = world.random_call(&mut random, &SHOP);
            let expected = world.allows(&call);
            let done = mesh.allows(&call);
            if expected != done {
                let differs = |world: &World| world.allows(&call) != Mesh::new(world).allows(&call);
                let least = world.smallest(differs);
                panic!(
                    "seed {seed}: the objects say {expected}, the proxy says {done}, \
                     smallest input:\n{}\n{call:?}",
                    show(&least)
                );
            }
            coverage.call(&world, &call, expected);
        }
    }
    assert_eq!(coverage.calls(), requests);
    coverage.assert_broad();
}

/// Calls that are explained, and refused ones whose fix is applied.
const EXPLAINED: usize = 5_000;
const FIXED: usize = 300;

// Claims: observability-6
#[test]
fn explanations_agree_with_what_proxies_decide() {
    use crds::observe::ExplanationVerdict;
    let (mut explained, mut refused) = (0, 0);
    let mut seeds = seeds(u64::MAX);
    while explained < EXPLAINED * more() {
        let seed = seeds.next().unwrap() + 5_000_000;
        let mut random = Random::new(seed);
        let world = World::random(&mut random);
        let mesh = Mesh::new(&world);
        for _ in 0..PER_WORLD {
            let call = world.random_call(&mut random, &SHOP);
            let Some(answer) = mesh.explains(&call) else {
                continue;
            };
            let done = mesh.allows(&call);
            let verdict = answer.status.verdict;
            let expected = if done {
                ExplanationVerdict::Allowed
            } else {
                ExplanationVerdict::Refused
            };
            assert_eq!(
                verdict,
                expected,
                "seed {seed}: {}\n{call:?}\n{answer:?}",
                show(&world)
            );
            explained += 1;
            refused += usize::from(!done);
        }
    }
    assert!(refused * 5 > explained, "{refused} of {explained}");
    assert!(refused * 5 < explained * 4, "{refused} of {explained}");
}

// Claims: observability-6
#[test]
fn fix_allows_the_call_and_no_other() {
    let (mut fixed, mut beside, mut worlds) = (0, 0, 0);
    let mut seeds = seeds(u64::MAX);
    while fixed < FIXED * more() {
        let seed = seeds.next().unwrap() + 6_000_000;
        worlds += 1;
        assert!(worlds < 100_000, "too few calls can be fixed: {fixed}");
        let mut random = Random::new(seed);
        let world = World::random(&mut random);
        let mesh = Mesh::new(&world);
        let call = world.random_call(&mut random, &SHOP);
        let Some(answer) = mesh.explains(&call) else {
            continue;
        };
        let objects = answer.status.fix.clone().unwrap_or_default().objects;
        if objects.is_empty() {
            continue;
        }
        let has = |kind: &str| objects.iter().any(|object| object["kind"] == kind);
        let (on_port, of_request) = (has("TCPRoute"), has("HTTPRouteGroup"));
        let warnings = answer.status.fix.iter().flat_map(|fix| &fix.warnings);
        // That others have the caller's account says nothing of ports.
        let mut warnings = warnings.filter(|one| !one.starts_with("the same call is allowed to"));
        assert!(on_port || warnings.next().is_some(), "{answer:?}");
        let mut after = world.clone();
        after.objects.extend(objects);
        let then = Mesh::new(&after);
        let shown = || format!("seed {seed}: {}\n{call:?}\n{answer:?}", show(&world));
        assert!(!mesh.allows(&call), "{}", shown());
        assert!(then.allows(&call), "{}", shown());
        assert!(after.allows(&call), "{}", shown());
        fixed += 1;
        let mut neighbours: Vec<Call> = neighbours(&call);
        neighbours.extend((0..10).map(|_| world.random_call(&mut random, &SHOP)));
        let meant = |other: &Call| {
            is_meant(&world, &call, other)
                && (call.port == other.port || !on_port)
                && (same_request(&call, other) || !of_request)
        };
        for other in neighbours.iter().filter(|other| !meant(other)) {
            assert!(
                mesh.allows(other) || !then.allows(other),
                "{other:?} passes too, {}",
                shown()
            );
            beside += 1;
        }
    }
    assert!(beside > fixed * 5, "{beside} beside {fixed}");
}

/// Calls that differ in one thing.
fn neighbours(call: &Call) -> Vec<Call> {
    let with = |change: &dyn Fn(&mut Call)| {
        let mut other = call.clone();
        change(&mut other);
        other
    };
    let mut all = vec![
        with(&|other| other.caller = oracle::Caller::Outside),
        with(&|other| other.port = other.port.wrapping_add(1)),
    ];
    if let Traffic::Http(request) = &call.traffic {
        let http = |change: &dyn Fn(&mut oracle::Request)| {
            let mut request = request.clone();
            change(&mut request);
            with(&|other| other.traffic = Traffic::Http(request.clone()))
        };
        all.push(http(&|request| request.path.push('0')));
        all.push(http(&|request| request.path.push_str("/x")));
        let method = if request.method == "DELETE" {
            "GET"
        } else {
            "DELETE"
        };
        all.push(http(&|request| request.method = method.to_owned()));
        all.push(with(&|other| other.traffic = Traffic::Bytes));
    }
    all
}

/// Whether a fix of one call is meant for the ends of the other too. TrafficTargets name
/// accounts, so pods of one account are alike.
fn is_meant(world: &World, call: &Call, other: &Call) -> bool {
    let account = |namespace: &str, name: &str| {
        let mut pods = world
            .objects
            .iter()
            .filter(|object| object["kind"] == "Pod");
        let pod = pods.find(|pod| {
            pod["metadata"]["namespace"] == namespace && pod["metadata"]["name"] == name
        });
        let account = pod.and_then(|pod| pod["spec"]["serviceAccountName"].as_str());
        (
            namespace.to_owned(),
            account.unwrap_or("default").to_owned(),
        )
    };
    let caller = |call: &Call| match &call.caller {
        oracle::Caller::Outside => None,
        oracle::Caller::Pod { namespace, name } => Some(account(namespace, name)),
    };
    let callee = |call: &Call| account(&call.namespace, &call.pod);
    caller(call) == caller(other) && callee(call) == callee(other)
}

/// The same method, and the same path in its normal form.
fn same_request(call: &Call, other: &Call) -> bool {
    let request = |call: &Call| match &call.traffic {
        Traffic::Bytes => None,
        Traffic::Http(request) => {
            let path = policy::path::normalise(&request.path);
            let path = path.map_or_else(|_| request.path.clone(), Into::into);
            Some((request.method.clone(), path))
        }
    };
    request(call) == request(other)
}

/// How many times the usual number of cases is wanted.
fn more() -> usize {
    std::env::var("WEFT_TEST_MORE").map_or(1, |more| more.parse().unwrap())
}

#[test]
fn traffic_is_shared_out_as_the_objects_say() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds(2_000 * more() as u64) {
        let mut random = Random::new(seed + 1_000_000);
        let world = World::random(&mut random);
        let mesh = Mesh::new(&world);
        for service in ["api", "v1", "v2"] {
            for port in [80, 8080, 9090] {
                let traffic = if random.percent(20) {
                    Traffic::Bytes
                } else {
                    Traffic::Http(oracle::generate::request(&mut random))
                };
                let Some(done) = mesh.shares("shop", service, port, &traffic) else {
                    continue;
                };
                let expected = world.shares("shop", service, port, &traffic);
                if !same(&expected, &done) {
                    let differs = |world: &World| {
                        let done = Mesh::new(world).shares("shop", service, port, &traffic);
                        let expected = world.shares("shop", service, port, &traffic);
                        done.is_some_and(|done| !same(&expected, &done))
                    };
                    let least = world.smallest(differs);
                    panic!(
                        "seed {seed}, {service}:{port}: the objects say {expected:?}, the proxy \
                         {done:?}, smallest input:\n{}\n{traffic:?}",
                        show(&least)
                    );
                }
                let kind = match &expected {
                    Shares::Root => "root",
                    Shares::Split(shares) if shares.values().all(|share| *share == 0.0) => "none",
                    Shares::Split(shares) if shares.len() == 1 => "one",
                    Shares::Split(_) => "several",
                };
                *seen.entry(kind).or_default() += 1;
            }
        }
    }
    for kind in ["root", "none", "one", "several"] {
        assert!(
            seen.get(kind).is_some_and(|n| *n >= 100),
            "{kind}: {seen:?}"
        );
    }
}

/// Equal in proportion: weights of v1alpha1 are counted in other units when stored.
fn same(expected: &Shares, done: &Shares) -> bool {
    match (expected, done) {
        (Shares::Root, Shares::Root) => true,
        (Shares::Split(expected), Shares::Split(done)) => {
            let (whole_expected, whole_done): (f64, f64) =
                (expected.values().sum(), done.values().sum());
            expected.keys().eq(done.keys())
                && expected.iter().all(|(name, share)| {
                    (share * whole_done - done[name] * whole_expected).abs()
                        <= 1e-9 * whole_expected.max(1.0) * whole_done.max(1.0)
                })
                && (whole_expected == 0.0) == (whole_done == 0.0)
        }
        _ => false,
    }
}

fn show(world: &World) -> String {
    let objects = world.objects.iter().map(ToString::to_string);
    let objects: Vec<String> = objects.collect();
    format!("{:?}\n{}", world.chart, objects.join("\n"))
}

#[test]
fn the_worked_example_of_the_specification_holds() {
    use serde_json::json;
    let mut random = Random::new(1);
    let mut world = World::random(&mut random);
    world.chart = oracle::Chart::default();
    world.objects.retain(|o| o["kind"] == "Pod");
    for pod in &mut world.objects {
        pod["metadata"]["annotations"] = json!({"weft.dev/proxy-version": "0.1.0"});
    }
    let meta = |name: &str| json!({"name": name, "namespace": "shop"});
    let target = |name: &str, from: &str, of: &str| {
        json!({
            "apiVersion": "access.smi-spec.io/v1alpha3", "kind": "TrafficTarget",
            "metadata": meta(name),
            "spec": {
                "destination": {"kind": "ServiceAccount", "name": "api"},
                "rules": [
                    {"kind": "HTTPRouteGroup", "name": "routes", "matches": [of]},
                    {"kind": "TCPRoute", "name": "ports"},
                ],
                "sources": [{"kind": "ServiceAccount", "name": from}],
            },
        })
    };
    world.objects.push(target("metrics", "default", "metrics"));
    world.objects.push(target("api", "web", "api"));
    world.objects.push(json!({
        "apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
        "metadata": meta("routes"),
        "spec": {"matches": [
            {"name": "api", "pathRegex": "/api", "methods": ["*"]},
            {"name": "metrics", "pathRegex": "/metrics", "methods": ["GET"]},
        ]},
    }));
    world.objects.push(json!({
        "apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "TCPRoute", "metadata": meta("ports"),
        "spec": {"matches": {"ports": [8080]}},
    }));
    let mesh = Mesh::new(&world);
    let mut allowed = Vec::new();
    for from in ["web-0", "default-0", "api-0"] {
        for (method, path) in [
            ("GET", "/api"),
            ("PUT", "/api/x"),
            ("GET", "/metrics"),
            ("POST", "/metrics"),
        ] {
            for port in [8080, 9090] {
                let call = Call {
                    caller: oracle::Caller::Pod {
                        namespace: "shop".into(),
                        name: from.into(),
                    },
                    namespace: "shop".into(),
                    pod: "api-0".into(),
                    port,
                    traffic: Traffic::Http(oracle::Request {
                        method: method.into(),
                        path: path.into(),
                        headers: Vec::new(),
                    }),
                };
                assert_eq!(world.allows(&call), mesh.allows(&call), "{call:?}");
                if world.allows(&call) {
                    allowed.push(format!("{from} {method} {path} {port}"));
                }
            }
        }
    }
    assert_eq!(
        allowed,
        [
            "web-0 GET /api 8080",
            "web-0 PUT /api/x 8080",
            "default-0 GET /metrics 8080"
        ]
    );
}
