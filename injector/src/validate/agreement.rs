//! Tests that the webhook refuses exactly what the controller does not accept, with the same
//! words.
//!
//! Objects are tested on both real paths: the review of a write, and translation and compilation
//! as the only object of a cluster, so that only the object itself can be wrong. The trust domain,
//! which only the controller knows, is skipped: an IdentityBinding with an identity of another
//! namespace is stored and has no effect (B2).

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::DynamicObject;
use model::{
    Defaults, Model,
    problem::{ConditionType, Problem, Reason, Severity},
    translate, world,
};
use oracle::{
    generate::{SHOP, Vocabulary, hostile},
    random::Random,
    seeds::seeds,
};
use serde_json::{Value, json};

use super::*;

/// Objects of each way of making them.
const OBJECTS: u64 = 1_500;
/// Differences that a failure shows.
const SHOWN: usize = 40;
/// Characters of an object that a failure shows.
const LONGEST_SHOWN: usize = 600;

fn cluster() -> Cluster {
    Cluster {
        domain: oracle::CLUSTER_DOMAIN.into(),
        ..Cluster::default()
    }
}

/// What the controller says about one object that is alone in its cluster.
fn compiled(object: &Value) -> Vec<Problem> {
    let mut facts = world::World::default();
    let dynamic: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let key = translate::key(&dynamic.metadata);
    macro_rules! put {
        ($store:ident, $read:ident) => {{
            let fact = translate::$read(&dynamic, &cluster());
            Arc::make_mut(&mut facts.$store).insert(key, Arc::new(fact));
        }};
    }
    match object["kind"].as_str().unwrap() {
        "TrafficTarget" => put!(targets, target),
        "TrafficSplit" => put!(splits, split),
        "HTTPRouteGroup" => put!(groups, group),
        "TCPRoute" => put!(tcp_routes, tcp_route),
        "UDPRoute" => put!(udp_routes, udp_route),
        "IdentityBinding" => put!(bindings, binding),
        "TrafficPolicy" => put!(policies, traffic_policy),
        "ExternalService" => put!(external_services, external_service),
        other => panic!("no such kind: {other}"),
    }
    let defaults = Defaults {
        // Without it every UDPRoute has a warning that it is not enforced.
        udp_network_policies: true,
        ..Defaults::default()
    };
    let (_, problems) = Model::compile(&facts, &defaults);
    let accepted = problems.reports.values().all(|v| v.accepted.status);
    let list = problems.list.into_iter();
    let list: Vec<Problem> = list
        .filter(|problem| problem.condition == ConditionType::Accepted)
        .collect();
    let failed = list.iter().any(|p| p.severity == Severity::Failure);
    assert_eq!(accepted, !failed, "{list:?}");
    list.into_iter()
        .filter(|problem| problem.reason != Reason::ForeignIdentity)
        .collect()
}

/// What the webhook says about its creation.
pub(super) fn reviewed(object: &Value) -> AdmissionResponse {
    let (group, version) = object["apiVersion"]
        .as_str()
        .unwrap()
        .split_once('/')
        .unwrap();
    let request = json!({
        "uid": "u",
        "kind": {"group": group, "version": version, "kind": object["kind"]},
        "namespace": object["metadata"]["namespace"], "name": object["metadata"]["name"],
        "operation": "CREATE", "object": object, "oldObject": null,
    });
    validate(&serde_json::from_value(request).unwrap(), &cluster())
}

