//! No object of one tenant disturbs another, or the controller.
//!
//! Random objects, valid, nearly valid and hostile, of every kind and version, are put into one
//! namespace. Whatever they are: nothing panics, each takes bounded time, what proxies of other
//! namespaces get stays the same byte for byte, and what is sent to the own ones is never something
//! that a proxy would refuse.
//!
//! Claims: smi-7

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "decisions/mesh.rs"]
mod mesh;

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use kube::core::conversion::ConversionReview;
use oracle::{
    World,
    generate::{SHOP, Vocabulary, hostile},
    random::Random,
    seeds::seeds,
};
use serde_json::{Value, json};

use mesh::Mesh;

/// What the tenant that is not to be trusted talks about: itself, and all others.
const EVIL: Vocabulary = Vocabulary {
    namespaces: &["evil", "shop", "bank"],
    ..SHOP
};
/// How many fresh worlds are tried: always the same ones. `make fuzz` tries others, and for as long
/// as its settings say.
const TRIES: usize = 300;
/// Seeds that once found something, so that they are tried first for ever.
const KEPT: &str = include_str!("hostile/seeds");
/// Fewer say nothing, however slow the machine is.
const LEAST: usize = 101;
/// Objects of one try.
const OBJECTS: usize = 6;
/// All of them.
const EVERY: u32 = (1 << OBJECTS) - 1;
/// Characters of an object that a failure shows; some are a megabyte long.
const LONGEST_SHOWN: usize = 4000;
/// One conversion, or one compilation of the whole world, without optimisation. Objects are up to a megabyte and a half, as large as the API server
/// takes them.
const LONGEST: Duration = Duration::from_secs(2);
/// There and back, to each of four versions.
const CONVERSIONS: u32 = 8;
/// Resident at most, in KiB: many times what a try needs, and little enough to see a
/// single object that costs a thousand times its size.
const MOST_MEMORY: u64 = 600_000;

#[test]
fn tenant_object_disturbs_no_other_tenant_or_controller() {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap())
    };
    let end = number("WEFT_FUZZ_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let kept: Vec<u64> = KEPT
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.parse().unwrap())
        .collect();
    let (mut tries, mut slowest, mut own, mut reaching) = (0, Duration::ZERO, 0, 0);
    let fresh = (0..)
        .take_while(|tried| {
            end.map_or(*tried < TRIES, |end| *tried < LEAST || Instant::now() < end)
        })
        .zip(seeds(u64::MAX))
        .map(|(_, seed)| seed);
    for seed in kept.iter().copied().chain(fresh) {
        let started = computed();
        let Ok((got, reached)) = catch_unwind(|| attempt(seed, EVERY)) else {
            panic!("seed {seed}, smallest input:\n{}", smallest(seed));
        };
        own += got;
        reaching += reached;
        slowest = slowest.max(computed() - started);
        tries += 1;
        let memory = resident();
        assert!(memory < MOST_MEMORY, "seed {seed}: {memory} KiB resident");
    }
    let memory = resident();
    let seen = format!(
        "{tries} tries, slowest {slowest:?}, {own} rules and splits, {reaching} objects that name \
         another tenant, {memory} KiB at most"
    );
    println!("{seen}");
    assert!(
        tries >= LEAST && own > tries / 2 && reaching > tries,
        "{seen}"
    );
}

/// The hostile objects of a failed try that are needed to make it fail, a line each.
fn smallest(seed: u64) -> String {
    let hook = std::panic::take_hook();
    // The failure has been reported; those on the way to the smallest add nothing new.
    std::panic::set_hook(Box::new(|_| {}));
    let mut least = EVERY;
    for bit in 0..OBJECTS {
        let fewer = least & !(1 << bit);
        if catch_unwind(|| attempt(seed, fewer)).is_err() {
            least = fewer;
        }
    }
    std::panic::set_hook(hook);
    let mut random = Random::new(seed);
    let _ = World::random(&mut random);
    let objects = (0..OBJECTS).map(|_| hostile(&mut random, &EVIL).to_string());
    let kept = objects.enumerate().filter(|(i, _)| least & (1 << i) != 0);
    let lines: Vec<String> = kept
        .map(|(_, text)| text.chars().take(LONGEST_SHOWN).collect())
        .collect();
    lines.join("\n")
}

