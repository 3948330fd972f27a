//! What the webhook refuses is what the controller does not accept, word for word.
//!
//! Objects go both real ways: the review of a write, and translation and compilation as
//! the only object of a cluster, so that nothing can be wrong with it but itself. What
//! the controller knows besides, the trust domain, is left out: an IdentityBinding with
//! an identity of another namespace is written and has no say (B2).

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::DynamicObject;
use oracle::{
    generate::{Place, SHOP, hostile},
    random::Random,
};
use serde_json::{Value, json};
use weft_controller::{
    ConditionType, Defaults, Model, Problem, Reason, Severity, translate, world,
};

use super::*;

/// The cluster's.
const DOMAIN: &str = oracle::CLUSTER_DOMAIN;
/// Objects of each way of making them.
const OBJECTS: u64 = 1_500;
/// Differences that a failure shows.
const SHOWN: usize = 40;
/// Characters of an object that a failure shows.
const LONGEST_SHOWN: usize = 600;

/// What the controller says about one object that is alone in its cluster.
fn compiled(object: &Value) -> Vec<Problem> {
    let mut facts = world::World::default();
    let dynamic: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let key = translate::key(&dynamic.metadata);
    macro_rules! put {
        ($store:ident, $read:ident) => {{
            let fact = translate::$read(&dynamic, DOMAIN);
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
        other => panic!("no such kind: {other}"),
    }
    let defaults = Defaults {
        // Without it every UDPRoute says that nobody enforces it.
        udp_network_policies: true,
        ..Defaults::default()
    };
    let (_, problems) = Model::compile(&facts, &defaults);
    let accepted = problems.verdicts.values().all(|v| v.accepted.status);
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
fn reviewed(object: &Value) -> AdmissionResponse {
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
    validate(&serde_json::from_value(request).unwrap(), DOMAIN)
}

/// How the two differ about an object, in one line; `None` if they do not.
fn difference(object: &Value) -> Option<String> {
    let (said, found) = (reviewed(object), compiled(object));
    let of = |severity: Severity| -> Vec<String> {
        let found = found
            .iter()
            .filter(move |problem| problem.severity == severity);
        found
            .map(|one| format!("{}: {}", one.field, one.message))
            .collect()
    };
    let (failures, mut warnings) = (of(Severity::Failure), of(Severity::Warning));
    match said.refusal {
        None if failures.is_empty() => {
            let mut warned = said.warnings;
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
            let untold = failures.iter().find(|one| !why.contains(one.as_str()));
            let untold = untold.filter(|_| failures.len() <= MOST_MISTAKES);
            untold.map(|untold| format!("other words: {untold} and {refusal}"))
        }
    }
}

/// As it is stored and as the webhook gets it, unless the API server refuses the write.
fn stored(object: &Value) -> Option<Value> {
    let (group, _) = object["apiVersion"].as_str()?.split_once('/')?;
    crds::convert::convert(object, &format!("{group}/v1alpha4")).ok()
}

/// Values that are just right or just wrong somewhere.
fn borderline(random: &mut Random) -> Value {
    let label = "a".repeat(63);
    let names = [
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
        label.as_str(),
    ];
    let numbers = [
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
    let long = [17, 32, 33, 64, 65, 128, 129, 256, 257];
    match random.below(12) {
        0..6 => json!(random.pick(&names)),
        6 | 7 => json!(random.of(&numbers)),
        8 => json!([random.pick(&names), random.pick(&names)]),
        9 => json!(vec![random.of(&numbers); random.of(&long)]),
        10 => json!(format!("{label}a")),
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
    const CAREFUL: Place = Place {
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
    for _ in 0..random.below(3) {
        let mut places = vec!["/spec".to_owned()];
        collect("/spec", &object["spec"], &mut places);
        let at = random.of(&places);
        let odd = borderline(random);
        let Some(value) = object.pointer_mut(&at) else {
            continue;
        };
        match &mut *value {
            Value::Array(list) if !list.is_empty() && random.percent(70) => {
                let one = list[random.below(list.len())].clone();
                list.resize(
                    random.of(&[0, 1, 2, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257]),
                    one,
                );
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
    object
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

fn collect(at: &str, value: &Value, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                collect(
                    &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    value,
                    places,
                );
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate().take(8) {
                collect(&format!("{at}/{i}"), value, places);
            }
        }
        _ => {}
    }
}

#[test]
fn the_webhook_refuses_exactly_what_the_controller_does_not_accept() {
    let (mut judged, mut refused) = (0, 0);
    let mut differences: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for seed in 0..2 * OBJECTS {
        let mut random = Random::new(seed);
        let made = if seed % 2 == 0 {
            stored(&hostile(&mut random, &SHOP))
        } else {
            Some(nearly_valid(&mut random))
        };
        let Some(mut object) = made else { continue };
        object["metadata"] = json!({"name": "x", "namespace": "shop", "generation": 1});
        judged += 1;
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
        "{} of {judged} objects differ:\n{}",
        differences.values().map(|(times, _)| times).sum::<usize>(),
        shown.join("\n")
    );
    assert!(
        (judged / 5..judged * 4 / 5).contains(&refused),
        "{refused} of {judged}"
    );
}

/// What the two judged differently as long as each had a judgement of its own.
#[test]
fn what_was_judged_differently_once_is_refused_by_both_in_the_same_words() {
    let split = |edit: Value| {
        let mut spec = json!({"service": "web", "backends": [{"service": "a", "weight": 1}]});
        merge(&mut spec, edit);
        ("split.smi-spec.io", "TrafficSplit", spec)
    };
    let target = |edit: Value| {
        let mut spec = json!({
            "destination": {"kind": "ServiceAccount", "name": "api"},
            "sources": [{"kind": "ServiceAccount", "name": "web"}],
            "rules": [{"kind": "TCPRoute", "name": "ports"}],
        });
        merge(&mut spec, edit);
        ("access.smi-spec.io", "TrafficTarget", spec)
    };
    let source = |name: &str, namespace: &str| {
        target(json!({"sources": [
            {"kind": "ServiceAccount", "name": name, "namespace": namespace},
        ]}))
    };
    let groups = |names: Vec<String>| {
        let of = |name| json!({"kind": "HTTPRouteGroup", "name": name});
        split(json!({"matches": names.into_iter().map(of).collect::<Vec<Value>>()}))
    };
    let binding = |schemes: Value| {
        let spec = json!({"schemes": schemes});
        ("access.smi-spec.io", "IdentityBinding", spec)
    };
    let labels: serde_json::Map<_, _> = (0..33).map(|n| (format!("l{n}"), json!("a"))).collect();
    let tcp = |spec: Value| ("specs.smi-spec.io", "TCPRoute", spec);
    let http = |spec: Value| ("specs.smi-spec.io", "HTTPRouteGroup", spec);
    let table = [
        (
            split(json!({"service": "web.shop.svc.other.example"})),
            "spec.service",
        ),
        (split(json!({"service": "web.."})), "spec.service"),
        (split(json!({"service": "Web"})), "spec.service"),
        (split(json!({"backends": []})), "spec.backends"),
        (
            split(json!({"backends": [{"service": "a/b", "weight": 1}]})),
            "spec.backends[0].service",
        ),
        (
            groups((0..17).map(|n| format!("g{n}")).collect()),
            "spec.matches",
        ),
        (groups(vec!["g".into(), "g".into()]), "spec.matches[1].name"),
        (groups(vec!["Not A Name".into()]), "spec.matches[0].name"),
        (
            split(json!({"matches": [{"kind": "HTTPRouteGroup", "name": "g", "apiGroup": "x"}]})),
            "spec.matches[0].apiGroup",
        ),
        (
            target(json!({"destination": {"kind": "ServiceAccount", "name": "a/b"}})),
            "spec.destination.name",
        ),
        (source("Web", "shop"), "spec.sources[0].name"),
        (source("web", "a.b"), "spec.sources[0].namespace"),
        (
            target(json!({"sources": [
                {"kind": "Group", "name": "system:authenticated", "namespace": "A"},
            ]})),
            "spec.sources[0].namespace",
        ),
        (
            target(json!({"rules": [{"kind": "TCPRoute", "name": "A"}]})),
            "spec.rules[0].name",
        ),
        (
            target(json!({"rules": [{"kind": "TCPRoute", "name": "a", "matches": ["x"]}]})),
            "spec.rules[0].matches",
        ),
        (
            target(json!({"rules": [{"kind": "UDPRoute", "name": "a", "matches": []}]})),
            "spec.rules[0].matches",
        ),
        (
            binding(json!({"serviceAccount": "Web"})),
            "spec.schemes.serviceAccount",
        ),
        (
            binding(json!({"podLabelSelector": {"matchLabels": labels}})),
            "spec.schemes.podLabelSelector.matchLabels",
        ),
        (tcp(json!(null)), "spec"),
        (tcp(json!([])), "spec"),
        (tcp(json!({"matches": []})), "spec.matches"),
        (http(json!(null)), "spec"),
        (http(json!({"matches": [["x"]]})), "spec.matches[0]"),
        (
            http(json!({"matches": [{"name": "a", "methods": [1]}]})),
            "spec.matches[0].methods[0]",
        ),
    ];
    for ((group, kind, spec), field) in table {
        let object = json!({
            "apiVersion": format!("{group}/v1alpha4"), "kind": kind,
            "metadata": {"name": "x", "namespace": "shop", "generation": 1}, "spec": spec,
        });
        assert_eq!(difference(&object), None, "{object}");
        let refusal = reviewed(&object).refusal;
        let refusal = refusal.unwrap_or_else(|| panic!("taken: {object}"));
        assert!(
            refusal.contains(&format!("is invalid: {field}: ")),
            "{refusal}"
        );
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the test's json! plain"
)]
fn merge(spec: &mut Value, edit: Value) {
    for (name, value) in edit.as_object().unwrap() {
        spec[name.as_str()] = value.clone();
    }
}