/// How the two differ about an object, in one line; `None` if they do not.
pub(super) fn difference(object: &Value) -> Option<String> {
    let (review, found) = (reviewed(object), compiled(object));
    let of = |severity: Severity| -> Vec<String> {
        let found = found
            .iter()
            .filter(move |problem| problem.severity == severity);
        found
            .map(|one| format!("{}: {}", one.field, one.message))
            .collect()
    };
    let (failures, mut warnings) = (of(Severity::Failure), of(Severity::Warning));
    match review.refusal {
        None if failures.is_empty() => {
            let mut warned = review.warnings;
            warned.sort();
            warnings.sort();
            (warned != warnings).then(|| format!("warnings: {warned:?} and {warnings:?}"))
        }
        None => Some(format!("only the controller: {}", failures[0])),
        Some(refusal) if failures.is_empty() => Some(format!("only the webhook: {refusal}")),
        Some(refusal) => {
            let why = refusal
                .split_once("is invalid: ")
                .map_or("", |(_, why)| why);
            let missing = failures.iter().find(|one| !why.contains(one.as_str()));
            let missing = missing.filter(|_| failures.len() <= MOST_MISTAKES);
            missing.map(|missing| format!("other words: {missing} and {refusal}"))
        }
    }
}

/// As it is stored and as the webhook gets it, unless the API server refuses the write.
fn stored(object: &Value) -> Option<Value> {
    let (group, _) = object["apiVersion"].as_str()?.split_once('/')?;
    crds::convert::convert(object, &format!("{group}/v1alpha4")).ok()
}

/// Texts that are right in one field and wrong in another.
const TEXTS: [&str; 39] = [
    "",
    "web",
    "Web",
    "web_1",
    "web.shop",
    "web.bank",
    "web.shop.svc",
    "web.shop.pod",
    "web.",
    "web..",
    ".web",
    "web..shop",
    "-web",
    "web-",
    "a/b",
    "*",
    "default",
    "routes",
    "web.shop.svc.cluster.local",
    "web.shop.svc.cluster.local.",
    "web.shop.svc.other.example",
    "system:authenticated",
    "ServiceAccount",
    "IdentityBinding",
    "HTTPRouteGroup",
    "TCPRoute",
    "UDPRoute",
    "Group",
    "GET",
    "get",
    "specs.smi-spec.io",
    "cluster.local/ns/shop/sa/web",
    "spiffe://other/x",
    "spiffe://",
    "(",
    ".*",
    "shop",
    "bank",
    "Shop",
];
/// Around the bounds of ports and weights.
const NUMBERS: [i64; 10] = [
    -1,
    0,
    1,
    80,
    65_535,
    65_536,
    2_147_483_647,
    2_147_483_648,
    4_294_967_295,
    i64::MAX,
];
/// Around the bounds of lists.
const LENGTHS: [usize; 13] = [0, 1, 2, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257];

/// A value that is just right or just wrong somewhere.
fn borderline(random: &mut Random) -> Value {
    match random.below(12) {
        0..6 => json!(random.pick(&TEXTS)),
        6 | 7 => json!(random.of(&NUMBERS)),
        8 => json!([random.pick(&TEXTS), random.pick(&TEXTS)]),
        9 => json!(vec![random.of(&NUMBERS); random.of(&LENGTHS)]),
        // Labels of names have at most 63.
        10 => json!("a".repeat(random.of(&[63, 64]))),
        _ => random.of(&[
            json!(null),
            json!([]),
            json!({}),
            json!(1.5),
            json!("1500m"),
        ]),
    }
}

/// An object that is valid but for a few places.
fn nearly_valid(random: &mut Random) -> Value {
    const CAREFUL: Vocabulary = Vocabulary {
        mistakes: false,
        ..SHOP
    };
    let mut object = loop {
        let mut made = oracle::generate::policies(random, &CAREFUL);
        let object = made.swap_remove(random.below(made.len()));
        if let Some(mut object) = stored(&object) {
            if random.percent(10) && object["kind"] == "TCPRoute" {
                object["kind"] = json!("UDPRoute");
            }
            break object;
        }
    };
    alter(random, &mut object);
    object
}

