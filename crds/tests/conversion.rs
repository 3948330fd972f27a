//! No conversion changes what objects allow, and none loses a word.
//!
//! What objects allow is read by the naive evaluator, from the text in each version.
//!
//! Claims: smi-2

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

use crds::convert::{SmiVersion, convert};
use oracle::{
    Call, World,
    generate::{SHOP, Vocabulary},
    random::Random,
    seeds::seeds,
};
use serde_json::{Value, json};

const WORLDS: u64 = 400;
const CALLS: usize = 40;
/// Kinds that have one version only.
const SINGLE: [&str; 2] = ["IdentityBinding", "UDPRoute"];

/// A world in which whatever nothing allows is refused.
fn world(random: &mut Random, vocabulary: &Vocabulary) -> World {
    let mut world = World::random_in(random, vocabulary);
    world.chart.access = "deny".into();
    for object in &mut world.objects {
        if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
            annotations
                .as_object_mut()
                .unwrap()
                .remove("weft.dev/access");
        }
    }
    world
}

fn calls(world: &World, random: &mut Random) -> Vec<Call> {
    (0..CALLS)
        .map(|_| world.random_call(random, &SHOP))
        .collect()
}

fn is_smi(object: &Value) -> bool {
    object["apiVersion"]
        .as_str()
        .unwrap()
        .contains("smi-spec.io/")
}

fn to(object: &Value, version: SmiVersion) -> Value {
    let api_version = object["apiVersion"].as_str().unwrap();
    let (group, _) = api_version.split_once('/').unwrap();
    let single = SINGLE.contains(&object["kind"].as_str().unwrap());
    let version = if single { SmiVersion::STORAGE } else { version };
    convert(object, &format!("{group}/{version}")).unwrap_or_else(|error| {
        panic!("{error}: {object}");
    })
}

/// The world with every SMI object changed.
fn each(world: &World, change: impl Fn(&Value) -> Value) -> World {
    let mut changed = world.clone();
    for object in changed.objects.iter_mut().filter(|object| is_smi(object)) {
        *object = change(object);
    }
    changed
}

fn show(world: &World) -> String {
    let objects = world.objects.iter().filter(|object| is_smi(object));
    let objects: Vec<String> = objects.map(ToString::to_string).collect();
    objects.join("\n")
}

type ConvertFn = Box<dyn Fn(&Value) -> Value>;

/// Into storage, and from there to each version and back.
fn conversions() -> Vec<(String, ConvertFn)> {
    let stored: ConvertFn = Box::new(|object| to(object, SmiVersion::STORAGE));
    let visits = SmiVersion::ALL.into_iter().map(|version| {
        let visit: ConvertFn = Box::new(move |object| {
            to(
                &to(&to(object, SmiVersion::STORAGE), version),
                SmiVersion::STORAGE,
            )
        });
        (format!("after a visit to {version}"), visit)
    });
    std::iter::once(("stored".to_owned(), stored))
        .chain(visits)
        .collect()
}

#[test]
fn stored_objects_allow_same_calls_in_any_version() {
    let mut allowed = 0;
    for seed in seeds(WORLDS) {
        let mut random = Random::new(seed);
        let written = world(&mut random, &SHOP);
        let calls = calls(&written, &mut random);
        for (name, conversion) in conversions() {
            let after = each(&written, &conversion);
            for call in &calls {
                let meant = written.allows(call);
                allowed += usize::from(meant);
                if after.allows(call) != meant {
                    let differs =
                        |world: &World| each(world, &conversion).allows(call) != world.allows(call);
                    let least = written.smallest(differs);
                    panic!(
                        "seed {seed}, {name}: {call:?} was {meant}, smallest input:\n{}\n\
                         -- became\n{}",
                        show(&least),
                        show(&each(&least, &conversion))
                    );
                }
            }
        }
    }
    let share = allowed * 100 / (WORLDS as usize * CALLS * conversions().len());
    assert!((20..=80).contains(&share), "{share} % are allowed");
}

/// An edit that can only take something away, as an old client would write it back.
fn narrow(view: &mut Value, random: &mut Random) -> bool {
    let spec = if view.get("spec").is_some_and(Value::is_object) {
        &mut view["spec"]
    } else {
        &mut *view
    };
    let field = random.pick(&["sources", "matches", "none"]);
    let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut) else {
        view["metadata"]["labels"] = json!({"team": "a"});
        return true;
    };
    // The last, because the first of two matches with one name is the one that counts.
    // Never the only one, nor the last that could match a caller: a target without sources
    // has no effect on the spelling of paths.
    let rest = list.split_last().map_or(&[][..], |(_, rest)| rest);
    let names_caller = |source: &Value| {
        ["ServiceAccount", "Group"]
            .iter()
            .any(|k| source["kind"] == *k)
    };
    !rest.is_empty()
        && (field != "sources" || rest.iter().any(names_caller))
        && list.pop().is_some()
}