/// One world with one more tenant, which is hostile and has those of its objects whose bits
/// are set in `chosen`. Returns how many rules and splits the tenant's own proxies got, and
/// how many of its objects name another tenant's namespace.
fn attempt(seed: u64, chosen: u32) -> (usize, usize) {
    let mut random = Random::new(seed);
    let world = World::random(&mut random);
    let mut with_pods = world.clone();
    with_pods.objects.extend(evil_pods(&world));
    let before = Mesh::new(&with_pods);
    let mut harmed = with_pods.clone();
    let mut reached = 0;
    for bit in 0..OBJECTS {
        let mut object = hostile(&mut random, &EVIL);
        if chosen & (1 << bit) == 0 {
            continue;
        }
        // Whatever it says of others, the tenant can put it into its own namespace only.
        object["metadata"]["namespace"] = json!("evil");
        let text = object.to_string();
        reached += usize::from(SHOP.namespaces.iter().any(|name| text.contains(name)));
        let started = computed();
        for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
            convert_twice(&object, version);
        }
        let took = (computed() - started) / CONVERSIONS;
        assert!(took < LONGEST, "seed {seed}: converting took {took:?}");
        harmed.objects.push(object);
    }
    let started = computed();
    let after = Mesh::new(&harmed);
    let compiled = computed() - started;
    assert!(
        compiled < LONGEST,
        "seed {seed}: compiling took {compiled:?}"
    );
    for namespace in SHOP.namespaces {
        let (before, after) = (before.everything(namespace), after.everything(namespace));
        assert!(!before.is_empty());
        for (name, bytes) in &before {
            assert!(
                after.get(name) == Some(bytes),
                "seed {seed}: {name} has changed"
            );
        }
        assert_eq!(
            before.len(),
            after.len(),
            "seed {seed}: something was added in {namespace}"
        );
    }
    (after.readable_by_proxies("evil"), reached)
}

/// The tenant's own pods and Services, which reach for others' addresses.
fn evil_pods(world: &World) -> Vec<Value> {
    let mut evil: Vec<Value> = world
        .objects
        .iter()
        .filter(|object| {
            ["Pod", "Service"].contains(&object["kind"].as_str().unwrap())
                && object["metadata"]["namespace"] == "shop"
        })
        .cloned()
        .collect();
    for (i, object) in evil.iter_mut().enumerate() {
        object["metadata"]["namespace"] = json!("evil");
        object["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        let ip = format!("10.66.0.{}", i + 1);
        if object["kind"] == "Pod" {
            object["metadata"]["uid"] = json!(format!("evil-{i}"));
            object["status"]["podIPs"] = json!([{ "ip": ip }]);
            object["status"]["podIP"] = json!(ip);
        } else if object["spec"]["clusterIP"].is_string() {
            let stolen = object["spec"]["clusterIP"].clone();
            object["spec"]["externalIPs"] = json!([stolen, "10.0.0.1", "10.0.1.1"]);
            object["spec"]["clusterIP"] = json!(ip);
            object["spec"]["clusterIPs"] = json!([ip]);
            object["spec"]["ports"][0]["appProtocol"] = json!("tcp");
        }
    }
    evil
}

fn convert_twice(object: &Value, version: &str) {
    let api_version = object["apiVersion"].as_str().unwrap();
    let (group, _) = api_version.split_once('/').unwrap();
    let review_of = |objects: &Value, to: &str| {
        let review: ConversionReview = serde_json::from_value(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "request": {
                "uid": "u", "desiredAPIVersion": format!("{group}/{to}"), "objects": objects,
            },
        }))
        .unwrap();
        serde_json::to_value(crds::convert::review(review)).unwrap()
    };
    let answer = review_of(&json!([object]), version);
    let converted = &answer["response"]["convertedObjects"];
    if answer["response"]["result"]["status"] == "Success" {
        let one = &converted[0];
        assert_eq!(one["metadata"]["name"], object["metadata"]["name"]);
        review_of(converted, "v1alpha4");
    } else {
        let message = answer["response"]["result"]["message"].as_str().unwrap();
        assert!(!message.is_empty() && message.len() < 4096, "{message}");
    }
}

/// What this thread has computed so far, however busy the machine is otherwise.
fn computed() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

/// Peak resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