/// Puts what is just right or just wrong into a few places of a spec.
pub(super) fn alter(random: &mut Random, object: &mut Value) {
    for _ in 0..random.below(3) {
        let mut pointers = vec!["/spec".to_owned()];
        collect("/spec", &object["spec"], &mut pointers);
        let at = random.of(&pointers);
        let odd = borderline(random);
        let Some(value) = object.pointer_mut(&at) else {
            continue;
        };
        match &mut *value {
            Value::Array(list) if !list.is_empty() && random.percent(70) => {
                let one = list[random.below(list.len())].clone();
                list.resize(random.of(&LENGTHS), one);
            }
            Value::Object(map) if random.percent(70) => {
                let keys: Vec<String> = map.keys().cloned().collect();
                match random.below(3) {
                    0 if !keys.is_empty() => drop(map.remove(&random.of(&keys))),
                    1 => drop(map.insert(random.pick(&FIELDS).to_owned(), odd)),
                    _ => (0..random.of(&[31, 33])).for_each(|n| {
                        map.insert(format!("x-{n}"), json!("a"));
                    }),
                }
            }
            value => *value = odd,
        }
    }
}

/// Fields that only some entries have.
const FIELDS: [&str; 8] = [
    "matches",
    "namespace",
    "port",
    "apiGroup",
    "group",
    "methods",
    "serviceAccount",
    "spiffeIdentities",
];

fn collect(at: &str, value: &Value, pointers: &mut Vec<String>) {
    pointers.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                collect(
                    &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    value,
                    pointers,
                );
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate().take(8) {
                collect(&format!("{at}/{i}"), value, pointers);
            }
        }
        _ => {}
    }
}

// Claims: attack-68
#[test]
fn webhook_refuses_exactly_objects_that_controller_rejects() {
    let (mut validated, mut refused) = (0, 0);
    let mut differences: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for seed in seeds(2 * OBJECTS) {
        let mut random = Random::new(seed);
        let made = if seed % 2 == 0 {
            stored(&hostile(&mut random, &SHOP))
        } else {
            Some(nearly_valid(&mut random))
        };
        let Some(mut object) = made else { continue };
        object["metadata"] = json!({"name": "x", "namespace": "shop", "generation": 1});
        validated += 1;
        refused += u64::from(reviewed(&object).refusal.is_some());
        if let Some(difference) = difference(&object) {
            let kind = object["kind"].as_str().unwrap();
            let words: String = difference
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .take(110)
                .collect();
            let shown: String = object["spec"]
                .to_string()
                .chars()
                .take(LONGEST_SHOWN)
                .collect();
            let entry = differences
                .entry(format!("{kind} {words}"))
                .or_insert((0, shown));
            entry.0 += 1;
        }
    }
    let shown: Vec<String> = differences
        .iter()
        .take(SHOWN)
        .map(|(words, (times, object))| format!("{times} times {words}\n    {object}"))
        .collect();
    assert!(
        differences.is_empty(),
        "{} of {validated} objects differ:\n{}",
        differences.values().map(|(times, _)| times).sum::<usize>(),
        shown.join("\n")
    );
    assert!(
        (validated / 5..validated * 4 / 5).contains(&refused),
        "{refused} of {validated}"
    );
}

/// What the two judged differently as long as each had a judgement of its own.
// Claims: observability-18
#[test]
fn formerly_disputed_objects_are_refused_identically_by_both() {
    let cases = [split_cases(), target_cases(), other_cases()];
    for (object, field) in cases.into_iter().flatten() {
        assert_eq!(difference(&object), None, "{object}");
        let refusal = reviewed(&object).refusal;
        let refusal = refusal.unwrap_or_else(|| panic!("taken: {object}"));
        assert!(
            refusal.contains(&format!("is invalid: {field}: ")),
            "{refusal}"
        );
    }
}

/// An object, and the first field that is wrong with it.
type Case = (Value, &'static str);

fn object(group: &str, kind: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": format!("{group}/v1alpha4"), "kind": kind,
        "metadata": {"name": "x", "namespace": "shop", "generation": 1},
    });
    object["spec"] = spec;
    object
}

/// A good spec with another value for one field.
fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