#[test]
fn removal_by_older_client_never_grants_access() {
    let (mut edits, mut lost) = (0, 0);
    // Twice as many: what may be taken away is rarely what a call needs.
    for seed in seeds(2 * WORLDS) {
        let mut random = Random::new(seed + 10_000);
        // Without mistakes: taking a mistake away may well give something.
        let vocabulary = Vocabulary {
            mistakes: false,
            ..SHOP
        };
        let written = world(&mut random, &vocabulary);
        let calls = calls(&written, &mut random);
        let stored = each(&written, |object| to(object, SmiVersion::STORAGE));
        for version in SmiVersion::ALL {
            let mut after = stored.clone();
            for object in after.objects.iter_mut().filter(|object| is_smi(object)) {
                // A split that is without conditions has another meaning, not less.
                if object["kind"] == "TrafficSplit" || random.percent(50) {
                    continue;
                }
                let mut view = to(object, version);
                if narrow(&mut view, &mut random) {
                    edits += 1;
                    *object = to(&view, SmiVersion::STORAGE);
                }
            }
            for call in &calls {
                let (before, now) = (stored.allows(call), after.allows(call));
                assert!(
                    before || !now,
                    "seed {seed}, edited in {version}: {call:?}\n{}\n-- became\n{}",
                    show(&stored),
                    show(&after)
                );
                lost += usize::from(before && !now);
            }
        }
    }
    assert!(
        edits > 1000 && lost > 1000,
        "{edits} edits, {lost} calls were taken away"
    );
}

#[test]
fn splits_share_alike_in_every_version() {
    for seed in seeds(WORLDS) {
        let mut random = Random::new(seed + 30_000);
        let written = world(&mut random, &SHOP);
        for version in SmiVersion::ALL {
            let visited = |object: &Value| to(&to(object, version), SmiVersion::STORAGE);
            let after = each(&written, visited);
            for service in ["api", "v1"] {
                for port in [80, 9090] {
                    let traffic = oracle::Traffic::Http(oracle::generate::request(&mut random));
                    let of =
                        |world: &World| proportions(&world.shares("shop", service, port, &traffic));
                    if of(&written) != of(&after) {
                        let least =
                            written.smallest(|world| of(world) != of(&each(world, visited)));
                        panic!(
                            "seed {seed}, {version}, {service}:{port}: smallest input:\n{}",
                            show(&least)
                        );
                    }
                }
            }
        }
    }
}

/// In millionths, because weights of v1alpha1 are stored in other units.
fn proportions(shares: &oracle::Shares) -> Option<Vec<(String, u64)>> {
    let oracle::Shares::Split(shares) = shares else {
        return None;
    };
    let whole: f64 = shares.values().sum::<f64>().max(f64::MIN_POSITIVE);
    let part = |share: &f64| (share / whole * 1e6).round() as u64;
    Some(
        shares
            .iter()
            .map(|(name, share)| (name.clone(), part(share)))
            .collect(),
    )
}

/// Adds a field that no version has to some object inside.
fn add_unknown(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                // Headers have names for fields, and metadata is not ours.
                if !["headers", "metadata", "status", "matchLabels"].contains(&key.as_str()) {
                    add_unknown(inner, random);
                }
            }
            if random.percent(20) {
                map.insert("unknown".into(), json!({"deep": [1, {"text": null}]}));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| add_unknown(inner, random)),
        _ => {}
    }
}

#[test]
fn objects_with_unknown_fields_round_trip_through_every_version() {
    let mut seen = 0;
    for seed in seeds(WORLDS) {
        let mut random = Random::new(seed + 20_000);
        for mut object in World::random(&mut random).objects {
            if !is_smi(&object) {
                continue;
            }
            add_unknown(&mut object, &mut random);
            let name = object["apiVersion"].as_str().unwrap();
            let mine = *SmiVersion::ALL
                .iter()
                .find(|v| name.ends_with(v.name()))
                .unwrap();
            for version in SmiVersion::ALL {
                let through = to(&object, version);
                assert_eq!(
                    to(&through, mine),
                    object,
                    "seed {seed}, through {version}, smallest input:\n{object}\n{through}"
                );
                let stored = to(&object, SmiVersion::STORAGE);
                let view = to(&stored, version);
                assert_eq!(
                    to(&view, SmiVersion::STORAGE),
                    stored,
                    "seed {seed}, through {version}, smallest input:\n{object}\n{view}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 10_000, "{seen}");
}
