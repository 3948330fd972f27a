//! Objects that are malformed on purpose or by accident: of every kind and version, with
//! any value in any field but the metadata, which the API server validates itself.

use serde_json::{Map, Value, json};

use super::{
    objects,
    policies::policies,
    vocabulary::{SHOP, Vocabulary},
};
use crate::random::Random;

/// Longest list that is made, in entries. What the API server takes is bounded by
/// size, about a megabyte and a half; entries are small.
const MOST_ENTRIES: usize = 3_000;
/// Longest text that is made, in bytes.
const MOST_TEXT: usize = 200_000;
/// The API server itself reads no deeper.
const MOST_DEPTH: usize = 100;

const PATTERNS: [&str; 12] = [
    "(a+)+$",
    "(((((a*)*)*)*)*)*b",
    "(?:(?:(?:a{99}){99}){99}){99}",
    "[[:alpha:]&&[^a]]{1000}",
    "(?i)(ſ|K|ẞ){500}",
    ".{0,1000}.{0,1000}x",
    "(?P<n>a)(?P<n>b)",
    "\\u{10FFFF}",
    "(?:",
    "a**",
    "(?s-u:.)",
    "(?x) # \n",
];
const TEXTS: [&str; 12] = [
    "",
    "\u{0}",
    "../../etc",
    "ns/shop",
    "*",
    "system:masters",
    "\u{202e}gnp",
    "a\r\nx: y",
    "💥",
    "shop",
    "api.shop.svc.cluster.local",
    "%2e%2e",
];

/// What the API server takes, in bytes.
const MOST_BYTES: usize = 1_500_000;

/// One object of a namespace.
pub fn hostile(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    loop {
        let object = one(random, vocabulary);
        if object.to_string().len() <= MOST_BYTES {
            return object;
        }
    }
}

fn one(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    let mut made = policies(random, vocabulary);
    let mut object = made.swap_remove(random.below(made.len()));
    if random.percent(10) {
        object["kind"] = json!("UDPRoute");
        object["apiVersion"] = json!("specs.smi-spec.io/v1alpha4");
    }
    for _ in 0..random.below(5) {
        harm(random, &mut object);
    }
    if random.percent(20) {
        let note = note(random, &object);
        object["metadata"]["annotations"] = json!({"weft.dev/smi-lossless": note});
    }
    object
}

/// What stands in the annotation that carries hidden parts, true or not.
fn note(random: &mut Random, object: &Value) -> String {
    let spec = object.get("spec").cloned().unwrap_or_default();
    match random.below(4) {
        0 => TEXTS[random.below(TEXTS.len())].to_owned(),
        1 => json!({"hidden": {"from": "v1alpha1", "seen": "0", "whole": spec, "sum": "0"}})
            .to_string(),
        2 => json!({"written": {"v1alpha1": {"content": {"spec": spec}}}}).to_string(),
        _ => "[".repeat(random.below(5_000)),
    }
}

fn harm(random: &mut Random, object: &mut Value) {
    let fields: Vec<String> = match object.as_object() {
        Some(map) => map
            .keys()
            .filter(|key| !["apiVersion", "kind", "metadata"].contains(&key.as_str()))
            .cloned()
            .collect(),
        None => return,
    };
    let mut pointers = vec!["/spec".to_owned()];
    for field in fields {
        objects::pointers(&format!("/{field}"), &object[&field], &mut pointers);
    }
    let at = random.of(&pointers);
    if object.pointer(&at).is_none() {
        object["spec"] = json!({});
    }
    let Some(value) = object.pointer_mut(&at) else {
        return;
    };
    match (random.below(8), &mut *value) {
        (0 | 1, Value::Array(list)) if !list.is_empty() => {
            let one = list[0].clone();
            // An entry may hold a long list already; what the API server would not
            // take need not be made.
            let room = MOST_BYTES / one.to_string().len().max(1);
            list.resize(random.below(MOST_ENTRIES).min(room), one);
        }
        (2, Value::Object(map)) => {
            for i in 0..random.below(MOST_ENTRIES) {
                map.insert(format!("x-{i}"), json!("a"));
            }
        }
        (3, Value::Object(map)) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            if !keys.is_empty() {
                map.remove(&random.of(&keys));
            }
        }
        (_, Value::String(text)) if random.percent(60) => {
            *text = match random.below(4) {
                0 => random.pick(&PATTERNS).to_owned(),
                1 => random.pick(&TEXTS).to_owned(),
                2 => random
                    .pick(&["a", "(", "é", "[^", "a|"])
                    .repeat(random.below(MOST_TEXT) / 4),
                _ => format!("({})", random.pick(&PATTERNS).repeat(random.below(40))),
            };
        }
        _ => *value = anything(random),
    }
}

fn anything(random: &mut Random) -> Value {
    match random.below(12) {
        0 => json!(null),
        1 => json!(i64::MIN),
        2 => json!(u64::MAX),
        3 => json!(1e308),
        4 => json!(random.pick(&TEXTS)),
        5 => (0..random.below(MOST_DEPTH)).fold(json!(1), |inner, _| json!([inner])),
        6 => (0..random.below(MOST_DEPTH)).fold(json!(1), |inner, _| json!({ "spec": inner })),
        7 => json!(vec![random.below(70_000); random.below(MOST_ENTRIES)]),
        8 => json!(random.percent(50)),
        9 => json!([["", "ServiceAccount", "api", "shop"]]),
        10 => policies(random, &SHOP).swap_remove(0),
        _ => Value::Object(Map::new()),
    }
}