fn split_cases() -> Vec<Case> {
    let split = |field: &str, value: Value| {
        let good = json!({"service": "web", "backends": [{"service": "a", "weight": 1}]});
        object(
            "split.smi-spec.io",
            "TrafficSplit",
            with(good, field, value),
        )
    };
    let groups = |names: &[String]| {
        let of = |name: &String| json!({"kind": "HTTPRouteGroup", "name": name});
        split("matches", names.iter().map(of).collect())
    };
    let many: Vec<String> = (0..17).map(|n| format!("g{n}")).collect();
    let backend = json!([{"service": "a/b", "weight": 1}]);
    let foreign = json!([{"kind": "HTTPRouteGroup", "name": "g", "apiGroup": "x"}]);
    vec![
        (
            split("service", json!("web.shop.svc.other.example")),
            "spec.service",
        ),
        (split("service", json!("web..")), "spec.service"),
        (split("service", json!("Web")), "spec.service"),
        (split("backends", json!([])), "spec.backends"),
        (split("backends", backend), "spec.backends[0].service"),
        (groups(&many), "spec.matches"),
        (groups(&["g".into(), "g".into()]), "spec.matches[1].name"),
        (groups(&["Not A Name".into()]), "spec.matches[0].name"),
        (split("matches", foreign), "spec.matches[0].apiGroup"),
    ]
}

fn target_cases() -> Vec<Case> {
    let target = |field: &str, value: Value| {
        let good = json!({
            "destination": {"kind": "ServiceAccount", "name": "api"},
            "sources": [{"kind": "ServiceAccount", "name": "web"}],
            "rules": [{"kind": "TCPRoute", "name": "ports"}],
        });
        object(
            "access.smi-spec.io",
            "TrafficTarget",
            with(good, field, value),
        )
    };
    let source = |kind: &str, name: &str, namespace: &str| {
        let one = json!({"kind": kind, "name": name, "namespace": namespace});
        target("sources", json!([one]))
    };
    let rule = |rule: Value| target("rules", json!([rule]));
    let impossible = json!({"kind": "ServiceAccount", "name": "a/b"});
    let group = "system:authenticated";
    let named = json!({"kind": "TCPRoute", "name": "a", "matches": ["x"]});
    let empty = json!({"kind": "UDPRoute", "name": "a", "matches": []});
    vec![
        (target("destination", impossible), "spec.destination.name"),
        (
            source("ServiceAccount", "Web", "shop"),
            "spec.sources[0].name",
        ),
        (
            source("ServiceAccount", "web", "a.b"),
            "spec.sources[0].namespace",
        ),
        (source("Group", group, "A"), "spec.sources[0].namespace"),
        (
            rule(json!({"kind": "TCPRoute", "name": "A"})),
            "spec.rules[0].name",
        ),
        (rule(named), "spec.rules[0].matches"),
        (rule(empty), "spec.rules[0].matches"),
    ]
}

fn other_cases() -> Vec<Case> {
    let binding = |schemes: Value| {
        let spec = json!({"schemes": schemes});
        object("access.smi-spec.io", "IdentityBinding", spec)
    };
    let labels: serde_json::Map<_, _> = (0..33).map(|n| (format!("l{n}"), json!("a"))).collect();
    let labels = json!({"podLabelSelector": {"matchLabels": labels}});
    let tcp = |spec: Value| object("specs.smi-spec.io", "TCPRoute", spec);
    let http = |spec: Value| object("specs.smi-spec.io", "HTTPRouteGroup", spec);
    let method = json!({"matches": [{"name": "a", "methods": [1]}]});
    vec![
        (
            binding(json!({"serviceAccount": "Web"})),
            "spec.schemes.serviceAccount",
        ),
        (binding(labels), "spec.schemes.podLabelSelector.matchLabels"),
        (tcp(json!(null)), "spec"),
        (tcp(json!([])), "spec"),
        (tcp(json!({"matches": []})), "spec.matches"),
        (http(json!(null)), "spec"),
        (http(json!({"matches": [["x"]]})), "spec.matches[0]"),
        (http(method), "spec.matches[0].methods[0]"),
    ]
}
